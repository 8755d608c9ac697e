"""The numbers of the accelerator, bit for bit, on NumPy arrays of any shape.

This is the model that hardware tests compare with and that the emulator computes with. float32 means IEEE 754
binary32 with round to nearest even, subnormals read and written as zeros of the same sign, and one NaN,
0x7FC00000. Every function takes arrays (or scalars) and returns new arrays; no function warns.
"""

import numpy as np
from macaw_hw.isa import VectorOp

__all__ = ["NAN_BITS", "NonFiniteError", "from_bits", "to_bits", "normalise", "fadd", "fsub", "fmul",
           "vector_op", "quantize_tile", "dequantize_tile", "int_to_float", "matrix_product", "accumulate",
           "to_uint8", "pack_tiles", "unpack_tiles"]

NAN_BITS = 0x7FC00000
"""The only NaN that an operation returns."""

_TINY = np.float32(2.0 ** -126)
_ZERO = np.float32(0)
_NAN = np.array(NAN_BITS, np.uint32).view(np.float32)[()]
_SIGN = np.uint32(0x80000000)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_INFINITY = np.uint32(0x7F800000)
_SMALLEST = np.uint32(0x00800000)
_ONE = np.uint32(1)


class NonFiniteError(ValueError):
    """An infinity or a NaN where only finite numbers can be converted."""


def from_bits(bits):
    """float32 array of the bit patterns ``bits`` (integers 0 to 2^32 - 1)."""
    return np.asarray(bits).astype(np.uint32).view(np.float32)


def to_bits(x):
    """uint32 array of the bit patterns of ``x`` (float32)."""
    return np.array(x, np.float32).view(np.uint32)


def _any_subnormal(magnitude):
    """Whether there is a subnormal in an array of bits without their signs."""
    return (magnitude - _ONE).min() < _SMALLEST - _ONE  # zeros wrap around to the largest number


def _settle(x):
    """Flush subnormals and make NaNs canonical in place; ``x`` is float32 with at least one dimension."""
    if not x.size:
        return x
    magnitude = x.view(np.uint32) & _MAGNITUDE
    if magnitude.max() > _INFINITY:
        x[magnitude > _INFINITY] = _NAN
    if _any_subnormal(magnitude):
        np.multiply(x, _ZERO, out=x, where=magnitude < _SMALLEST)
    return x


def normalise(x):
    """``x`` as every float32 operation reads it: subnormals are zeros of the same sign, NaN is canonical."""
    x = np.array(x, np.float32)
    return _settle(x.reshape(-1)).reshape(x.shape)


def _add(a, b):
    return normalise(a + b)


def _mul(a, b):
    return normalise(a * b)


def fadd(a, b):
    """a + b. ``x + -x`` is +0, ``-0 + -0`` is -0."""
    with np.errstate(all="ignore"):
        return _add(normalise(a), normalise(b))


def fsub(a, b):
    """a - b, which is a + (-b)."""
    with np.errstate(all="ignore"):
        return _add(normalise(a), -normalise(b))


def fmul(a, b):
    """a * b. What rounds, at subnormal precision, to 2^-126 is 2^-126; what is smaller is a signed zero."""
    with np.errstate(all="ignore"):
        return _mul(normalise(a), normalise(b))


def _max(a, b):
    return np.where(np.isnan(a) | np.isnan(b), _NAN, np.where(a > b, a, b))


def _min(a, b):
    return np.where(np.isnan(a) | np.isnan(b), _NAN, np.where(a < b, a, b))


def _scale2(a, b):
    nan = np.isnan(a) | np.isnan(b)
    shift = np.trunc(np.clip(np.where(nan, _ZERO, b), -512, 512)).astype(np.int32)
    bits = a.view(np.uint32)
    sign = bits & _SIGN
    exponent = (bits >> 23 & 0xFF).astype(np.int32)
    moved = exponent + shift
    scaled = bits & np.uint32(0x807FFFFF) | (moved & 0xFF).astype(np.uint32) << 23
    scaled = np.where(moved < 1, sign, np.where(moved > 254, sign | _INFINITY, scaled))
    scaled = np.where((exponent == 0) | (exponent == 255), bits, scaled)
    return np.where(nan, np.uint32(NAN_BITS), scaled).view(np.float32)


def _exponent(a):
    return ((a.view(np.uint32) >> 23 & 0xFF).astype(np.int32) - 127).astype(np.float32)


def _reciprocal_seed(a):
    bits = a.view(np.uint32)
    magnitude, sign = bits & _MAGNITUDE, bits & _SIGN
    seed = 0x7EF311C7 - magnitude.astype(np.int64)
    seed = np.where((seed < 0x00800000) | (magnitude == _INFINITY), 0, seed).astype(np.uint32)
    seed = np.where(magnitude == 0, _INFINITY, seed) | sign
    return np.where(np.isnan(a), np.uint32(NAN_BITS), seed).view(np.float32)


def _rsqrt_seed(a):
    bits = a.view(np.uint32)
    seed = np.uint32(0x5F3759DF) - (bits >> 1)
    seed = np.where(bits == _INFINITY, np.uint32(0), seed)
    seed = np.where(np.isnan(a) | (a < 0), np.uint32(NAN_BITS), seed)
    return np.where(bits & _MAGNITUDE == 0, _INFINITY, seed).view(np.float32)


_OPERATIONS = {
    VectorOp.MOVE: lambda a, b, s: a,
    VectorOp.FILL: lambda a, b, s: np.broadcast_to(s, np.shape(a)).copy(),
    VectorOp.ADD: lambda a, b, s: _add(a, b),
    VectorOp.SUB: lambda a, b, s: _add(a, -b),
    VectorOp.MUL: lambda a, b, s: _mul(a, b),
    VectorOp.ADD_SCALAR: lambda a, b, s: _add(a, s),
    VectorOp.MUL_SCALAR: lambda a, b, s: _mul(a, s),
    VectorOp.RSUB_SCALAR: lambda a, b, s: _add(s, -a),
    VectorOp.MUL_ADD_SCALAR: lambda a, b, s: _add(_mul(a, b), s),
    VectorOp.NMUL_ADD_SCALAR: lambda a, b, s: _add(s, -_mul(a, b)),
    VectorOp.SCALE_ADD: lambda a, b, s: _add(_mul(a, s), b),
    VectorOp.MAX: lambda a, b, s: _max(a, b),
    VectorOp.MIN: lambda a, b, s: _min(a, b),
    VectorOp.MAX_SCALAR: lambda a, b, s: _max(a, s),
    VectorOp.MIN_SCALAR: lambda a, b, s: _min(a, s),
    VectorOp.SELECT_GT: lambda a, b, s: np.where(a > s, b, _ZERO),
    VectorOp.SELECT_GE: lambda a, b, s: np.where(a >= s, b, _ZERO),
    VectorOp.COMPARE_GT: lambda a, b, s: np.where(a > b, s, _ZERO),
    VectorOp.COMPARE_GE: lambda a, b, s: np.where(a >= b, s, _ZERO),
    VectorOp.COMPARE_EQ: lambda a, b, s: np.where(a == b, s, _ZERO),
    VectorOp.ROUND: lambda a, b, s: normalise(np.rint(a)),
    VectorOp.SCALE2: lambda a, b, s: _scale2(a, b),
    VectorOp.EXPONENT: lambda a, b, s: _exponent(a),
    VectorOp.RECIPROCAL_SEED: lambda a, b, s: _reciprocal_seed(a),
    VectorOp.RSQRT_SEED: lambda a, b, s: _rsqrt_seed(a),
}


def vector_op(op, a=None, b=None, scalar=0.0):
    """``op(a, b, scalar)`` element by element, as one :class:`~macaw_hw.isa.VectorOp` of the activation unit.

    ``a`` and ``b`` are float32 arrays of one shape (an operand that ``op`` does not read may be None);
    ``scalar`` is a float32, or its bit pattern as a ``np.uint32``. FILL takes its shape from ``a``. The lane
    shuffle is not applied here. Returns a float32 array.
    """
    op = VectorOp(op)
    s = normalise(from_bits(scalar) if isinstance(scalar, np.uint32) else scalar)[()]
    reads = op.operands
    if op != VectorOp.FILL:
        a = np.atleast_1d(normalise(a)) if reads.a else a
    b = normalise(b) if reads.b else b
    with np.errstate(all="ignore"):
        return _OPERATIONS[op](a, b, s)


def quantize_tile(rows):
    """bfp8 tiles of float32 ``rows``: the mantissas (int8, [..., N, N]) and exponents (int16, [...]).

    ``rows`` is [..., n, N] with n at most N; rows that are missing count as zeros. A tile's exponent is that
    of its largest element minus 6; a tile of zeros has exponent 0.

    Raises
    ------
    NonFiniteError
        When an element is infinite or NaN.
    """
    rows = normalise(rows)
    *tiles, count, size = rows.shape
    largest = np.abs(rows).max(axis=(-2, -1), initial=0)
    if not np.isfinite(largest).all():
        raise NonFiniteError("cannot quantize infinity or NaN")
    exponent = (largest.view(np.uint32) >> 23).astype(np.int16) - 127 - 6
    exponent = np.where(largest == 0, 0, exponent).astype(np.int16)
    scaled = rows * np.ldexp(1.0, -exponent.astype(np.int32))[..., None, None]
    mantissas = np.zeros((*tiles, size, size), np.int8)
    mantissas[..., :count, :] = np.clip(np.rint(scaled), -127, 127)
    return mantissas, exponent[()]


def dequantize_tile(mantissas, exponent):
    """The values of bfp8 tiles, float64 (exact): ``mantissas`` [..., N, N], ``exponent`` [...]."""
    return np.ldexp(np.asarray(mantissas, np.float64), np.asarray(exponent, np.int32)[..., None, None])


def int_to_float(p, scale):
    """``p * 2^scale`` as the array's columns convert it: exact, or a signed zero or infinity out of range.

    ``p`` holds integers of magnitude up to 2^24 (any dtype), ``scale`` integers from -512 to 511; they
    broadcast.
    """
    scale = np.asarray(scale, np.int32)
    p = np.asarray(p)
    with np.errstate(all="ignore"):
        if scale.size and scale.min() >= -126 and scale.max() <= 127:
            return (np.asarray(p, np.float32) + _ZERO) * np.ldexp(np.float32(1), scale)
        value = np.ldexp(p.astype(np.float64) + 0.0, scale)
        return np.where(np.abs(value) < _TINY, np.copysign(0.0, value), value).astype(np.float32)


def accumulate(old, terms):
    """``old`` plus ``terms[0]``, plus ``terms[1]``, ...: one :func:`fadd` after another, in that order.

    ``old`` is float32 [...], ``terms`` float32 [K, ...] without subnormals.
    """
    partial = np.empty((len(terms) + 1, *np.shape(old)), np.float32)
    partial[0] = normalise(old)
    with np.errstate(all="ignore"):
        for k, term in enumerate(terms):
            np.add(partial[k], term, out=partial[k + 1])
        if not _any_subnormal(partial.view(np.uint32) & _MAGNITUDE):
            return normalise(partial[-1])
        total = partial[0]
        for term in terms:
            total = _add(total, term)
        return total


def matrix_product(x, x_exponent, w, w_exponent, old=None):
    """One MATRIX instruction: ``old`` plus the product of x and w, reduction tile after reduction tile.

    Parameters
    ----------
    x : int8 [K, R, N]
        For each step k of the reduction, N mantissas of each of R rows.
    x_exponent : int [K, R]
        Exponent of the tile that the row is from.
    w : int8 [K, N, N]
        For each step the mantissas w[k, i, column].
    w_exponent : int [K]
    old : float32 [R, N], optional
        What the rows hold; zeros when not given.

    Returns
    -------
    float32 [R, N]
    """
    # A sum of N <= 32 products of int8 is below 2^24, so float32 holds every partial sum exactly.
    p = np.matmul(x.astype(np.float32), w.astype(np.float32))
    scale = np.asarray(x_exponent, np.int32) + np.asarray(w_exponent, np.int32)[:, None]
    old = np.zeros(p.shape[1:], np.float32) if old is None else old
    return accumulate(old, int_to_float(p, scale[..., None]))


def to_uint8(x):
    """``x`` rounded half to even and clipped to 0..255, uint8.

    Raises
    ------
    NonFiniteError
        When an element is infinite or NaN.
    """
    x = normalise(x)
    if not np.isfinite(x).all():
        raise NonFiniteError("cannot convert infinity or NaN to uint8")
    return np.clip(np.rint(x), 0, 255).astype(np.uint8)


def pack_tiles(mantissas, exponent):
    """Tile records as memory holds them, uint8 [..., N * (N + 1)]: a row of N bytes with the exponent (int16,
    little endian, then zeros), then N rows of mantissas."""
    mantissas = np.asarray(mantissas, np.int8)
    *tiles, size, _ = mantissas.shape
    record = np.zeros((*tiles, size + 1, size), np.uint8)
    record[..., 0, :2] = np.asarray(exponent, "<i2")[..., None].view(np.uint8)
    record[..., 1:, :] = mantissas.view(np.uint8)
    return record.reshape(*tiles, -1)


def unpack_tiles(records, size):
    """The mantissas (int8 [..., N, N]) and exponents (int16 [...], 9 bits, sign extended) of tile records."""
    records = np.ascontiguousarray(records, np.uint8)
    record = records.reshape(*records.shape[:-1], size + 1, size)
    low = np.ascontiguousarray(record[..., 0, :2]).view("<i2")[..., 0].astype(np.int16)
    return record[..., 1:, :].view(np.int8).copy(), (low << 7) >> 7
