"""Inference on the device."""

__all__ = ["Model"]


class Model:
    """A network ready to predict on a device.

    Parameters
    ----------
    network : macaw.nn.Sequential
        Of Linear and ReLU modules, with or without a Softmax at the end.
    device : macaw.Device
    batch_size : int
        Samples per run of the device; more are split, fewer get a program of their own.

    Attributes
    ----------
    counters : dict of str to int
        The device's counters, summed over the runs of the last :meth:`predict`.
    useful_macs : int
        Multiply-accumulates of the last :meth:`predict`, without padding.
    """

    def __init__(self, network, device, batch_size=64):
        raise NotImplementedError

    def predict(self, x):
        """The network's outputs, float32 (samples, out_features).

        Parameters
        ----------
        x : ndarray, shape (samples, ...) with in_features values per sample
            uint8 pixels (used as x / 255) or float32. NaN, infinity, another dtype or shape is an error that names
            the value, the limit and the remedy.
        """
        raise NotImplementedError
