"""One float32 lane of the activation unit, and what an operation makes all lanes do."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .delay import delayed, register
from .float32 import NEGATIVE_ZERO, Float32, FloatAdd, FloatMul, is_nan, normalised
from .isa import VectorOp

__all__ = ["LaneControl", "LaneDecoder", "Lane"]


LaneControl = data.StructLayout({
    "against_scalar": 1, "scalar": 32, "difference": 1, "half": 1, "seed": 1, "exponent": 1, "negate_a": 1,
    "term_b": 1, "negate_b": 1, "term": 32, "whole": 1,
    "greater": 1, "equal": 1, "less": 1, "choose": 1, "select": 1, "blank": 1,
    "multiply": 1, "scale": 1,
})
"""The same for all lanes and all rows of an instruction.

A lane computes ``source * factor + term``. ``source`` is `a`, negated if ``negate_a``. ``other`` is the scalar if
``against_scalar``, else `b`; ``factor`` is ``other`` if ``multiply``, a power of two made of `b` if ``scale``,
else 1. ``term`` is `b` (negated if ``negate_b``) if ``term_b``, else a constant; the neutral one is -0. With
``whole`` it gets the sign of `a`, and the sum is that of `FloatAdd` with ``integer``.

With ``difference``, the source is the difference of the bit patterns of ``other`` and `a`, or with ``half`` the half
of it. ``seed`` says that it stands for a reciprocal (or, with ``half``, for that of a square root) and needs the
special cases. With ``exponent``, the source is 2^23 plus the exponent field of `a`.

`a` compares with ``other`` as ``greater``, ``equal`` and ``less`` allow. With ``choose``, the result is `a` if
the comparison holds, else the term, or NaN if one is; with ``select`` it is the term if the comparison
holds, else zero. ``blank`` is a source of -0.
"""

_STEPS = data.StructLayout({name: field.shape for name, field in LaneControl if field.width < 32})
"""What the later stages need of it."""
_OPERANDS = {"a": Float32, "other": Float32, "term": 32, "difference": 32, "power": 8, "nan": 1, "a_nan": 1, "b_nan": 1}
"""Registers behind the subtraction. They are not one, as lanes with wide signals cannot be merged for simulation."""
_CHOICE = data.StructLayout({"nan": 1, "infinite": 1, "zero": 1, "sign": 1, "no_term": 1})

_EXPONENT_BIAS = 0xCB00007F
"""-(2^23 + 127)."""
_INTEGERS = 0x4B000000
"""2^23, from which on every float32 is an integer."""
_RECIPROCAL = 0x7EF311C7
_RSQRT = 2 * 0x5F3759DF + 1
"""Twice the constant made known by Quake III, and one, as what is subtracted from the constant is rounded down."""

_MAXIMUM = {"choose": 1, "greater": 1}
_MINIMUM = {"choose": 1, "less": 1}
_SCALAR = "scalar"
_AGAINST = {"against_scalar": 1}
_SELECT = {"select": 1, "blank": 1, "term_b": 1} | _AGAINST
_COMPARE = {"select": 1, "blank": 1, "term": _SCALAR}
_MULTIPLY = {"multiply": 1}
_SEED = {"difference": 1, "seed": 1} | _AGAINST

_CONTROLS = {
    VectorOp.MOVE: {},
    VectorOp.FILL: {"blank": 1, "term": _SCALAR},
    VectorOp.ADD: {"term_b": 1},
    VectorOp.SUB: {"term_b": 1, "negate_b": 1},
    VectorOp.MUL: _MULTIPLY,
    VectorOp.ADD_SCALAR: {"term": _SCALAR},
    VectorOp.MUL_SCALAR: _MULTIPLY | _AGAINST,
    VectorOp.RSUB_SCALAR: {"negate_a": 1, "term": _SCALAR},
    VectorOp.MUL_ADD_SCALAR: _MULTIPLY | {"term": _SCALAR},
    VectorOp.NMUL_ADD_SCALAR: _MULTIPLY | {"negate_a": 1, "term": _SCALAR},
    VectorOp.SCALE_ADD: _MULTIPLY | _AGAINST | {"term_b": 1},
    VectorOp.MAX: _MAXIMUM | {"term_b": 1},
    VectorOp.MIN: _MINIMUM | {"term_b": 1},
    VectorOp.MAX_SCALAR: _MAXIMUM | _AGAINST | {"term": _SCALAR},
    VectorOp.MIN_SCALAR: _MINIMUM | _AGAINST | {"term": _SCALAR},
    VectorOp.SELECT_GT: _SELECT | {"greater": 1},
    VectorOp.SELECT_GE: _SELECT | {"greater": 1, "equal": 1},
    VectorOp.COMPARE_GT: _COMPARE | {"greater": 1},
    VectorOp.COMPARE_GE: _COMPARE | {"greater": 1, "equal": 1},
    VectorOp.COMPARE_EQ: _COMPARE | {"equal": 1},
    VectorOp.ROUND: {"whole": 1, "term": _INTEGERS},
    VectorOp.SCALE2: {"scale": 1},
    VectorOp.EXPONENT: {"exponent": 1, "term": _EXPONENT_BIAS},
    VectorOp.RECIPROCAL_SEED: _SEED | {"scalar": _RECIPROCAL},
    VectorOp.RSQRT_SEED: _SEED | {"scalar": _RSQRT, "half": 1},
}


class LaneDecoder(wiring.Component):
    """The `LaneControl` of an operation. Combinational.

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

        a, b -> | flush | subtract | decide | source, | FloatMul | FloatAdd | -> o
                                            | factor, |    term  |
                                            |  term ->|--------->|

    The result is there after :attr:`latency` cycles. Everything runs through multiplier and adder: ``x * 1 + -0``
    is x, so that no operation needs a bypass.

    Parameters
    ----------
    multipliers : int
        Multiplier blocks for the shifts of its `FloatAdd`.

    Members
    -------
    control : In(LaneControl)
        That of an operation, one cycle after its operands.
    a, b : In(32)
        Bits of the operands; need not be normalised.
    o : Out(32)
        Bits of the result.
    """

    latency = 4 + FloatMul.latency + FloatAdd.latency

    def __init__(self, *, multipliers=0):
        self._multipliers = multipliers
        super().__init__({"control": In(LaneControl), "a": In(32), "b": In(32), "o": Out(32)})

    @property
    def multipliers(self):
        return self._multipliers

    def elaborate(self, platform):
        m = Module()
        m.submodules.mul = mul = FloatMul(quiet=True)
        m.submodules.add = add = FloatAdd(multipliers=self.multipliers)
        now = Signal(_STEPS, name="control0")
        m.d.comb += [now[name].eq(self.control[name]) for name, _ in _STEPS]
        steps = delayed(m, now, 3 + FloatMul.latency, "control")

        before = self._subtract(m)
        choice = self._decide(m, steps[1], before)
        # Of these two, one is zero, so that they need no choice.
        before["source"] = Mux(steps[1].difference, 0, Mux(
            steps[1].exponent, Cat(before["a"].exponent, Const(_INTEGERS >> 8, 24)), before["a"].as_value()))
        before["difference"] = Mux(steps[1].difference, before["difference"], 0)
        value = {name: delayed(m, one, 1, f"{name}_decided")[-1] for name, one in before.items()}
        step = steps[2]
        chosen = Float32((value["source"] | Mux(step.half, value["difference"][1:], value["difference"]))[:32])
        source, factor = register(Float32, "source"), register(Float32, "factor")
        term = register(32, "term")
        m.d.sync += [
            source.mantissa.eq(Mux(choice.infinite, 0, chosen.mantissa)),
            source.mantissa[-1].eq(choice.nan | chosen.mantissa[-1] & ~choice.infinite),
            source.exponent.eq(Mux(choice.nan | choice.infinite, 0xFF, Mux(choice.zero, 0, chosen.exponent))),
            source.sign.eq(choice.sign),
            factor.mantissa.eq(Mux(step.multiply, value["other"].mantissa, 0)),
            factor.exponent.eq(Mux(step.multiply, value["other"].exponent, Mux(step.scale, value["power"], 127))),
            factor.sign.eq(value["other"].sign & (step.multiply | step.scale)),
            term.eq(Mux(choice.no_term, ~step.select << 31, value["term"])),
        ]
        m.d.comb += [
            mul.a.eq(source), mul.b.eq(factor), mul.scale.eq(steps[3].scale),
            add.a.eq(mul.o), add.b.eq(delayed(m, term, FloatMul.latency, "term")[-1]), add.integer.eq(steps[-1].whole),
            self.o.eq(add.o),
        ]
        return m

    def _subtract(self, m):
        """The first two stages: registers of `_OPERANDS`."""
        control = self.control
        flushed = []
        for name in "ab":
            operand, nan = register(Float32, f"{name}_flushed"), register(1, f"{name}_nan")
            f = Float32(getattr(self, name))
            m.d.sync += [
                operand.eq(f), operand.mantissa.eq(Mux(f.exponent.any(), f.mantissa, 0)),
                operand.mantissa[-1].eq(is_nan(f) | f.mantissa[-1] & f.exponent.any()),
                nan.eq(is_nan(f)),
            ]
            flushed += [operand, nan]
        a, a_nan, b, b_nan = flushed

        other = Signal(32)
        m.d.comb += other.eq(Mux(control.against_scalar, control.scalar, b))
        result = {name: register(shape, f"{name}_compared") for name, shape in _OPERANDS.items()}
        m.d.sync += [
            result["a"].eq(a), result["other"].eq(other), result["difference"].eq(other - a.as_value()[:31]),
            result["power"].eq(_power(b)),
            result["term"].eq(Mux(control.term_b, Cat(b.as_value()[:31], b.sign ^ control.negate_b),
                               control.term | (control.whole & a.sign) << 31)),
            result["nan"].eq(a_nan | Mux(control.against_scalar, is_nan(Float32(control.scalar), quiet=True), b_nan)),
            result["a_nan"].eq(a_nan), result["b_nan"].eq(b_nan),
        ]
        return result

    def _decide(self, m, step, value):
        """The third stage: register of `_CHOICE`."""
        a, other = value["a"], value["other"]
        zero, equal, greater, holds, blank = (Signal(name=name) for name in (
            "zero", "equal", "greater", "holds", "blank"))
        difference, borrow = value["difference"][:31], value["difference"][31] ^ other.sign
        result = register(_CHOICE, "choice")
        m.d.comb += [
            zero.eq(a.exponent == 0),
            equal.eq((difference == 0) & ((a.sign == other.sign) | zero)),
            greater.eq(Mux(a.sign ^ other.sign, other.sign, a.sign ^ borrow)),
            holds.eq(~value["nan"] & Mux(equal, step.equal, Mux(greater, step.greater, step.less))),
            blank.eq(step.blank | step.choose & ~holds & ~value["nan"]),
        ]
        m.d.sync += [
            result.nan.eq(step.seed & (value["a_nan"] | step.half & a.sign & ~zero) | step.scale & value["b_nan"]),
            result.infinite.eq(step.seed & zero),
            result.zero.eq(blank | step.seed & Mux(step.half, a.exponent.all(), borrow | ~difference[23:].any())),
            result.sign.eq(blank | (a.sign ^ step.negate_a) & ~step.half & ~step.exponent),
            result.no_term.eq(Mux(step.choose, holds, step.select & ~holds)),
        ]
        return result


def _power(b):
    """The integer part of ``|b|``, 255 at most; a float32 moved by more is a zero or infinite anyway."""
    low = b.exponent[:3]
    large = b.exponent[7] & (b.exponent[3:7].any() | low.all())
    places = ~Cat(~low[0], low[1] ^ low[0], low[2] ^ low[:2].all())  # 134 - exponent
    return Mux(large, 0xFF, Mux(b.exponent[7] | b.exponent[:7].all(), Cat(b.mantissa[16:], 1) >> places, 0))
