"""float32 bit patterns that matter: classes to cross, and pairs that belong together.

All arrays are uint32 bit patterns. A *kind* is a pair of functions: ``first(rng, n)`` draws ``n``
numbers, and ``second(rng, x)`` one number for each of ``x``, so that something happens.
"""

import numpy as np

__all__ = ["HOLD", "SUM_KINDS", "PRODUCT_KINDS", "COMPARE_KINDS", "INTEGER_KINDS", "SCALE_KINDS",
           "END_KINDS", "classes", "any_bits", "inverse", "near_sum", "halves", "tile_rows"]

HOLD = 64
"""Vectors for which one number of a pair can stay the same. It divides the number of classes."""

_ONE = np.uint32(1)
_SIGN = np.uint32(1 << 31)
_MANTISSA = np.uint32(0x7FFFFF)
_EDGES = (0, 1, 2, 3, 23, 24, 25, 63, 64, 125, 126, 127, 128, 149, 150, 151, 252, 253, 254, 255)
"""Exponent fields that come with all mantissas below; the others with half of them."""
_EXPONENTS = (103, 104, 120, 129, 134, 135, 152, 190, 191, 228, 229)
_MANTISSAS = (0, 1, 2, 3, 5, 0x155555, 0x2AAAAA, 0x555555, 0x3504F3, 0x3504F4, 0x3FFFFE, 0x3FFFFF,
              0x400000, 0x400001, 0x400002, 0x600000, 0x7FF000, 0x7FF800, 0x7FFFFC, 0x7FFFFD,
              0x7FFFFE, 0x7FFFFF)


def classes():
    """Some 2,800 numbers, the same each time, of both signs.

    Zeros, subnormals, the smallest and largest normal numbers, infinities, quiet and signalling
    NaNs; halves and the numbers beside them, one-bit mantissas and runs of ones, at every edge of
    a range.
    """
    ones = [1 << bit for bit in range(23)]
    many = sorted({*_MANTISSAS, *ones, *(0x800000 - one for one in ones)})
    numbers = [sign << 31 | exponent << 23 | mantissa
               for exponents, mantissas in ((_EDGES, many), (_EXPONENTS, _MANTISSAS))
               for exponent in exponents for mantissa in mantissas for sign in (0, 1)]
    filler = np.random.default_rng(0).integers(0, 1 << 32, -len(numbers) % HOLD, dtype=np.uint32)
    return np.concatenate([np.array(numbers, np.uint32), filler])


def any_bits(rng, n):
    """Uniform bit patterns."""
    return rng.integers(0, 1 << 32, n, dtype=np.uint32)


def _any_bits_too(rng, x):
    return any_bits(rng, len(x))


def _exponent(x):
    return (x >> 23 & 0xFF).astype(np.int32)


def _with_exponent(x, exponent):
    return x & (_SIGN | _MANTISSA) | np.clip(exponent, 0, 255).astype(np.uint32) << 23


def _spread(rng, x, width):
    return rng.integers(-width, width + 1, len(x), dtype=np.int32)


def _from_exponents(low, high):
    """A function that draws numbers with exponent fields from ``low`` to ``high``.

    Some mantissas end with runs of ones or zeros.
    """
    def draw(rng, n):
        x = any_bits(rng, n)
        runs = (_ONE << rng.integers(0, 24, n, dtype=np.uint32)) - _ONE
        kind = x >> 24 & 3  # bits of the exponent, which is replaced
        x = np.where(kind == 0, x | runs, np.where(kind == 1, x & ~runs, x))
        return _with_exponent(x, rng.integers(low, high + 1, n, dtype=np.int32))
    return draw


def _same(draw):
    return draw, lambda rng, x: draw(rng, len(x))


_finite = _from_exponents(1, 254)


def _near(rng, x):
    return _with_exponent(any_bits(rng, len(x)), _exponent(x) + _spread(rng, x, 28))


def _cancel(rng, x):
    """Minus ``x`` but for the lowest bits, or but for one in the exponent."""
    unit = rng.choice((1, 1, 1 << 22, 1 << 23), len(x))
    return (x ^ _SIGN) + (_spread(rng, x, 4) * unit).astype(np.uint32)


def _sum_tie(rng, x):
    """Below the last place of ``x``: half a place, that and a little, ones, a one, or nothing."""
    distance = rng.integers(0, 31, len(x), dtype=np.int32)
    place = _ONE << np.minimum(distance, 23).astype(np.uint32)
    half = place >> _ONE
    low = np.choose(rng.integers(0, 6, len(x)),
                    [half, half + 1, half - 1, place - _ONE, _ONE, np.uint32(0)])
    high = any_bits(rng, len(x)) & ~(place - _ONE)
    return _with_exponent(high | low.astype(np.uint32) & _MANTISSA, _exponent(x) - distance)


def near_sum(rng, x):
    """For each of ``x`` a number that makes a difficult sum with it."""
    return np.where(rng.integers(0, 2, len(x)), _sum_tie(rng, x), np.where(
        rng.integers(0, 2, len(x)), _near(rng, x), _cancel(rng, x)))


def _ending(x, last):
    """``x`` with a significand of which the lowest bit set is ``last``."""
    return np.where(last >= 1 << 23, x & ~_MANTISSA, x & ~(last - _ONE) | last)


def _short(rng, n):
    """Significands of 1 to 24 bits."""
    return _ending(_from_exponents(40, 214)(rng, n),
                   _ONE << rng.integers(0, 24, n, dtype=np.uint32))


def _product_tie(rng, x):
    """So many bits that the exact product with ``x`` ends half a place below, or beside that."""
    significand = x & _MANTISSA | np.uint32(1 << 23)
    lowest = (significand & (~significand + _ONE)).astype(np.float32)
    bits = 25 - np.frexp(lowest)[1]  # from the first to the last that is set
    wanted = np.clip(25 + rng.integers(0, 2, len(x)) - bits, 1, 24)
    y = _ending(any_bits(rng, len(x)), _ONE << (24 - wanted).astype(np.uint32))
    y += (rng.integers(0, 8, len(x)) == 0).astype(np.uint32)
    return _with_exponent(y, 254 - _exponent(x) + _spread(rng, x, 30))


def inverse(rng, x, product=None, ulps=3):
    """Numbers that, times ``x``, come within some places of ``product`` (bits), of either sign.

    The product is by default a power of two, at an end of the range or near one.
    """
    with np.errstate(all="ignore"):
        if product is None:
            powers = np.array((-150, -149, -127, -126, -125, -1, 0, 1, 127, 128))
            wanted = np.ldexp(1.0, powers[rng.integers(0, len(powers), len(x))])
        else:
            wanted = product.view(np.float32).astype(np.float64)
        y = (wanted / x.view(np.float32).astype(np.float64)).astype(np.float32).view(np.uint32)
    return y + _spread(rng, x, ulps).astype(np.uint32) ^ (any_bits(rng, len(x)) & _SIGN)


def _edge_product(rng, x):
    """The exponents add up to one at the lower or the upper end of the range."""
    low, high = 127 + _spread(rng, x, 26), 381 + _spread(rng, x, 4)
    total = np.where(rng.integers(0, 2, len(x)), low, high)
    return _with_exponent(_finite(rng, len(x)), total - _exponent(x))


def _beside(rng, x):
    """``x``, a neighbour, or minus one of these."""
    return x + _spread(rng, x, 1).astype(np.uint32) ^ (any_bits(rng, len(x)) & _SIGN)


def halves(rng, n):
    """Quarters of integers of all magnitudes below 2^22, and the floats beside them."""
    x = rng.integers(-1 << 24, 1 << 24, n) >> 3 * rng.integers(0, 8, n)
    x = (x / np.float32(4)).astype(np.float32)
    return x.view(np.uint32) + rng.integers(-1, 2, n).astype(np.uint32)


def _power(rng, x):
    """Numbers to scale ``x`` by: to an end of the range, or -600 to 600; some with a fraction."""
    ends = rng.choice((0, 1, 254, 255), len(x)) - _exponent(x) + _spread(rng, x, 2)
    power = np.where(rng.integers(0, 2, len(x)), ends, _spread(rng, x, 600))
    fraction = rng.choice((0.0, 0.0, 0.25, 0.5, 0.999), len(x))
    return np.copysign(np.abs(power) + fraction, power).astype(np.float32).view(np.uint32)


_UNIFORM = (any_bits, _any_bits_too)
END_KINDS = (_UNIFORM, _same(_from_exponents(1, 28)), _same(_from_exponents(250, 254)))
SUM_KINDS = (*END_KINDS, (_finite, _near), (_finite, _cancel), (_finite, _sum_tie),
             (_finite, near_sum))
PRODUCT_KINDS = (_UNIFORM, (_short, _product_tie), (_finite, inverse), (_finite, _edge_product))
COMPARE_KINDS = (_UNIFORM, (_finite, _beside), (any_bits, _beside), (_finite, _near))
INTEGER_KINDS = (_UNIFORM, (halves, _any_bits_too), _same(_from_exponents(118, 153)))
SCALE_KINDS = (_UNIFORM, (any_bits, _power), (_finite, _power),
               (_finite, _same(_from_exponents(120, 140))[1]))


def tile_rows(rng, tiles, size):
    """Normalised float32 [tiles, size, size] to quantize.

    Exponents go from the largest of the tile down to beyond what counts; mantissas are halves at
    the place where they will be rounded, or beside that.
    """
    n = tiles * size * size
    top = rng.choice((1, 2, 3, 7, 8, 9, 60, 126, 127, 128, 133, 134, 200, 253, 254), tiles)
    top = np.where(rng.integers(0, 2, tiles), rng.integers(1, 255, tiles), top)
    distance = np.minimum(rng.integers(0, 10, n), rng.integers(0, 40, n))
    place = _ONE << np.minimum(17 + distance, 23).astype(np.uint32)  # last of what remains
    half = place >> _ONE
    pattern = rng.integers(0, 8, n)
    low = np.choose(np.minimum(pattern, 6), [
        half, half + 1, half - 1, place - _ONE, np.uint32(0), _ONE, half | half >> 1])
    bits = any_bits(rng, n)
    bits = np.where(rng.integers(0, 8, n) == 0, bits | _MANTISSA, bits)
    low = low.astype(np.uint32) & _MANTISSA
    bits = np.where(pattern == 7, bits, bits & ~(place - _ONE) | low)
    exponent = np.repeat(top, size * size) - distance
    there = (exponent > 0) & (rng.integers(0, 16, n) != 0)
    bits = np.where(there, _with_exponent(bits, exponent), bits & _SIGN)
    bits = bits.reshape(tiles, size, size)
    bits[rng.integers(0, 50, tiles) == 0] &= _SIGN  # tiles of zeros
    return bits
