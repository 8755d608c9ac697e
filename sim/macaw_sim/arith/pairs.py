"""Pairs of operands: first all classes crossed with each other, then those that `values` draws."""

from functools import cache

import numpy as np

from . import values
from .values import HOLD

__all__ = ["crossed_or_drawn", "in_cross", "held"]


def crossed_or_drawn(rng, kinds, start, count, total, copies, keep=False):
    """Bits of ``count`` pairs (x, y), of which ``start`` of ``total`` come before.

    They are for ``copies`` of a unit side by side: vector ``i`` is for copy ``i % copies``.
    ``count`` is a multiple of ``HOLD * copies``. The cross of all classes comes first; where it is
    more than half of ``total``, that half is drawn from it. With ``keep``, x changes only every
    ``HOLD`` vectors of a copy, as it always does in the cross.
    """
    if in_cross(start, total):
        groups, every = count // HOLD, _size() // HOLD
        if total >= 2 * _size():
            return _cross(start // HOLD + np.arange(groups), copies)
        return _cross(rng.integers(0, every, groups), copies)
    xs, ys = [], []
    blocks = count // (HOLD * copies)
    for number, (first, second) in enumerate(kinds):
        n = (blocks * (number + 1) // len(kinds) - blocks * number // len(kinds)) * copies
        x = held(first(rng, n), copies) if keep else first(rng, n * HOLD)
        xs.append(x)
        ys.append(second(rng, x))
    return np.concatenate(xs), np.concatenate(ys)


def in_cross(start, total):
    """Whether the vectors at ``start`` of ``total`` are from the cross of all classes."""
    return start < min(_size(), total // 2)


def held(x, copies):
    """``x`` [blocks * copies] for HOLD vectors of each copy."""
    blocks = x.reshape(-1, 1, copies)
    return np.broadcast_to(blocks, (len(blocks), HOLD, copies)).ravel()


def _cross(group, copies):
    """Group ``g``: one x with HOLD of the classes; beyond the last group the first ones again."""
    numbers = _classes()
    per = len(numbers) // HOLD
    x, y = np.divmod(group % (len(numbers) * per), per)
    y = numbers.reshape(per, HOLD)[y].reshape(-1, copies, HOLD).transpose(0, 2, 1)
    return held(numbers[x], copies), y.ravel()


def _size():
    return len(_classes()) ** 2


@cache
def _classes():
    return values.classes()
