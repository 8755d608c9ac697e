"""Training and evaluation on the device."""

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Evaluation", "StepResult", "Trainer"]


@dataclass(frozen=True)
class StepResult:
    """What one training step did.

    Attributes
    ----------
    loss : float
        Mean cross entropy of the batch, before the update.
    correct : int
        Samples whose largest output was that of their label, before the update.
    samples : int
        Size of the batch.
    useful_macs : int
        Multiply-accumulates of the step without padding and without the first layer's input gradient.
    counters : dict of str to int
        The device's counters (`macaw_hw.registers.COUNTERS`) for this step.
    utilization : float
        ``useful_macs / (cycles * N^2)``, from 0 to 1.
    """
    loss: float
    correct: int
    samples: int
    useful_macs: int
    counters: dict = field(repr=False)
    utilization: float


@dataclass(frozen=True)
class Evaluation:
    """What a run over labelled samples gave.

    Attributes
    ----------
    loss : float
        Mean cross entropy.
    accuracy : float
        Share of correct predictions, from 0 to 1.
    correct, samples : int
    predictions : ndarray of int64, shape (samples,)
    useful_macs, cycles : int
    utilization : float
    """
    loss: float
    accuracy: float
    correct: int
    samples: int
    predictions: np.ndarray = field(repr=False)
    useful_macs: int
    cycles: int
    utilization: float


class Trainer:
    """Trains a network on a device: forward, loss, backward and update all run there.

    Parameters
    ----------
    model : macaw.nn.Sequential
        Of Linear and ReLU modules; its parameters follow the training (see :class:`macaw.nn.Parameter`).
    loss : macaw.nn.CrossEntropyLoss
    optimizer : macaw.optim.Optimizer
        Made with ``model.parameters()``.
    device : macaw.Device
    batch_size : int
        Samples per step; a smaller last batch is fine and gets a program of its own.
    """

    def __init__(self, model, loss, optimizer, device, batch_size=64):
        raise NotImplementedError

    def train_step(self, x, y):
        """One step on one batch. Returns :class:`StepResult`.

        Parameters
        ----------
        x : ndarray, shape (B, ...) with in_features values per sample
            uint8 pixels (used as x / 255) or float32; 1 <= B <= batch_size.
        y : integer ndarray, shape (B,)
            Labels from 0 to out_features - 1.
        """
        raise NotImplementedError

    def evaluate(self, x, y, batch_size=None):
        """Loss and accuracy over any number of samples, with the current parameters. Returns
        :class:`Evaluation`."""
        raise NotImplementedError

    def predict(self, x, batch_size=None):
        """The network's outputs, float32 (samples, out_features), for any number of samples."""
        raise NotImplementedError
