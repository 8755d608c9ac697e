"""Inference on the device."""

import numpy as np

from .session import Session, check_batch_size, check_features

__all__ = ["Model"]


class Model:
    """A network ready to predict on a device.

    Parameters
    ----------
    network : macaw.nn.Sequential
        Of Linear and ReLU modules, with or without a Softmax at the end. Its parameters may change between calls.
    device : macaw.Device
    batch_size : int
        Samples per run of the device; more are split, fewer get a program of their own.

    Attributes
    ----------
    counters : dict of str to int
        The device's counters, summed over the runs of the last :meth:`predict`.
    useful_macs : int
        Multiply-accumulates of the last :meth:`predict`, without padding.

    Raises
    ------
    ValueError
        For a network that the device cannot run, or a batch size below 1.
    """

    def __init__(self, network, device, batch_size=64):
        self.network, self.device = network, device
        self.batch_size = check_batch_size(batch_size)
        self._session = Session(network, device, self.batch_size)
        self.counters, self.useful_macs = {}, 0

    def predict(self, x):
        """The network's outputs, float32 (samples, out_features).

        Parameters
        ----------
        x : ndarray, shape (samples, ...) with in_features values per sample
            uint8 pixels (used as x / 255) or float32. NaN, infinity, another dtype or shape is a ``ValueError`` that
            names the value, the limit and the remedy.

        Notes
        -----
        N neighbouring samples share the exponents of their tiles, so that an output depends a little on its neighbours,
        and on ``batch_size`` where that is no multiple of N.
        """
        session = self._session
        x = check_features(x, session.features)
        outputs = np.empty((len(x), session.classes), dtype=np.float32)
        self.counters, self.useful_macs = {}, session.plan.macs(len(x))
        for start in range(0, len(x), self.batch_size):
            part = slice(start, start + self.batch_size)
            outputs[part], counters = session.infer(x[part])
            self.counters = {name: self.counters.get(name, 0) + value for name, value in counters.items()}
        return outputs
