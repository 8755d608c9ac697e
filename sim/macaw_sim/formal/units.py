"""Matrix and activation unit as the sequencer and the memories see them."""

from amaranth.hdl import Signal
from macaw_hw import activation, matrix
from macaw_hw.isa import MATRIX, VECTOR, Fault
from macaw_hw.sequencer import IN_FLIGHT

from .bench import proof
from .bursts import SMALL, legal
from .loads import local_port

__all__ = ["matrix_ports", "activation_ports"]


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


@proof("MatrixUnit: reads of tiles stay until granted; nothing is done that was not begun", reach=24)
def matrix_ports(bench):
    unit = matrix.MatrixUnit(config=SMALL)
    _unit(bench, unit, MATRIX, "acc_read.ready", "acc_write.ready", "x.ready")
    # The highest priorities at their memories: `vector_arbitration`, `tile_arbitration`.
    bench.m.d.comb += [unit.acc_read.ready.eq(1), unit.acc_write.ready.eq(1), unit.x.ready.eq(1)]
    local_port(bench, "w", unit.w)


@proof("ActivationUnit: reads and writes of rows and tiles stay until granted", reach=24)
def activation_ports(bench):
    unit = activation.ActivationUnit(config=SMALL)
    _unit(bench, unit, VECTOR, "tile.ready")
    bench.m.d.comb += unit.tile.ready.eq(1)  # the highest priority: `tile_arbitration`
    for name in ("a", "b", "d"):
        local_port(bench, name, getattr(unit, name))
