"""Pipelined float32 arithmetic, bit-exact to NumPy with subnormals as zero.

Numbers are IEEE 754 binary32, rounded to nearest, ties to even. A subnormal operand or result is the
zero of its sign, overflow gives infinity, and every NaN is :data:`NAN`.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["NAN", "INFINITY", "ONE", "NEGATIVE_ZERO", "Float32", "normalised", "negated", "ordered",
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
    return Mux(_is_nan(f), NAN, Mux(f.exponent == 0, f.sign << 31, bits))


def negated(bits):
    """Minus ``bits``. The sign of a NaN flips too; arithmetic does not care."""
    return Cat(bits[:31], ~bits[31])


def ordered(bits):
    """An unsigned 32-bit number that orders as normalised ``bits`` do; both zeros are equal.

    NaN has no place in the order and must be excluded by the caller.
    """
    return Mux(bits[31] & bits[23:31].any(), ~bits, bits | 1 << 31)


def _shift_out_zeros(m, value, steps):
    """Shifts ``value`` left by each of ``steps`` whose bits at the top are all zero.

    Returns the shifted value and the sum of the steps taken. ``steps`` are falling powers of two.
    """
    width, taken = len(value), []
    for step in steps:
        skip = Signal(name=f"skip{step}")
        shifted = Signal(width, name=f"shifted{step}")
        m.d.comb += [skip.eq(~value[width - step:].any()),
                     shifted.eq(Mux(skip, Cat(Const(0, step), value[:-step]), value))]
        value = shifted
        taken.insert(0, skip)
    return value, Cat(*taken) << (steps[-1].bit_length() - 1)


class FloatAdd(wiring.Component):
    """``o = a + b``, one per cycle, after :attr:`latency` cycles. No handshake: the pipeline never stalls.

    ::

        a, b -> | larger first | align | add, normalise | normalise, round | -> o

    Operands need not be normalised. Both normalisation steps are one leading-zero count in log steps,
    cut in two by a register.

    Members
    -------
    a, b : In(32)
        Bits of the operands.
    o : Out(32)
        Bits of the sum.
    """

    latency = 4

    a: In(32)
    b: In(32)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()

        large = Signal(Float32)
        small = Signal(Float32)
        difference = Signal(8)
        swap = Signal()
        m.d.comb += [
            swap.eq(self.a[:31] < self.b[:31]),
            large.as_value().eq(Mux(swap, self.b, self.a)),
            small.as_value().eq(Mux(swap, self.a, self.b)),
            difference.eq(large.exponent - small.exponent),
        ]
        subtract = _register(3, "subtract")
        sign = _register(3, "sign")
        infinite = _register(3, "infinite")
        nan = _register(3, "nan")
        exponent = [_register(8, f"exponent{i}") for i in range(2)]
        augend = [_register(24, f"augend{i}") for i in range(2)]
        addend = _register(24, "addend")
        distance = _register(5, "distance")
        m.d.sync += [
            augend[0].eq(_significand(large)),
            addend.eq(_significand(small)),
            distance.eq(Mux(difference[5:].any(), 31, difference[:5])),
            exponent[0].eq(large.exponent),
            subtract.eq(Cat(large.sign ^ small.sign, subtract)),
            infinite.eq(Cat(large.exponent == 0xFF, infinite)),
            nan.eq(Cat((large.exponent == 0xFF) & (large.mantissa.any()  # a NaN is larger than anything else
                        | (small.exponent == 0xFF) & (large.sign ^ small.sign)), nan)),
        ]

        value, lost = addend << 3, 0
        for i in reversed(range(5)):
            lost = lost | distance[i] & value[:1 << i].any()
            shifted = Signal(27, name=f"right{1 << i}")
            m.d.comb += shifted.eq(Mux(distance[i], value >> (1 << i), value))
            value = shifted
        kept = Signal(28)
        aligned = _register(28, "aligned")
        m.d.comb += kept.eq(value | lost)
        m.d.sync += [
            # Subtraction adds the complement; the carry comes from one more bit below, in `total`.
            aligned.eq(Mux(subtract[0], ~kept, kept)),
            augend[1].eq(augend[0]),
            exponent[1].eq(exponent[0]),
        ]

        total = Signal(29)
        m.d.comb += total.eq(Cat(subtract[1], augend[1] << 3) + Cat(subtract[1], aligned))
        coarse, skipped = _shift_out_zeros(m, total[1:], (16, 8))
        partial = _register(28, "partial")
        reached = _register(signed(10), "reached")
        m.d.sync += [
            partial.eq(coarse),
            reached.eq(exponent[1] + 1 - skipped),
            sign.eq(Cat(large.sign, sign[0], sign[1] & ~(subtract[1] & ~total[1:].any()))),
        ]

        fine, skipped = _shift_out_zeros(m, partial, (4, 2, 1))
        _packed(m, self.o, sign[2], reached - skipped, fine, nan=nan[2], infinite=infinite[2])
        return m


class FloatMul(wiring.Component):
    """``o = a * b``, one per cycle, after :attr:`latency` cycles. No handshake: the pipeline never stalls.

    ::

        a, b -> | two 24 x 12 products | add, normalise | round | -> o

    Operands need not be normalised.

    Members
    -------
    a, b : In(32)
        Bits of the operands.
    o : Out(32)
        Bits of the product.
    """

    latency = 3

    a: In(32)
    b: In(32)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        a, b = Float32(self.a), Float32(self.b)

        low = _register(36, "low")
        high = _register(36, "high")
        exponent = _register(9, "exponent")
        sign = _register(2, "sign")
        infinite = _register(2, "infinite")
        nan = _register(2, "nan")
        zero = (a.exponent == 0) | (b.exponent == 0)
        special = (a.exponent == 0xFF) | (b.exponent == 0xFF)
        m.d.sync += [
            low.eq(_significand(a) * _significand(b)[:12]),
            high.eq(_significand(a) * _significand(b)[12:]),
            exponent.eq(a.exponent + b.exponent),
            sign.eq(Cat(a.sign ^ b.sign, sign)),
            infinite.eq(Cat(special, infinite)),
            nan.eq(Cat(special & (zero | _is_nan(a) | _is_nan(b)), nan)),
        ]

        product = Signal(48)
        m.d.comb += product.eq(low + (high << 12))
        top = Signal(26)
        m.d.comb += top.eq(Mux(product[47], product[22:], product[21:47]))
        value = _register(28, "value")
        reached = _register(signed(11), "reached")
        m.d.sync += [
            value.eq(Cat(0, product[:21].any() | product[47] & product[21], top)),
            reached.eq(exponent + product[47] - 127),
        ]

        # NumPy rounds a subnormal at a fixed position before it is flushed: all ones become 2^-126.
        ones = Signal()
        m.d.comb += ones.eq((reached == 0) & value[4:].all())
        _packed(m, self.o, sign[1], reached, value, nan=nan[1], infinite=infinite[1], tiny=ones)
        return m


class IntToFloat(wiring.Component):
    """``o = p * 2^scale``, one per cycle, after :attr:`latency` cycles. No handshake.

    The conversion is exact; a result too large is an infinity, one too small the zero of its sign, and
    zero is +0.

    Parameters
    ----------
    width : int
        Width of ``p`` in bits, from 2 to 24.

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

    latency = 2

    def __init__(self, *, width):
        if width not in range(2, 25):
            raise ValueError(f"width must be from 2 to 24, not {width!r}")
        self._width = width
        super().__init__({"p": In(signed(width)), "scale": In(signed(10)), "o": Out(32)})

    @property
    def width(self):
        return self._width

    def elaborate(self, platform):
        m = Module()
        magnitude = Signal(24)
        m.d.comb += magnitude.eq(Mux(self.p < 0, -self.p, self.p)[:self.width])
        coarse, skipped = _shift_out_zeros(m, magnitude, (16, 8))
        partial = _register(24, "partial")
        reached = _register(signed(12), "reached")
        sign = _register(1, "sign")
        m.d.sync += [
            partial.eq(coarse),
            reached.eq(self.scale + (127 + 23) - skipped),
            sign.eq(self.p < 0),
        ]
        fine, skipped = _shift_out_zeros(m, partial, (4, 2, 1))
        _packed(m, self.o, sign, reached - skipped, fine << 4)
        return m


def _significand(f):
    """24 bits: the mantissa with its hidden bit; 0 for zeros and subnormals."""
    hidden = f.exponent.any()
    return Mux(hidden, Cat(f.mantissa, 1), 0)


def _is_nan(f):
    return (f.exponent == 0xFF) & f.mantissa.any()


def _register(shape, name):
    """A register of a pipeline that has no handshake: what it holds after a reset does not matter."""
    return Signal(shape, name=name, reset_less=True)


def _packed(m, o, sign, exponent, value, *, nan=0, infinite=0, tiny=0):
    """Drives ``o``, one cycle later, with the float32 ``value / 2^27 * 2^(exponent - 127)``.

    ``value`` has 28 bits. Its top bit is set unless it is zero; its lowest 4 bits are rounded off.
    ``tiny`` makes an exponent below 1 give 2^-126 instead of zero.
    """
    reached = Signal(signed(12), name="result_exponent")
    rounded = Signal(31)
    magnitude = Signal(31)
    packed = _register(32, "packed")
    m.d.sync += packed.eq(Cat(magnitude, sign & ~nan))
    m.d.comb += [
        o.eq(packed),
        reached.eq(exponent),
        rounded.eq(Cat(value[4:27], reached[:8]) + (value[3] & (value[:3].any() | value[4]))),
    ]
    with m.If(nan):
        m.d.comb += magnitude.eq(NAN)
    with m.Elif(infinite | (value[27] & (reached > 254))):
        m.d.comb += magnitude.eq(INFINITY)
    with m.Elif(~value[27] | (reached < 1)):
        m.d.comb += magnitude.eq(tiny << 23)
    with m.Else():
        m.d.comb += magnitude.eq(rounded)
