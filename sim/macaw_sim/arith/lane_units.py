"""Operands for each operation of a lane.

A scalar stays for `values.HOLD` vectors, since a lane must be empty before it changes.
"""

import numpy as np
from macaw_hw.isa import VectorOp

from . import oracle, values
from .pairs import crossed_or_drawn, held, in_cross

__all__ = ["LANE_COPIES", "lane_operands"]

LANE_COPIES = 8

_FUSED = (VectorOp.MUL_ADD_SCALAR, VectorOp.NMUL_ADD_SCALAR)
_COMPARES = tuple(op for op in VectorOp
                  if op.name.startswith(("MAX", "MIN", "SELECT", "COMPARE")))
_KINDS = {
    **dict.fromkeys((VectorOp.ADD, VectorOp.SUB, VectorOp.ADD_SCALAR, VectorOp.RSUB_SCALAR),
                    values.SUM_KINDS),
    **dict.fromkeys((VectorOp.MUL, VectorOp.MUL_SCALAR, VectorOp.SCALE_ADD, *_FUSED),
                    values.PRODUCT_KINDS),
    **dict.fromkeys(_COMPARES, values.COMPARE_KINDS),
    VectorOp.ROUND: values.INTEGER_KINDS, VectorOp.SCALE2: values.SCALE_KINDS,
}
_HELD_FIRST = tuple(op for op in VectorOp if op not in _FUSED and (
    op.name.endswith("_SCALAR") or op.name.startswith("SELECT")
    or op in (VectorOp.SCALE_ADD, VectorOp.FILL)))
"""The scalar makes the pair with ``a``."""


def lane_operands(op, rng, start, count, total):
    """Bits ``a``, ``b``, ``scalar`` of ``count`` vectors, and whether the scalar changes.

    Arguments and order are those of `pairs.crossed_or_drawn`. What ``op`` does not read is random.
    """
    keep = op in _HELD_FIRST
    x, y = crossed_or_drawn(rng, _KINDS.get(op, values.END_KINDS), start, count, total,
                            LANE_COPIES, keep=keep)
    other = _any(rng, count)
    if op == VectorOp.SCALE_ADD:
        product = oracle.lane(VectorOp.MUL, x, y, x)
        other = np.where(rng.integers(0, 4, count), values.near_sum(rng, product), other)
    if keep:
        return y, other, x, True
    if op in _FUSED or op.name.startswith("COMPARE"):
        scalar = held(_any(rng, count // values.HOLD), LANE_COPIES)
        if op in _FUSED and not in_cross(start, total):
            y = np.where(rng.integers(0, 4, count), _factor(rng, x, scalar), y)
        return x, y, scalar, True
    scalar = np.tile(_any(rng, LANE_COPIES), count // LANE_COPIES)
    return x, y if op.operands.b else other, scalar, False


def _any(rng, count):
    """Uniform bits, or one of the classes."""
    some = rng.choice(values.classes(), count)
    return np.where(rng.integers(0, 2, count), values.any_bits(rng, count), some)


def _factor(rng, x, scalar):
    """Numbers whose product with ``x`` makes a difficult sum with the scalar."""
    aim = np.where(rng.integers(0, 2, len(x)), scalar, values.near_sum(rng, scalar))
    return values.inverse(rng, x, aim, ulps=1)
