"""Weight files: safetensors with PyTorch's names and layouts, read with clear errors."""

import safetensors
import safetensors.numpy

from .errors import MacawError
from .files import write_atomically

__all__ = ["WeightsError", "load_weights", "save_weights"]


class WeightsError(MacawError, ValueError):
    """A weight file that cannot be used; the message is one line that names the file and the reason."""


def load_weights(path, model=None):
    """The arrays of a safetensors file by name; with ``model`` also loaded into it.

    Raises
    ------
    WeightsError
        When the file is missing, truncated, not safetensors, or does not fit ``model``, which is then unchanged.
    """
    try:
        state = safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such weights file") from None
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path}: truncated, or not a safetensors file of NumPy types ({error})") from None
    if model is not None:
        try:
            model.load_state_dict(state)
        except (KeyError, ValueError, TypeError) as error:
            raise WeightsError(f"{path}: {error.args[0]}") from None
    return state


def save_weights(path, model, metadata=None):
    """Write the parameters of ``model`` to a safetensors file, all or nothing.

    Parameters
    ----------
    metadata : dict of str to str, optional
        Stored in the header of the file.
    """
    write_atomically(path, safetensors.numpy.save(model.state_dict(), metadata))
