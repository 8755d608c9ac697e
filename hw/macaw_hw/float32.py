"""Pipelined float32 arithmetic, bit-exact to NumPy with subnormals as zero.

Numbers are IEEE 754 binary32, rounded to nearest, ties to even. A subnormal operand or result is the
zero of its sign, overflow gives infinity, and every NaN is :data:`NAN`.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .delay import delayed, register
from .shifts import BLOCK_WIDTH, leading, product_parts, skip_bits, skip_bytes

__all__ = ["NAN", "INFINITY", "ONE", "NEGATIVE_ZERO", "Float32", "normalised", "is_nan",
           "FloatAdd", "FloatMul", "IntToFloat"]

NAN = 0x7FC00000
INFINITY = 0x7F800000
ONE = 0x3F800000
NEGATIVE_ZERO = 0x80000000
"""Neutral in addition: x + -0 is x for every x, zeros of both signs included."""

Float32 = data.StructLayout({"mantissa": 23, "exponent": 8, "sign": 1})
"""Fields of the bit pattern."""


def normalised(bits):
    """``bits`` with subnormals replaced by the zero of their sign, and NaN by :data:`NAN`."""
    f = Float32(bits)
    return Mux(is_nan(f), NAN, Mux(f.exponent == 0, f.sign << 31, bits))


def is_nan(f, quiet=False):
    """Whether the `Float32` is a NaN; with ``quiet``, one that is not signalling."""
    return f.exponent.all() & (f.mantissa[-1] if quiet else f.mantissa.any())


class FloatAdd(wiring.Component):
    """``o = a + b``, one per cycle, after :attr:`latency` cycles. No handshake: the pipeline never stalls.

    ::

        a, b -> | compare | larger first | align | add | normalise (3) | round | pack | -> o

    Operands need not be normalised. With ``integer``, and `b` 2^23 with the sign of `a`, ``o`` is `a` rounded to
    the nearest integer, ties to even: `b` then only says where the integers end.

    Parameters
    ----------
    multipliers : int
        Multiplier blocks for the shifts: 0, 2 (normalisation) or 4 (alignment, too). They change no result.

    Members
    -------
    a, b : In(32)
        Bits of the operands.
    integer : In(1)
    o : Out(32)
        Bits of the sum.

    Raises
    ------
    ValueError
        For another number of multipliers.
    """

    latency = 9

    def __init__(self, *, multipliers=0):
        if multipliers not in (0, 2, 4):
            raise ValueError(f"multipliers must be one of 0, 2, 4, not {multipliers!r}")
        self._multipliers = multipliers
        super().__init__({"a": In(32), "b": In(32), "integer": In(1), "o": Out(32)})

    @property
    def multipliers(self):
        return self._multipliers

    def elaborate(self, platform):
        m = Module()
        first, second = register(Float32, "first"), register(Float32, "second")
        swap = register(1, "swap")
        m.d.sync += [first.eq(self.a), second.eq(self.b), swap.eq(self.a[:31] < self.b[:31])]

        large, small = Signal(Float32), Signal(Float32)
        difference, apart = Signal(8), Signal(8)
        augend = register(24, "augend")
        addend = register(23, "addend")
        exponent = register(8, "exponent")
        distance = register(5, "distance")
        opposite = register(1, "opposite")
        dropped = register(1, "dropped")
        sign = register(1, "sign")
        integer = delayed(m, self.integer, 3, "integer")
        m.d.comb += [
            large.as_value().eq(Mux(swap, second, first)),
            small.as_value().eq(Mux(swap, first, second)),
            # A negative difference lacks one, so that its complement is the opposite.
            difference.eq((Cat(0, first.exponent) - Cat(swap, second.exponent))[1:]),
            apart.eq(difference ^ swap.replicate(8)),
        ]
        m.d.sync += [
            augend.eq(Cat(large.mantissa, ~(integer[1] & swap))),
            addend.eq(small.mantissa),
            exponent.eq(large.exponent),
            distance.eq(Mux(apart[5:].any(), 31, apart[:5])),
            opposite.eq(large.sign ^ small.sign),
            dropped.eq((first.exponent == 0) | (second.exponent == 0) | integer[1] & ~swap),
            sign.eq(Mux(large.exponent == 0, large.sign & small.sign, large.sign)),
        ]

        aligned, lost = self._aligned(m, addend, distance, dropped)
        subtract = register(1, "subtract")
        infinite, nan = register(1, "infinite"), register(1, "nan")
        m.d.sync += [
            subtract.eq(opposite & ~dropped),
            infinite.eq(exponent.all()),
            # A NaN is larger than anything else.
            nan.eq(exponent.all() & (augend[:23].any() | (distance == 0) & opposite)),
        ]

        kept = Signal(26)  # two bits of fraction; of what is below counts only whether there is any
        borrow, up = Signal(), Signal()
        upper = delayed(m, augend, 1, "augend")[-1]
        total = register(28, "total")
        m.d.comb += [
            kept.eq(Cat(Mux(integer[3], 0, aligned[:2]), aligned[2:])),
            up.eq(integer[3] & aligned[1] & (lost | aligned[0] | aligned[2])),
            borrow.eq(subtract & ~lost),
        ]
        # Subtraction adds the complement; the carry comes from one more bit below.
        addition = Cat(kept, 0) ^ subtract.replicate(27)
        m.d.sync += total.eq(Cat(lost & ~integer[3], (
            Cat(borrow, Const(0, 2), upper[0] | up, upper[1:]) + Cat(borrow, addition))[1:]))

        partial = register(28, "partial")
        bytes_skipped, skipped = register(2, "bytes_skipped"), register(5, "skipped")
        shifted, skip = skip_bytes(m, total)
        m.d.sync += [partial.eq(shifted), bytes_skipped.eq(skip)]
        value, rest, skip = _skip_bits(m, partial, self.multipliers > 0)
        m.d.sync += skipped.eq(Cat(skip, delayed(m, bytes_skipped, 1, "bytes_skipped")[-1]))

        top = (value | rest)[27]
        subtract = delayed(m, subtract, 4, "subtract")[-1]
        _packed(m, self.o, value=value[3:27], rest=rest[3:27], sticky=value[:3].any(),
                exponent=delayed(m, exponent, 5, "exponent")[-1], adjustment=_one_minus(skipped), width=10,
                sign=delayed(m, sign, 5, "sign")[-1] & (top | ~subtract), zero=~top,
                infinite=delayed(m, infinite, 4, "infinite")[-1], nan=delayed(m, nan, 4, "nan")[-1])
        return m

    def _aligned(self, m, addend, distance, dropped):
        """The significand over two bits of fraction, ``distance`` lower, and whether any bit is below; a cycle later.

        Both are zero if ``dropped``.
        """
        value = Cat(Const(0, 2), addend, 1)
        coarse = Signal(26)
        lower = register(1, "lower")
        m.d.comb += coarse.eq(Mux(distance[4], Mux(distance[3], value >> 24, value >> 16),
                                  Mux(distance[3], value >> 8, value)))
        lost = (distance[3:].any() & value[:8].any() | distance[4] & value[8:16].any()
                | distance[3:].all() & value[16:24].any())
        if self.multipliers == 4:
            m.d.sync += lower.eq(~dropped & lost)
            power = Cat(distance[:3] == 7 - i for i in range(8))
            joined = 0
            for offset, product in product_parts(coarse, power):
                part = register(product.shape(), f"aligned{offset}")
                m.d.sync += part.eq(Mux(dropped, 0, product))
                joined |= part << offset
            return joined[7:33], lower | joined[:7].any()

        shifted = Signal(26)
        middle, last = register(26, "middle"), register(1, "last")
        m.d.comb += shifted.eq(Mux(distance[2], Mux(distance[1], coarse >> 6, coarse >> 4),
                                   Mux(distance[1], coarse >> 2, coarse)))
        lost |= (distance[1:3].any() & coarse[:2].any() | distance[2] & coarse[2:4].any()
                 | distance[1:3].all() & coarse[4:6].any())
        m.d.sync += [middle.eq(Mux(dropped, 0, shifted)), lower.eq(~dropped & lost), last.eq(distance[0])]
        return Mux(last, middle >> 1, middle), lower | last & middle[0]


class FloatMul(wiring.Component):
    """``o = a * b``, one per cycle, after :attr:`latency` cycles. No handshake: the pipeline never stalls.

    ::

        a, b -> | four 12 x 12 products | add | normalise, round | pack | -> o

    Operands need not be normalised. With ``scale``, `b` is no float but a power of two: ``o`` is `a` times two to the
    power of the exponent field of `b`, or of its negative if `b` has its sign set; the mantissa of `b` must be zero.
    Then what is below 2^-126 is a zero.

    Parameters
    ----------
    quiet : bool
        No operand is a signalling NaN, with the highest bit of its mantissa zero: saves logic.

    Members
    -------
    a, b : In(32)
        Bits of the operands.
    scale : In(1)
    o : Out(32)
        Bits of the product.
    """

    latency = 4

    def __init__(self, *, quiet=False):
        self._quiet = quiet
        super().__init__({"a": In(32), "b": In(32), "scale": In(1), "o": Out(32)})

    @property
    def quiet(self):
        return self._quiet

    def elaborate(self, platform):
        m = Module()
        a, b = Float32(self.a), Float32(self.b)
        factors = [(Cat(f.mantissa, 1)[:12], Cat(f.mantissa, 1)[12:]) for f in (a, b)]
        partial = [[register(24, f"partial{i}{j}") for j in range(2)] for i in range(2)]
        exponent = register(signed(10), "exponent")
        down = self.scale & b.sign
        zero = (a.exponent == 0) | ~self.scale & (b.exponent == 0)
        special = a.exponent.all() | ~self.scale & b.exponent.all()
        m.d.sync += [
            *(partial[i][j].eq(factors[0][i] * factors[1][j]) for i in range(2) for j in range(2)),
            exponent.eq((Cat(down, a.exponent) + Cat(down, b.exponent ^ down.replicate(8), down.replicate(2)))[1:11]),
        ]

        # Yosys would merge the two additions into one of three numbers, which takes more logic.
        middle = Signal(25, attrs={"keep": True})
        product = register(36, "product")
        lost = register(1, "lost")
        m.d.comb += middle.eq(partial[0][1] + partial[1][0])
        m.d.sync += [
            product.eq(Cat(partial[0][0][12:], partial[1][1]) + middle),
            lost.eq(partial[0][0][:12].any()),
        ]

        scale = delayed(m, self.scale, 3, "scale")
        nan = special & (zero | is_nan(a, self.quiet) | ~self.scale & is_nan(b, self.quiet))
        zero = delayed(m, zero, 2, "zero")[-1]
        flags = {"infinite": special, "nan": nan}
        flags = {name: delayed(m, value, 2, name)[-1] for name, value in flags.items()}
        top = product[35]
        value = Signal(25)
        m.d.comb += value.eq(Mux(top, product[11:], product[10:35]))
        # In `exponent`, less the bias, and one more if the product is 2 or more.
        adjustment = Cat(~(top | scale[2]), top, Const(0, 5), (~scale[2]).replicate(3))
        _packed(m, self.o, value=value[:24], sticky=lost | product[:10].any() | top & product[10],
                exponent=delayed(m, exponent, 1, "exponent")[-1], adjustment=adjustment, width=10,
                sign=delayed(m, a.sign ^ b.sign & ~self.scale, 2, "sign")[-1], zero=zero, tiny=~scale[2], **flags)
        return m


class IntToFloat(wiring.Component):
    """``o = p * 2^scale``, one per cycle, after :attr:`latency` cycles. No handshake.

    ::

        p, scale -> | complement, normalise (3) | add sign | pack | -> o

    The conversion is exact; a result too large is an infinity, one too small the zero of its sign, and
    zero is +0. A negative ``p`` is complemented; the one that is missing then is added after the shift.

    Parameters
    ----------
    width : int
        Width of ``p`` in bits, from 2 to 24.
    multipliers : int
        If not 0, multiplier blocks do the second shift: one for a width of 19 at most, else two.

    Members
    -------
    p : In(signed(width))
        The integer.
    scale : In(signed(10))
        Power of two.
    o : Out(32)
        Bits of the float32.

    Raises
    ------
    ValueError
        For a width outside its range.
    """

    latency = 5

    def __init__(self, *, width, multipliers=0):
        if width not in range(2, 25):
            raise ValueError(f"width must be from 2 to 24, not {width!r}")
        self._multipliers = multipliers
        self._width = width
        super().__init__({"p": In(signed(width)), "scale": In(signed(10)), "o": Out(32)})

    @property
    def width(self):
        return self._width

    @property
    def multipliers(self):
        return self._multipliers

    def elaborate(self, platform):
        m = Module()
        size = BLOCK_WIDTH if self.width <= BLOCK_WIDTH + 1 else 24
        sign = self.p[-1]
        number = Signal(size)
        m.d.comb += number.eq(Cat(sign.replicate(size + 1 - self.width), self.p[:-1] ^ sign.replicate(self.width - 1)))
        signs = delayed(m, sign, 3, "sign")
        partial = register(size, "partial")
        bytes_skipped, skipped = register(2, "bytes_skipped"), register(5, "skipped")
        base = register(signed(11), "base")
        shifted, skip = skip_bytes(m, number, sign)
        m.d.sync += [partial.eq(shifted), bytes_skipped.eq(skip), base.eq(self.scale + (127 + self.width - 2 - 31))]
        value, rest, skip = _skip_bits(m, partial, self.multipliers > 0, signs[1])
        m.d.sync += skipped.eq(Cat(skip, delayed(m, bytes_skipped, 1, "bytes_skipped")[-1]))
        below = Const(0, 25 - size)
        _packed(m, self.o, value=Cat(below, value[:-1]), rest=Cat(below, rest[:size - 1]), sticky=0,
                exponent=delayed(m, base, 2, "base")[-1], adjustment=~skipped, width=11,
                sign=signs[3], zero=~(value | rest)[size - 1])
        return m


def _one_minus(skipped):
    """``1 - skipped``, signed 10 bits, of 5 bits: without a carry chain, which costs more."""
    left = ~skipped  # 31 - skipped, so add 2 and take away 32
    return Cat(left[0], ~left[1], left[2] ^ left[1], left[3] ^ left[1:3].all(), left[4] ^ left[1:4].all(),
               (~left[1:].all()).replicate(5))


def _skip_bits(m, value, multiply, complement=0):
    """The second shift of a normalisation, in two cycles: two numbers whose sum is the result, and how many bits, a
    cycle before.

    With ``complement``, ``value`` is that of a negative number, with ones below; the sum has the one that it lacks.
    """
    later = register(1, "complement_later")
    m.d.sync += later.eq(complement)
    if not multiply:
        shifted, skip = skip_bits(m, value, complement)
        result, rest = register(len(value), "value"), register(1, "rest")
        m.d.sync += [result.eq(shifted), rest.eq(later)]
        return result, rest, skip
    power = register(8, "power")
    m.d.sync += power.eq(leading(value))
    lacking = register(8, "lacking")
    m.d.sync += lacking.eq(Mux(later, power, 0))
    numbers, first, rest = [Const(0), lacking], Signal.like(value, name="value"), Signal.like(value, name="rest")
    for i, (offset, product) in enumerate(product_parts(delayed(m, value, 1, "counted")[-1], power)):
        part = register(min(len(product), len(value) - offset), f"value{offset}")
        m.d.sync += part.eq(product)
        numbers[i] |= part << offset
    m.d.comb += [first.eq(numbers[0]), rest.eq(numbers[1])]
    return first, rest, Cat(power[1::2].any(), Cat(power[2:4], power[6:8]).any(), power[4:].any())


def _packed(m, o, *, value, sticky, exponent, adjustment, width, sign, zero, rest=0, infinite=0, nan=0, tiny=0):
    """Drives ``o``, two cycles later, with the float32 of ``sign``, ``exponent`` + ``adjustment`` and ``value``.

    ``value`` is the mantissa over one more bit, ``sticky`` what is below. One addition rounds, completes the exponent,
    signed ``width`` bits, and adds ``rest`` to ``value``; if it can round up, the lowest two bits of ``rest`` are zero.
    ``tiny`` lets an exponent of zero with a mantissa of ones that was not rounded up be 2^-126: NumPy rounds a
    subnormal at a fixed position before it is flushed.
    """
    exponent, adjustment = Value.cast(exponent), Value.cast(adjustment)
    mantissa, up = value[1:], value[0] & (sticky | value[1])
    base, change = Signal(signed(width), name="base_exponent"), Signal(signed(width), name="change")
    added = Signal(23, name="added")
    rounded = register(23 + width, "rounded")
    after = {name: register(1, f"{name}_rounded") for name in ("sign", "zero", "infinite", "nan", "tiny")}
    m.d.comb += [base.eq(exponent), change.eq(adjustment), added.eq(Value.cast(rest)[1:] | up)]
    m.d.sync += [
        rounded.eq(Cat(mantissa, base) + Cat(added, change)),
        *(after[name].eq(value) for name, value in
          {"sign": sign, "zero": zero, "infinite": infinite, "nan": nan, "tiny": ~up & tiny}.items()),
    ]

    packed = register(32, "packed")
    result = Signal(signed(width), name="result_exponent")
    none, over, least = Signal(name="none"), Signal(name="over"), Signal(name="least")
    m.d.comb += [
        o.eq(packed),
        result.eq(rounded[23:]),
        none.eq(after["zero"] | result[-1] | ~result.any()),
        over.eq(after["infinite"] | ~after["zero"] & ~result[-1] & (result[8:].any() | result[:8].all())),
        least.eq(after["tiny"] & ~after["zero"] & ~result.any() & rounded[:23].all()),
    ]
    special = after["nan"] | over
    m.d.sync += [
        packed[:22].eq(Mux(special | none, 0, rounded[:22])),
        packed[22].eq(after["nan"] | rounded[22] & ~over & ~none),
        packed[23:31].eq(Mux(special, 0xFF, Mux(none, least, result[:8]))),
        packed[31].eq(after["sign"] & ~after["nan"]),
    ]
