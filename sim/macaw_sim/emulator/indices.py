"""Addresses of nested loops over a local memory."""

import numpy as np

__all__ = ["LOCAL_SPACE", "walk"]

LOCAL_SPACE = 1 << 16
"""Local addresses wrap here before they are checked."""


def walk(start, *loops, limit):
    """Local addresses ``start`` + index * stride of nested ``loops`` of (count, stride), outermost first.

    Returns an integer array with one axis for each loop, or None when an address is not below ``limit``.
    """
    for count, stride in loops:  # cheap tests before an array is made for what may be a huge loop
        edge = (start + np.arange(count) * stride) % LOCAL_SPACE
        if edge.max() >= limit:
            return None
    places = np.array(start)
    for count, stride in loops:
        places = places[..., None] + np.arange(count, dtype=np.int64) * stride
    places %= LOCAL_SPACE
    return places if places.max() < limit else None
