"""The NumPy model of the numbers against exact rational arithmetic, bit for bit."""

import struct
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from macaw_hw.isa import VectorOp
from macaw_sim import arithmetic

NAN, INF, SIGN, ONE = 0x7FC00000, 0x7F800000, 0x80000000, 0x3F800000
SPECIAL = [magnitude | sign for sign in (0, SIGN) for magnitude in (
    0, 1, 0x007FFFFF, 0x00400000, 0x00800000, 0x00800001, 0x00FFFFFF, 0x01000000, 0x33800000, 0x34000000,
    0x3EFFFFFF, 0x3F000000, 0x3F7FFFFF, ONE, 0x3F800001, 0x3FC00000, 0x40000000, 0x40200000, 0x43FF8000,
    0x44000000, 0x4AFFFFFF, 0x4B000000, 0x4B800001, 0x5F3759DF, 0x7E800000, 0x7EF311C7, 0x7F7FFFFF, INF,
    0x7F800001, NAN, 0x7FFFFFFF)]

bits = st.one_of(st.sampled_from(SPECIAL), st.integers(0, 0xFFFFFFFF),
                 st.builds(lambda sign, exponent, fraction: sign << 31 | exponent << 23 | fraction,
                           st.integers(0, 1), st.integers(120, 135), st.integers(0, 0x7FFFFF)))


class Exact:
    """The operations on bit patterns, with exact fractions in between: written from the definition."""

    @staticmethod
    def read(x):
        """Normalised bits."""
        if x & 0x7FFFFFFF > INF:
            return NAN
        return x & SIGN if x >> 23 & 0xFF == 0 else x

    @staticmethod
    def value(x):
        """Fraction of finite bits."""
        exponent, fraction = x >> 23 & 0xFF, x & 0x7FFFFF
        magnitude = Fraction(fraction | 1 << 23 if exponent else fraction) * Fraction(2) ** (max(exponent, 1) - 150)
        return -magnitude if x & SIGN else magnitude

    @staticmethod
    def round(value, sign=0):
        """Bits of the float32 nearest to a fraction, ties to even, subnormals then flushed; ``sign`` is zero's."""
        if value == 0:
            return sign
        sign, value = (SIGN, -value) if value < 0 else (0, value)
        exponent = -126
        while value >= Fraction(2) ** (exponent + 1):
            exponent += 1
        significand = round(value / Fraction(2) ** (exponent - 23))  # Python rounds fractions half to even
        if significand == 1 << 24:
            exponent, significand = exponent + 1, 1 << 23
        if significand < 1 << 23:
            return sign
        return sign | (INF if exponent > 127 else exponent + 127 << 23 | significand & 0x7FFFFF)

    @classmethod
    def add(cls, a, b):
        a, b = cls.read(a), cls.read(b)
        infinite = [x for x in (a, b) if x & 0x7FFFFFFF == INF]
        if NAN in (a, b) or len(set(infinite)) == 2:
            return NAN
        if infinite:
            return infinite[0]
        return cls.round(cls.value(a) + cls.value(b), SIGN if a == b == SIGN else 0)

    @classmethod
    def mul(cls, a, b):
        a, b = cls.read(a), cls.read(b)
        sign = (a ^ b) & SIGN
        magnitudes = {a & 0x7FFFFFFF, b & 0x7FFFFFFF}
        if NAN in (a, b) or magnitudes == {0, INF}:
            return NAN
        return sign | INF if INF in magnitudes else cls.round(cls.value(a) * cls.value(b), sign)

    @classmethod
    def neg(cls, a):
        a = cls.read(a)
        return a if a == NAN else a ^ SIGN

    @classmethod
    def greater(cls, a, b):
        if NAN in (a, b):
            return False
        order = [(cls.value(x) if x & 0x7FFFFFFF != INF else Fraction(-1 if x & SIGN else 1) * 2 ** 200)
                 for x in (a, b)]
        return order[0] > order[1]

    @classmethod
    def equal(cls, a, b):
        return NAN not in (a, b) and not cls.greater(a, b) and not cls.greater(b, a)

    @classmethod
    def rint(cls, a):
        if a == NAN or a & 0x7FFFFFFF == INF:
            return a
        return cls.round(Fraction(round(cls.value(a))), a & SIGN)

    @classmethod
    def scale2(cls, a, b):
        if NAN in (a, b):
            return NAN
        if a & 0x7FFFFFFF in (0, INF):
            return a
        steps = (-512 if b & SIGN else 512) if b & 0x7FFFFFFF == INF else int(cls.value(b))
        exponent = (a >> 23 & 0xFF) + max(-512, min(512, steps))
        return a & SIGN | (0 if exponent < 1 else INF if exponent > 254 else exponent << 23 | a & 0x7FFFFF)

    @classmethod
    def exponent(cls, a):
        return cls.round(Fraction((a >> 23 & 0xFF) - 127))

    @classmethod
    def reciprocal(cls, a):
        magnitude, sign = a & 0x7FFFFFFF, a & SIGN
        if a == NAN or magnitude in (0, INF):
            return {0: sign | INF, INF: sign}.get(magnitude, NAN)
        seed = 0x7EF311C7 - magnitude
        return sign | (seed if seed >= 0x00800000 else 0)

    @classmethod
    def rsqrt(cls, a):
        if a & 0x7FFFFFFF == 0:
            return INF
        if a == NAN or a & SIGN:
            return NAN
        return 0 if a == INF else 0x5F3759DF - (a >> 1)


def expected(op, a, b, s):
    """Result bits of a vector operation on bits."""
    E = Exact
    a, b, s = E.read(a), E.read(b), E.read(s)

    def pick(condition, x):
        return x if condition else 0

    def extreme(x, y, first):
        return NAN if NAN in (x, y) else x if first else y

    return {
        "MOVE": lambda: a, "FILL": lambda: s,
        "ADD": lambda: E.add(a, b), "SUB": lambda: E.add(a, E.neg(b)), "MUL": lambda: E.mul(a, b),
        "ADD_SCALAR": lambda: E.add(a, s), "MUL_SCALAR": lambda: E.mul(a, s),
        "RSUB_SCALAR": lambda: E.add(s, E.neg(a)),
        "MUL_ADD_SCALAR": lambda: E.add(E.mul(a, b), s),
        "NMUL_ADD_SCALAR": lambda: E.add(s, E.neg(E.mul(a, b))),
        "SCALE_ADD": lambda: E.add(E.mul(a, s), b),
        "MAX": lambda: extreme(a, b, E.greater(a, b)), "MIN": lambda: extreme(a, b, E.greater(b, a)),
        "MAX_SCALAR": lambda: extreme(a, s, E.greater(a, s)), "MIN_SCALAR": lambda: extreme(a, s, E.greater(s, a)),
        "SELECT_GT": lambda: pick(E.greater(a, s), b),
        "SELECT_GE": lambda: pick(E.greater(a, s) or E.equal(a, s), b),
        "COMPARE_GT": lambda: pick(E.greater(a, b), s),
        "COMPARE_GE": lambda: pick(E.greater(a, b) or E.equal(a, b), s),
        "COMPARE_EQ": lambda: pick(E.equal(a, b), s),
        "ROUND": lambda: E.rint(a), "SCALE2": lambda: E.scale2(a, b), "EXPONENT": lambda: E.exponent(a),
        "RECIPROCAL_SEED": lambda: E.reciprocal(a), "RSQRT_SEED": lambda: E.rsqrt(a),
    }[op.name]()


def result(op, a, b, s):
    """Result bits of the model for arrays of bits and one scalar's."""
    return arithmetic.to_bits(arithmetic.vector_op(op, arithmetic.from_bits(a), arithmetic.from_bits(b), np.uint32(s)))


@pytest.mark.parametrize("op", VectorOp, ids=lambda op: op.name)
def test_operation_on_special_values(op):
    second = SPECIAL if op.operands.b else [0]
    scalars = (0, SIGN, ONE, 0x007FFFFF, 0xFF800000, 0x7F800001) if "s" in op.operands.formula else (0,)
    pairs = np.array([(a, b) for a in SPECIAL for b in second], np.uint32)
    for i, s in enumerate(scalars):
        some = pairs[i::5] if len(scalars) > 1 and op.operands.b else pairs
        got = result(op, some[:, 0], some[:, 1], s)
        want = np.array([expected(op, int(a), int(b), s) for a, b in some], np.uint32)
        wrong = np.flatnonzero(got != want)
        assert not wrong.size, [hex(x) for j in wrong[:1] for x in (*some[j], s, got[j], want[j])]


@pytest.mark.parametrize("op", VectorOp, ids=lambda op: op.name)
def test_operation_on_random_values(op, rng):
    for exponents in ((0, 256), (125, 130), (0, 3), (60, 66)):
        a, b, s = (rng.integers(0, 2, 200) << 31 | rng.integers(*exponents, 200) << 23 | rng.integers(0, 1 << 23, 200)
                   for _ in range(3))
        got = result(op, a, b, s[0])
        want = [expected(op, int(x), int(y), int(s[0])) for x, y in zip(a, b, strict=True)]
        assert got.tolist() == want


@settings(max_examples=400, deadline=None)
@given(a=bits, b=bits)
def test_add_sub_mul(a, b):
    x, y = arithmetic.from_bits(a), arithmetic.from_bits(b)
    assert arithmetic.to_bits(arithmetic.fadd(x, y)) == Exact.add(a, b)
    assert arithmetic.to_bits(arithmetic.fsub(x, y)) == Exact.add(a, Exact.neg(b))
    assert arithmetic.to_bits(arithmetic.fmul(x, y)) == Exact.mul(a, b)


def test_product_that_rounds_up_to_the_smallest_normal_number():
    # 2^-126 - 2^-150 is a tie at subnormal precision and goes up to the even neighbour; 2^-126 - 2^-149 is flushed.
    cases = {(0x3F7FFFFF, 0x00800000): 0x00800000, (0x3F7FFFFE, 0x00800000): 0,
             (0xBF7FFFFF, 0x00800000): 0x80800000, (0x3F000000, 0x00FFFFFF): 0x00800000}
    for (a, b), product in cases.items():
        assert arithmetic.to_bits(arithmetic.fmul(arithmetic.from_bits(a), arithmetic.from_bits(b))) == product
        assert Exact.mul(a, b) == product


def test_normalise_leaves_its_argument_alone():
    x = arithmetic.from_bits([1, SIGN | 1, 0x7F800001, ONE])
    y = arithmetic.normalise(x)
    assert arithmetic.to_bits(y).tolist() == [0, SIGN, NAN, ONE]
    assert arithmetic.to_bits(x).tolist() == [1, SIGN | 1, 0x7F800001, ONE]


def quantized(rows, size):
    """Mantissas and exponent of one tile of bits, from the definition."""
    values = [[Exact.value(Exact.read(int(x))) for x in row] for row in rows]
    values += [[Fraction(0)] * size] * (size - len(values))
    largest = max(abs(x) for row in values for x in row)
    if largest == 0:
        return [[0] * size] * size, 0
    e = -126
    while largest >= Fraction(2) ** (e + 1):
        e += 1
    return [[max(-127, min(127, round(x / Fraction(2) ** (e - 6)))) for x in row] for row in values], e - 6


@pytest.mark.parametrize("size", [4, 8, 16])
def test_quantize_tile(size, rng):
    for count in (1, size - 1, size):
        for spread in (1, 12, 250):
            tiles = rng.integers(0, 2, (2, count, size)) << 31 | rng.integers(
                0 if spread == 250 else 120, 120 + spread if spread < 250 else 255, (2, count, size)) << 23
            tiles |= rng.integers(0, 1 << 23, tiles.shape) & rng.choice([0x7FFFFF, 0x7C0000, 0x7F0000], tiles.shape)
            mantissas, exponents = arithmetic.quantize_tile(arithmetic.from_bits(tiles))
            assert mantissas.dtype == np.int8 and mantissas.shape == (2, size, size)
            for i, tile in enumerate(tiles):
                assert (mantissas[i].tolist(), exponents[i]) == quantized(tile, size)


def test_quantize_clips_what_rounds_to_128_and_takes_zeros_and_extremes():
    tile = np.zeros((4, 4), np.float32)
    assert arithmetic.quantize_tile(tile)[1] == 0
    tile[0, 0], tile[1, 1], tile[2, 2] = 1.9999999, -1.9999999, 1e-40
    mantissas, exponent = arithmetic.quantize_tile(tile)
    assert exponent == -6 and mantissas[0, 0] == 127 and mantissas[1, 1] == -127 and mantissas[2, 2] == 0
    for bit_pattern, exponent in ((0x00800000, -132), (0x7F7FFFFF, 121)):
        assert arithmetic.quantize_tile(np.full((4, 4), arithmetic.from_bits(bit_pattern)))[1] == exponent
    for bad in (np.inf, -np.inf, np.nan):
        tile[3, 3] = bad
        with pytest.raises(arithmetic.NonFiniteError, match="cannot quantize infinity or NaN"):
            arithmetic.quantize_tile(tile)


@settings(max_examples=300, deadline=None)
@given(p=st.integers(-(1 << 20), 1 << 20), scale=st.integers(-512, 511))
def test_int_to_float(p, scale):
    value = Fraction(p) * Fraction(2) ** scale
    tiny = abs(value) < Fraction(2) ** -126
    want = (SIGN if p < 0 else 0) if tiny else Exact.round(value)
    assert arithmetic.to_bits(arithmetic.int_to_float([p], [scale]))[0] == want
    # One scale out of the range that float32 covers must not change how the others are computed.
    mixed = arithmetic.to_bits(arithmetic.int_to_float([p, 1], [scale, -512]))
    assert mixed.tolist() == [want, 0]


def test_matrix_product(rng):
    size, rows, steps = 4, 6, 5
    for offset in (0, -70, 55):  # ordinary, underflowing and overflowing sums
        x = rng.integers(-128, 128, (steps, rows, size)).astype(np.int8)
        w = rng.integers(-128, 128, (steps, size, size)).astype(np.int8)
        w[0, :, 0] = 0
        ex = rng.integers(-8, 8, (steps, rows)) + offset
        ew = rng.integers(-8, 8, steps) + offset
        old = arithmetic.from_bits(rng.integers(0, 1 << 32, (rows, size)))
        old[0, :2] = -0.0, 1e-40
        for start in (old, None):
            got = arithmetic.to_bits(arithmetic.matrix_product(x, ex, w, ew, start))
            for r in range(rows):
                for c in range(size):
                    total = int(arithmetic.to_bits(start[r, c])) if start is not None else 0
                    for k in range(steps):
                        p = sum(int(x[k, r, i]) * int(w[k, i, c]) for i in range(size))
                        value = Fraction(p) * Fraction(2) ** int(ex[k, r] + ew[k])
                        tiny = abs(value) < Fraction(2) ** -126
                        total = Exact.add(total, (SIGN if p < 0 else 0) if tiny else Exact.round(value))
                    assert got[r, c] == total


def test_sums_flush_subnormals_at_every_step(rng):
    tiny = 2.0 ** -126
    terms = np.array([[1.5 * tiny], [-tiny], [-tiny], [tiny]], np.float32)
    # 1.5 - 1 is subnormal, hence 0; then -1; then 0.
    assert arithmetic.to_bits(arithmetic.accumulate(np.zeros(1, np.float32), terms)) == [0]
    assert arithmetic.accumulate(np.zeros(1, np.float32), terms[:3]) == [np.float32(-tiny)]


@settings(max_examples=200, deadline=None)
@given(st.lists(bits.filter(lambda x: x & INF != INF), min_size=1, max_size=20))
def test_to_uint8(values):
    want = [max(0, min(255, round(Exact.value(Exact.read(x))))) for x in values]
    assert arithmetic.to_uint8(arithmetic.from_bits(values)).tolist() == want


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_to_uint8_rejects_what_is_not_finite(bad):
    with pytest.raises(arithmetic.NonFiniteError, match="cannot convert infinity or NaN to uint8"):
        arithmetic.to_uint8([1.0, bad])


@pytest.mark.parametrize("size", [4, 16])
def test_tile_records(size, rng):
    mantissas = rng.integers(-128, 128, (3, size, size)).astype(np.int8)
    exponents = np.array([-132, 121, -1], np.int16)
    records = arithmetic.pack_tiles(mantissas, exponents)
    assert records.shape == (3, size * (size + 1))
    for record, tile, exponent in zip(records, mantissas, exponents, strict=True):
        want = struct.pack("<h", exponent) + bytes(size - 2) + struct.pack(f"{size * size}b", *tile.ravel().tolist())
        assert record.tobytes() == want
    back = arithmetic.unpack_tiles(records, size)
    assert (back[0] == mantissas).all() and (back[1] == exponents).all()
    records[0, :2] = 0xFF, 0x7E  # only nine bits count, as a signed number
    assert arithmetic.unpack_tiles(records, size)[1][0] == 0xFF
    records[0, :2] = 0x00, 0x01
    assert arithmetic.unpack_tiles(records, size)[1][0] == -256


def test_dequantize_tile():
    values = arithmetic.dequantize_tile(np.full((2, 4, 4), 3, np.int8), [2, -3])
    assert (values[0] == 12).all() and (values[1] == 0.375).all()
