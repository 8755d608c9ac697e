"""Training and evaluation on the device."""

from dataclasses import dataclass, field

import numpy as np

from . import nn
from .model import Model
from .optim import SGD
from .plan import NetworkError, describe
from .session import InputError, Session, check_batch_size, check_features, check_labels

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
        ``useful_macs / (cycles * N^2)``, from 0 to 1; 0 on a backend that counts no cycles.
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
    optimizer : macaw.optim.SGD
        Made with ``model.parameters()``. Its learning rate may change between steps.
    device : macaw.Device
    batch_size : int
        Samples per step; a smaller last batch is fine and gets a program of its own.

    Raises
    ------
    ValueError
        For a network that the device cannot train, a batch size below 1, or an optimizer of other parameters.
    TypeError
        For a loss or an optimizer of another kind.
    """

    def __init__(self, model, loss, optimizer, device, batch_size=64):
        pairs, softmax = describe(model)
        if softmax:
            raise NetworkError("CrossEntropyLoss contains the softmax: leave nn.Softmax out of the network")
        if pairs[-1][1]:
            raise NetworkError("the last Linear must give the logits: leave out the ReLU behind it")
        if not isinstance(loss, nn.CrossEntropyLoss):
            raise TypeError(f"loss must be nn.CrossEntropyLoss, not {type(loss).__name__}")
        if not isinstance(optimizer, SGD):
            raise TypeError(f"optimizer must be optim.SGD, not {type(optimizer).__name__}")
        if {id(p) for p in optimizer.parameters} != {id(p) for p in model.parameters()}:
            raise InputError("the optimizer must have the parameters of this model: make it with model.parameters()")
        self.model, self.loss, self.optimizer, self.device = model, loss, optimizer, device
        self.batch_size = check_batch_size(batch_size)
        self._session = Session(model, device, self.batch_size, training=True)
        self._models = {}

    def train_step(self, x, y):
        """One step on one batch.

        Parameters
        ----------
        x : ndarray, shape (B, ...) with in_features values per sample
            uint8 pixels (used as x / 255) or float32; 1 <= B <= batch_size.
        y : integer ndarray, shape (B,)
            Labels from 0 to out_features - 1.

        Returns
        -------
        StepResult

        Raises
        ------
        ValueError
            For data that the network cannot take; nothing has changed.
        macaw.faults.DeviceFault
            `NonFiniteFault` when the training diverges; parameters may be updated in part.
        """
        session = self._session
        x = check_features(x, session.features)
        if not 1 <= len(x) <= self.batch_size:
            raise InputError(f"a batch must have 1 to {self.batch_size} samples, not {len(x)}; "
                             "make the trainer with a larger batch_size, or split the batch")
        y = check_labels(y, len(x), session.classes)
        outputs, losses, counters = session.train(x, y, self.optimizer.lr)
        macs = session.plan.macs(len(x), training=True)
        return StepResult(loss=float(losses.mean(dtype=np.float64)), correct=int((outputs.argmax(axis=1) == y).sum()),
                          samples=len(x), useful_macs=macs, counters=counters,
                          utilization=_utilization(macs, counters["cycles"], self.device))

    def evaluate(self, x, y, batch_size=None):
        """Loss and accuracy over any number of samples, with the current parameters.

        Returns
        -------
        Evaluation
        """
        x = check_features(x, self._session.features)
        y = check_labels(y, len(x), self._session.classes)
        if not len(x):
            raise InputError("x must have at least one sample, not 0")
        outputs = self.predict(x, batch_size).astype(np.float64)
        model = self._model(batch_size)
        shifted = outputs - outputs.max(axis=1, keepdims=True)
        losses = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(x)), y]
        predictions = outputs.argmax(axis=1)
        correct, cycles = int((predictions == y).sum()), model.counters["cycles"]
        return Evaluation(loss=float(losses.mean()), accuracy=correct / len(x), correct=correct, samples=len(x),
                          predictions=predictions, useful_macs=model.useful_macs, cycles=cycles,
                          utilization=_utilization(model.useful_macs, cycles, self.device))

    def predict(self, x, batch_size=None):
        """The network's outputs, float32 (samples, out_features), for any number of samples."""
        return self._model(batch_size).predict(x)

    def _model(self, batch_size):
        size = self.batch_size if batch_size is None else check_batch_size(batch_size)
        if size not in self._models:
            self._models[size] = Model(self.model, self.device, size)
        return self._models[size]


def _utilization(macs, cycles, device):
    return macs / (cycles * device.config.peak_macs) if cycles else 0.0
