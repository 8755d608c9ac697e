"""What NumPy says the units compute, from and to bit patterns (uint32).

Written after docs/numbers.md and not after the RTL or the emulator. NumPy's float32 operations
round correctly and keep subnormals; `flush` before and after is what the hardware does besides.
"""

import numpy as np
from macaw_hw.isa import VectorOp

__all__ = ["flush", "LANE", "lane", "convert", "accumulate", "to_uint8", "quantize"]

_NAN = np.uint32(0x7FC00000)
_SIGN = np.uint32(1 << 31)
_INFINITY = np.uint32(0x7F800000)


def flush(bits):
    """The bits as float32, with subnormals as zeros of their sign and one NaN."""
    bits = np.asarray(bits)
    if bits.dtype == np.float32:
        bits = bits.view(np.uint32)
    exponent = bits & _INFINITY
    bits = np.where(exponent == 0, bits & _SIGN, bits)
    return np.where((exponent == _INFINITY) & (bits << 9 != 0), _NAN, bits).view(np.float32)


def _mul(a, b):
    return flush(a * b)


def _unless_nan(a, b, value):
    return np.where(np.isnan(a) | np.isnan(b), np.float32(np.nan), value)


def _larger(a, b):
    return _unless_nan(a, b, np.where(a > b, a, b))


def _smaller(a, b):
    return _unless_nan(a, b, np.where(a < b, a, b))


def _where(condition, value):
    return np.where(condition, value, np.float32(0))


def _narrow(exact):
    """float64 that need no rounding to float32, but for the range of the exponent."""
    return np.where(np.abs(exact) < 2.0 ** -126, np.copysign(0.0, exact), exact).astype(np.float32)


def _scale2(a, b):
    power = np.nan_to_num(np.trunc(np.clip(b, -512, 512))).astype(np.int32)
    return _unless_nan(a, b, _narrow(np.ldexp(a.astype(np.float64), power)))


def _exponent(a):
    exponent = np.where(a == 0, -127, np.frexp(a)[1] - 1)
    return np.where(np.isfinite(a), exponent, 128).astype(np.float32)


def _reciprocal_seed(a):
    seed = 0x7EF311C7 - np.abs(a).view(np.int32).astype(np.int64)
    seed = np.where((seed < 0x00800000) | np.isinf(a), 0, seed).astype(np.uint32).view(np.float32)
    seed = np.copysign(np.where(a == 0, np.float32(np.inf), seed), a)
    return _unless_nan(a, a, seed)


def _rsqrt_seed(a):
    seed = (np.uint32(0x5F3759DF) - (a.view(np.uint32) >> 1)).view(np.float32)
    seed = np.where(a == np.inf, np.float32(0), np.where(a < 0, np.float32(np.nan), seed))
    return _unless_nan(a, a, np.where(a == 0, np.float32(np.inf), seed))


LANE = {
    VectorOp.MOVE: lambda a, b, s: a,
    VectorOp.FILL: lambda a, b, s: s,
    VectorOp.ADD: lambda a, b, s: a + b,
    VectorOp.SUB: lambda a, b, s: a - b,
    VectorOp.MUL: lambda a, b, s: a * b,
    VectorOp.ADD_SCALAR: lambda a, b, s: a + s,
    VectorOp.MUL_SCALAR: lambda a, b, s: a * s,
    VectorOp.RSUB_SCALAR: lambda a, b, s: s - a,
    VectorOp.MUL_ADD_SCALAR: lambda a, b, s: _mul(a, b) + s,
    VectorOp.NMUL_ADD_SCALAR: lambda a, b, s: s - _mul(a, b),
    VectorOp.SCALE_ADD: lambda a, b, s: _mul(a, s) + b,
    VectorOp.MAX: lambda a, b, s: _larger(a, b),
    VectorOp.MIN: lambda a, b, s: _smaller(a, b),
    VectorOp.MAX_SCALAR: lambda a, b, s: _larger(a, s),
    VectorOp.MIN_SCALAR: lambda a, b, s: _smaller(a, s),
    VectorOp.SELECT_GT: lambda a, b, s: _where(a > s, b),
    VectorOp.SELECT_GE: lambda a, b, s: _where(a >= s, b),
    VectorOp.COMPARE_GT: lambda a, b, s: _where(a > b, s),
    VectorOp.COMPARE_GE: lambda a, b, s: _where(a >= b, s),
    VectorOp.COMPARE_EQ: lambda a, b, s: _where(a == b, s),
    VectorOp.ROUND: lambda a, b, s: np.rint(a),
    VectorOp.SCALE2: lambda a, b, s: _scale2(a, b),
    VectorOp.EXPONENT: lambda a, b, s: _exponent(a),
    VectorOp.RECIPROCAL_SEED: lambda a, b, s: _reciprocal_seed(a),
    VectorOp.RSQRT_SEED: lambda a, b, s: _rsqrt_seed(a),
}
"""The formulas of `isa.VectorOp` on flushed float32."""


def lane(op, a, b, s):
    """Bits of ``op`` on bits of the operands and the scalar."""
    with np.errstate(all="ignore"):
        return flush(LANE[op](flush(a), flush(b), flush(s))).view(np.uint32)


def _scaled(p, scale):
    """float32 of the integers ``p`` times two to ``scale``."""
    return _narrow(np.ldexp(p.astype(np.float64), scale))


def convert(p, scale):
    """Bits of ``p * 2^scale``; integers."""
    with np.errstate(over="ignore"):
        return _scaled(p, scale).view(np.uint32)


def accumulate(old, p, scale):
    """Bits of ``old + p * 2^scale``; ``old`` in bits."""
    with np.errstate(all="ignore"):
        return flush(flush(old) + _scaled(p, scale)).view(np.uint32)


def to_uint8(x):
    """The byte of float32 bits ``x``, which means nothing where bit 8 is set: not finite."""
    with np.errstate(invalid="ignore"):
        value = x.view(np.float32)
        finite = np.isfinite(value)
        return np.where(finite, np.clip(np.rint(value), 0, 255), 256).astype(np.uint32)


def quantize(tiles):
    """bfp8 of finite float32 bits [tiles, N, N]: mantissas (8 bits), exponents (9 bits) above."""
    x = flush(tiles).astype(np.float64)
    largest = np.abs(x).max(axis=(1, 2))
    exponent = np.where(largest == 0, 0, np.frexp(largest)[1] - 1 - 6)[:, None, None]
    mantissas = np.clip(np.rint(np.ldexp(x, -exponent)), -127, 127).astype(np.int32)
    return (mantissas & 0xFF | (exponent & 0x1FF) << 8).astype(np.uint32)
