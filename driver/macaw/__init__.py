"""Macaw: train and run neural networks on the Macaw accelerator, with PyTorch's names.

    >>> import macaw
    >>> from macaw import nn, optim
    >>> macaw.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    >>> with macaw.Device("n16", backend="emulator") as device:
    ...     trainer = macaw.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), device)
    ...     result = trainer.train_step(images, labels)
"""

from . import nn, optim
from .device import Device
from .model import Model
from .nn import manual_seed
from .trainer import Evaluation, StepResult, Trainer
from .weights import WeightsError, load_weights, save_weights

__all__ = ["Device", "Evaluation", "Model", "StepResult", "Trainer", "WeightsError", "load_weights", "manual_seed",
           "nn", "optim", "save_weights"]
