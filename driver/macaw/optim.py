"""Optimizers. The update runs on the device, in float32, on master weights that stay in its memory."""

import math
import numbers

__all__ = ["SGD", "Optimizer"]


class Optimizer:
    """Base of all optimizers: the parameters of a network and how to update them.

    Parameters
    ----------
    parameters : iterable of macaw.nn.Parameter
        What to train, usually ``model.parameters()``.
    lr : float
        Learning rate; may be changed between steps (the programs are then built again).
    """

    def __init__(self, parameters, lr):
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("an optimizer needs at least one parameter; pass model.parameters()")
        self.lr = lr

    @property
    def lr(self):
        return self._lr

    @lr.setter
    def lr(self, value):
        if not isinstance(value, numbers.Real) or not math.isfinite(value) or value < 0:
            raise ValueError(f"lr must be a finite number, 0 or more, not {value!r}")
        self._lr = float(value)

    def state_dict(self):
        """Everything that a checkpoint needs to continue: plain numbers and NumPy arrays."""
        return {"lr": self.lr}

    def load_state_dict(self, state):
        """The inverse of :meth:`state_dict`."""
        self.lr = state["lr"]


class SGD(Optimizer):
    """Plain gradient descent: ``w = g * (-lr) + w``, product and sum rounded to float32."""

    def __init__(self, parameters, lr=1e-3):
        super().__init__(parameters, lr)

    def __repr__(self):
        return f"SGD(lr={self.lr})"
