"""Addresses of nested loops over a local memory."""

import numpy as np

__all__ = ["LOCAL_SPACE", "Places", "walk"]

LOCAL_SPACE = 1 << 16
"""Local addresses wrap here before they are checked."""


class Places:
    """Rows or tiles of a local memory, in the order of loops.

    Attributes
    ----------
    indices : integer array
        One axis for each loop.
    """

    def __init__(self, indices):
        self.indices = indices
        flat = indices.reshape(-1)
        consecutive = flat.size and (np.diff(flat) == 1).all()
        self._range = slice(int(flat[0]), int(flat[-1]) + 1) if consecutive else None

    def __len__(self):
        return self.indices.size

    def read(self, memory):
        """What ``memory`` (places on its first axis) holds: the shape of the indices, then that of a place."""
        if self._range is not None:
            return memory[self._range].reshape(*self.indices.shape, *memory.shape[1:])
        return memory.take(self.indices, axis=0)

    def write(self, memory, values):
        """The reverse of `read`; of several values for one place the last stays."""
        if self._range is not None:
            memory[self._range] = values.reshape(-1, *memory.shape[1:])
        else:
            memory[self.indices] = values


def walk(start, *loops, limit):
    """Local addresses ``start`` + index * stride of nested ``loops`` of (count, stride), outermost first.

    Returns their `Places`, with one axis for each loop, or None when an address is not below ``limit``.
    """
    for count, stride in loops:  # cheap tests before an array is made for what may be a huge loop
        edge = (start + np.arange(count) * stride) % LOCAL_SPACE
        if edge.max() >= limit:
            return None
    places = np.array(start)
    for count, stride in loops:
        places = places[..., None] + np.arange(count, dtype=np.int64) * stride
    places %= LOCAL_SPACE
    return Places(places) if places.max() < limit else None
