"""Matrix and activation unit as the sequencer and the memories see them."""

from contextlib import ExitStack
from unittest.mock import patch

from amaranth.hdl import Module, Signal, Value
from amaranth.lib.wiring import Out
from macaw_hw import activation, matrix, quantizer
from macaw_hw.isa import MATRIX, VECTOR, Fault
from macaw_hw.sequencer import IN_FLIGHT

from .bench import proof
from .bursts import SMALL, legal
from .loads import local_port

__all__ = ["matrix_ports", "activation_ports", "activation_rows"]


def _unit(bench, unit, format, *driven):
    """``unit`` with any legal instructions, at most 4 at a time, as the queue in front of it promises."""
    control = unit.control
    bench.add("unit", unit, "control.instruction", *driven)
    legal(bench, control.instruction, format)
    inside = Signal(range(IN_FLIGHT + 2))
    begun = control.instruction.valid & control.instruction.ready
    bench.m.d.sync += inside.eq(inside + begun - control.done)
    bench.assume(~begun | (inside != IN_FLIGHT))
    bench.check("a fault stays", bench.past(control.fault == Fault.NONE, init=1) | (
        control.fault == bench.past(control.fault)))
    bench.reach("a fault", control.fault != Fault.NONE)
    return inside


@proof("MatrixUnit: reads of tiles stay until granted; a fault stays", reach=24)
def matrix_ports(bench):
    unit = matrix.MatrixUnit(config=SMALL)
    _unit(bench, unit, MATRIX, "acc_read.ready", "acc_write.ready", "x.ready")
    # The highest priorities at their memories: `vector_arbitration`, `tile_arbitration`.
    bench.m.d.comb += [unit.acc_read.ready.eq(1), unit.acc_write.ready.eq(1), unit.x.ready.eq(1)]
    local_port(bench, "w", unit.w)


def anything(bench, kind):
    """Stands for components of a class: they give out any values in any cycle."""
    class Anything(kind):
        def __init__(self, **options):
            super().__init__(**options)
            self._outputs = [(Value.cast(value), bench.free(len(Value.cast(value)), kind.__name__))
                             for _, member, value in self.signature.flatten(self) if member.flow == Out]

        def elaborate(self, platform):
            m = Module()
            m.d.comb += [output.eq(free) for output, free in self._outputs]
            return m
    return Anything


def _activation(bench):
    # What the lanes compute does not matter.
    with ExitStack() as stack:
        for module, name in ((activation, "Lane"), (quantizer, "QuantizerLane"), (quantizer, "ExponentMaximum")):
            stack.enter_context(patch.object(module, name, anything(bench, getattr(module, name))))
        unit = activation.ActivationUnit(config=SMALL)
        _unit(bench, unit, VECTOR, "tile.ready")
    bench.m.d.comb += unit.tile.ready.eq(1)  # the highest priority: `tile_arbitration`
    return unit


@proof("ActivationUnit: reads and writes of rows stay until granted; a fault stays", reach=32)
def activation_ports(bench):
    unit = _activation(bench)
    bench.stable("a", unit.a.valid, unit.a.ready, unit.a.row)
    bench.stable("b", unit.b.valid, unit.b.ready, unit.b.row)
    bench.stable("d", unit.d.valid, unit.d.ready)


@proof("ActivationUnit with room for 4 results: the row of a write stays, too", depth=36, reach=32)
def activation_rows(bench):
    with patch.object(activation, "_RESULTS", 4):
        unit = _activation(bench)
    bench.stable("d", unit.d.valid, unit.d.ready, unit.d.row)
