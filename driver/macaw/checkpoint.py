"""Checkpoints: everything a training run needs to continue, in one safetensors file without code in it."""

import json
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from .errors import MacawError
from .files import write_atomically

__all__ = ["CheckpointError", "load_checkpoint", "save_checkpoint"]

_FORMAT = "macaw checkpoint 1"
_ARRAY = "array:"


class CheckpointError(MacawError):
    """A checkpoint that is missing, damaged, or belongs to another run."""


def save_checkpoint(path, state):
    """Write ``state`` to ``path``, all or nothing.

    Parameters
    ----------
    path : path-like
    state : dict
        Dicts, lists, strings, numbers, None, and NumPy arrays, nested as needed. No string may begin with
        ``"array:"``.
    """
    arrays = {}
    structure = _without_arrays(state, "", arrays)
    metadata = {"format": _FORMAT, "structure": json.dumps(structure)}
    write_atomically(path, safetensors.numpy.save(arrays, metadata))


def load_checkpoint(path):
    """The inverse of `save_checkpoint`.

    Raises
    ------
    CheckpointError
        When the file is missing, truncated or something else.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path}: no such checkpoint; train without --resume first")
    try:
        with safetensors.safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise CheckpointError(f"{path} is not a checkpoint of this version of Macaw; "
                                      "train with --restart")
            return _with_arrays(json.loads(metadata["structure"]), file)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); train with --restart") from None


def _without_arrays(value, name, arrays):
    if isinstance(value, np.ndarray):
        arrays[name] = np.ascontiguousarray(value)
        return _ARRAY + name
    if isinstance(value, dict):
        return {key: _without_arrays(item, f"{name}/{key}".strip("/"), arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, f"{name}/{i}".strip("/"), arrays) for i, item in enumerate(value)]
    return value


def _with_arrays(value, file):
    if isinstance(value, str) and value.startswith(_ARRAY):
        return file.get_tensor(value.removeprefix(_ARRAY))
    if isinstance(value, dict):
        return {key: _with_arrays(item, file) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_arrays(item, file) for item in value]
    return value
