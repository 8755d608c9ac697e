"""One float32 lane of the activation unit, and what an operation makes all lanes do."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out

from .float32 import NAN, NEGATIVE_ZERO, ONE, Float32, FloatAdd, FloatMul, negated, normalised, ordered
from .isa import VectorOp

__all__ = ["Source", "Hit", "LaneControl", "LaneDecoder", "Lane"]


class Source(enum.Enum, shape=3):
    """What a lane multiplies."""
    A = 0
    NEGATIVE_A = 1
    CHOICE = 2
    ROUND = 3
    SCALE2 = 4
    EXPONENT = 5
    RECIPROCAL = 6
    RSQRT = 7


class Hit(enum.Enum, shape=2):
    """What a lane chooses when its comparison holds."""
    A = 0
    B = 1
    SCALAR = 2


LaneControl = data.StructLayout({
    "source": Source, "factor_b": 1, "factor": 32, "term_b": 1, "negate_b": 1, "term": 32,
    "scalar": 32, "against_scalar": 1, "greater": 1, "equal": 1, "less": 1,
    "hit": Hit, "miss_zero": 1, "nan": 1,
})
"""The same for all lanes and all rows of an instruction.

A lane computes ``source * factor + term``, in which ``factor`` is `b` if ``factor_b``, and ``term`` is `b`
(negated if ``negate_b``) if ``term_b``. The neutral factor is 1, the neutral term -0.

``Source.CHOICE`` is what ``hit`` says if `a` compares with the scalar (``against_scalar``) or `b` as
``greater``, ``equal`` and ``less`` allow; otherwise it is that scalar or `b`, or zero if ``miss_zero``. With
``nan``, a NaN in the comparison is the choice.
"""

_EXPONENT_BASE = 0x4B000000
"""2^23: as the exponent field of a float32 is ORed in, it becomes 2^23 + exponent."""
_EXPONENT_BIAS = 0xCB00007F
"""-(2^23 + 127)."""

_MAXIMUM = {"source": Source.CHOICE, "hit": Hit.A, "greater": 1, "nan": 1}
_MINIMUM = {"source": Source.CHOICE, "hit": Hit.A, "less": 1, "nan": 1}
_SELECT = {"source": Source.CHOICE, "hit": Hit.B, "against_scalar": 1, "miss_zero": 1}
_COMPARE = {"source": Source.CHOICE, "hit": Hit.SCALAR, "miss_zero": 1}
_SCALAR = "scalar"

_CONTROLS = {
    VectorOp.MOVE: {},
    VectorOp.FILL: {"source": Source.CHOICE, "hit": Hit.SCALAR, "greater": 1, "equal": 1, "less": 1,
                    "against_scalar": 1},
    VectorOp.ADD: {"term_b": 1},
    VectorOp.SUB: {"term_b": 1, "negate_b": 1},
    VectorOp.MUL: {"factor_b": 1},
    VectorOp.ADD_SCALAR: {"term": _SCALAR},
    VectorOp.MUL_SCALAR: {"factor": _SCALAR},
    VectorOp.RSUB_SCALAR: {"source": Source.NEGATIVE_A, "term": _SCALAR},
    VectorOp.MUL_ADD_SCALAR: {"factor_b": 1, "term": _SCALAR},
    VectorOp.NMUL_ADD_SCALAR: {"source": Source.NEGATIVE_A, "factor_b": 1, "term": _SCALAR},
    VectorOp.SCALE_ADD: {"factor": _SCALAR, "term_b": 1},
    VectorOp.MAX: _MAXIMUM,
    VectorOp.MIN: _MINIMUM,
    VectorOp.MAX_SCALAR: _MAXIMUM | {"against_scalar": 1},
    VectorOp.MIN_SCALAR: _MINIMUM | {"against_scalar": 1},
    VectorOp.SELECT_GT: _SELECT | {"greater": 1},
    VectorOp.SELECT_GE: _SELECT | {"greater": 1, "equal": 1},
    VectorOp.COMPARE_GT: _COMPARE | {"greater": 1},
    VectorOp.COMPARE_GE: _COMPARE | {"greater": 1, "equal": 1},
    VectorOp.COMPARE_EQ: _COMPARE | {"equal": 1},
    VectorOp.ROUND: {"source": Source.ROUND},
    VectorOp.SCALE2: {"source": Source.SCALE2},
    VectorOp.EXPONENT: {"source": Source.EXPONENT, "term": _EXPONENT_BIAS},
    VectorOp.RECIPROCAL_SEED: {"source": Source.RECIPROCAL},
    VectorOp.RSQRT_SEED: {"source": Source.RSQRT},
}


class LaneDecoder(wiring.Component):
    """The `LaneControl` of an operation. Combinational.

    FILL is a choice whose comparison nothing but a NaN in the (unused) operand could fail, and then the
    alternative is the scalar as well.

    Members
    -------
    op : In(VectorOp)
        A legal operation.
    scalar : In(32)
        Bits of the scalar; need not be normalised.
    control : Out(LaneControl)
    """

    op: In(VectorOp)
    scalar: In(32)
    control: Out(LaneControl)

    def elaborate(self, platform):
        m = Module()
        control = self.control
        scalar = Signal(32)
        m.d.comb += [
            scalar.eq(normalised(self.scalar)),
            control.scalar.eq(scalar),
            control.factor.eq(ONE),
            control.term.eq(NEGATIVE_ZERO),
        ]
        with m.Switch(self.op):
            for op, fields in _CONTROLS.items():
                with m.Case(op):
                    m.d.comb += [control[name].eq(scalar if value is _SCALAR else value)
                                 for name, value in fields.items()]
        return m


class Lane(wiring.Component):
    """One lane: any `VectorOp` on two float32, one per cycle. The pipeline never stalls.

    ::

        a, b -> | capture | normalise | source, | FloatMul | FloatAdd | -> o
                                      | factor, |    term  |
                                      |  term ->|--------->|

    Operands may arrive in different cycles: an operand stays until the next one. The result of what the lane
    holds after a cycle with a load is there :attr:`latency` cycles after that cycle. Everything runs through
    multiplier and adder: ``x * 1 + -0`` is x, so that no operation needs a bypass.

    Members
    -------
    control : In(LaneControl)
        Stays while results are under way.
    a, b : In(32)
        Bits of the operands; need not be normalised.
    load_a, load_b : In(1)
        Capture the operand.
    o : Out(32)
        Bits of the result.
    """

    latency = 3 + FloatMul.latency + FloatAdd.latency

    control: In(LaneControl)
    a: In(32)
    b: In(32)
    load_a: In(1)
    load_b: In(1)
    o: Out(32)

    def elaborate(self, platform):
        m = Module()
        m.submodules.mul = mul = FloatMul()
        m.submodules.add = add = FloatAdd()
        control = self.control

        captured_a = Signal(32)
        captured_b = Signal(32)
        a = Signal(32, reset_less=True)
        b = Signal(32, reset_less=True)
        with m.If(self.load_a):
            m.d.sync += captured_a.eq(self.a)
        with m.If(self.load_b):
            m.d.sync += captured_b.eq(self.b)
        m.d.sync += [a.eq(normalised(captured_a)), b.eq(normalised(captured_b))]

        source = Signal(32, reset_less=True)
        factor = Signal(32, reset_less=True)
        terms = [Signal(32, name=f"term{i}", reset_less=True) for i in range(1 + FloatMul.latency)]
        sources = self._sources(m, a, b)
        with m.Switch(control.source):
            for name, value in sources.items():
                with m.Case(name):
                    m.d.sync += source.eq(value)
        m.d.sync += [
            factor.eq(Mux(control.factor_b, b, control.factor)),
            terms[0].eq(Mux(control.term_b, b ^ (control.negate_b << 31), control.term)),
            *(after.eq(before) for before, after in zip(terms, terms[1:], strict=False)),
        ]
        m.d.comb += [
            mul.a.eq(source), mul.b.eq(factor),
            add.a.eq(mul.o), add.b.eq(terms[-1]),
            self.o.eq(add.o),
        ]
        return m

    def _sources(self, m, a, b):
        return {
            Source.A: a,
            Source.NEGATIVE_A: negated(a),
            Source.CHOICE: self._choice(m, a, b),
            Source.ROUND: _rounded(m, a),
            Source.SCALE2: _scaled(m, a, b),
            Source.EXPONENT: _EXPONENT_BASE | Float32(a).exponent,
            Source.RECIPROCAL: _reciprocal(m, a),
            Source.RSQRT: _rsqrt(m, a),
        }

    def _choice(self, m, a, b):
        control = self.control
        other = Signal(32)
        choice = Signal(32)
        hit = Signal(32)
        greater = Signal()
        equal = Signal()
        nan = Signal()
        holds = Signal()
        m.d.comb += [
            other.eq(Mux(control.against_scalar, control.scalar, b)),
            greater.eq(ordered(a) > ordered(other)),
            equal.eq(ordered(a) == ordered(other)),
            nan.eq((a == NAN) | (other == NAN)),
            holds.eq(~nan & Mux(greater, control.greater, Mux(equal, control.equal, control.less))),
        ]
        with m.Switch(control.hit):
            with m.Case(Hit.A):
                m.d.comb += hit.eq(a)
            with m.Case(Hit.B):
                m.d.comb += hit.eq(b)
            with m.Default():
                m.d.comb += hit.eq(control.scalar)
        with m.If(nan & control.nan):
            m.d.comb += choice.eq(NAN)
        with m.Elif(holds):
            m.d.comb += choice.eq(hit)
        with m.Elif(~control.miss_zero):
            m.d.comb += choice.eq(other)
        return choice


def _rounded(m, a):
    """``a`` to the nearest integer, half to even.

    Works on the bit pattern: adding to the mantissa carries into the exponent as it should, and the lowest
    bit of the exponent stands for the hidden bit, which is needed where that bit is set (exponent 127).
    """
    f = Float32(a)
    places = Signal(5, name="places")
    fraction = Signal(23, name="fraction")
    unit = Signal(24, name="unit")
    result = Signal(32, name="rounded")
    m.d.comb += [
        places.eq(f.exponent - 127),
        fraction.eq(Const(0x7FFFFF, 23) >> places),
        unit.eq(Cat(1, fraction) & ~Cat(fraction, 0)),
    ]
    odd = (a[:24] & unit).any()
    with m.If(f.exponent >= 127 + 23):
        m.d.comb += result.eq(a)
    with m.Elif(f.exponent >= 127):
        carried = (Cat(odd, fraction[1:], Const(0, 9)) + Cat(1, a[:31]))[1:32]
        m.d.comb += result.eq(Cat(carried & Cat(~fraction, Const(0xFF, 8)), f.sign))
    with m.Elif((f.exponent == 126) & f.mantissa.any()):
        m.d.comb += result.eq(Cat(Const(ONE, 31), f.sign))
    with m.Else():
        m.d.comb += result.eq(f.sign << 31)
    return result


def _scaled(m, a, b):
    """``a`` times two to the power of ``b``, of which the fraction is dropped and which ends at +-512."""
    f, g = Float32(a), Float32(b)
    power = Signal(10, name="power")
    exponent = Signal(12, name="scaled_exponent")
    result = Signal(32, name="scaled")
    with m.If(g.exponent >= 127 + 9):
        m.d.comb += power.eq(512)
    with m.Elif(g.exponent >= 127):
        m.d.comb += power.eq(Cat(g.mantissa[14:], 1) >> (8 - g.exponent)[:4])
    m.d.comb += exponent.eq(Mux(g.sign, f.exponent - power, f.exponent + power))
    with m.If((a == NAN) | (b == NAN)):
        m.d.comb += result.eq(NAN)
    with m.Elif((f.exponent == 0) | (f.exponent == 0xFF)):
        m.d.comb += result.eq(a)
    with m.Elif(exponent[11] | (exponent == 0)):
        m.d.comb += result.eq(f.sign << 31)
    with m.Elif(exponent >= 0xFF):
        m.d.comb += result.eq(Cat(Const(0, 23), Const(0xFF, 8), f.sign))
    with m.Else():
        m.d.comb += result.eq(Cat(f.mantissa, exponent[:8], f.sign))
    return result


def _reciprocal(m, a):
    """An approximation of ``1 / a``: the exponent's sign flips, the mantissa is a straight line."""
    f = Float32(a)
    difference = Signal(32, name="reciprocal_difference")
    result = Signal(32, name="reciprocal")
    m.d.comb += difference.eq(Const(0x7EF311C7, 32) - a[:31])
    with m.If(a == NAN):
        m.d.comb += result.eq(NAN)
    with m.Elif(f.exponent == 0):
        m.d.comb += result.eq(Cat(Const(0, 23), Const(0xFF, 8), f.sign))
    with m.Elif(difference[31] | ~difference[23:31].any()):
        m.d.comb += result.eq(f.sign << 31)
    with m.Else():
        m.d.comb += result.eq(Cat(difference[:31], f.sign))
    return result


def _rsqrt(m, a):
    """An approximation of ``1 / sqrt(a)``; the constant is the one made known by Quake III."""
    f = Float32(a)
    result = Signal(32, name="rsqrt")
    with m.If(f.exponent == 0):
        m.d.comb += result.eq(Const(0xFF << 23, 32))
    with m.Elif(f.sign | (a == NAN)):
        m.d.comb += result.eq(NAN)
    with m.Elif(f.exponent != 0xFF):
        m.d.comb += result.eq(Const(0x5F3759DF, 32) - a[1:])
    return result
