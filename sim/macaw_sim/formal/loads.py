"""Load unit: a bus master that keeps the rules, writes local memory as it must, and never gets stuck."""

from contextlib import ExitStack, contextmanager
from unittest.mock import patch

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from macaw_hw import dma_address, dma_load
from macaw_hw.isa import LOAD, Fault

from .axi4 import read_bus
from .bench import proof
from .bursts import INSIDE, SMALL, legal, place, window

__all__ = ["AnyBursts", "dma_unit", "idle_once_done", "local_port", "shallow", "load_bus", "load_bursts",
           "load_drain", "load_progress", "load_done"]


class AnyBursts(wiring.Component):
    """Stands for `BurstGenerator`: any bursts that have the properties which are proven of it."""

    def __init__(self, bench, prompt):
        width = SMALL.address_width + 1
        super().__init__({
            "instruction": In(stream.Signature(LOAD.layout)), "window_base": In(width), "window_limit": In(width),
            "setup": Out(stream.Signature(dma_address.Setup)),
            "o": Out(stream.Signature(dma_address.Burst(SMALL))),
        })
        self.accept, self.emit = (bench.fair(2, name) if prompt else bench.free(1, name) for name in ("accept", "emit"))
        self.any = bench.free(len(self.o.payload.as_value()), "burst")

    def elaborate(self, platform):
        m = Module()
        o, instruction = self.o, self.instruction
        # Instructions whose last burst has not left.
        inside = Signal(range(INSIDE + 1))
        begun = self.setup.valid & self.setup.ready
        m.d.sync += inside.eq(inside + begun - (o.valid & o.ready & o.p.last))
        waits, payload = Signal(), Signal.like(o.payload)
        m.d.sync += [waits.eq(o.valid & ~o.ready), payload.eq(o.payload)]
        free = Signal()
        m.d.comb += [
            free.eq(self.accept & (inside != INSIDE)),
            self.setup.valid.eq(instruction.valid & free),
            instruction.ready.eq(self.setup.ready & free),
            self.setup.p.format.eq(instruction.p.format), self.setup.p.local.eq(instruction.p.local),
            o.valid.eq(waits | self.emit & (inside != 0)),
            o.payload.eq(Mux(waits, payload, self.any)),
        ]
        return m


def dma_unit(bench, unit, module, *driven, prompt=False):
    """Adds a DMA unit with `AnyBursts` in place of its `BurstGenerator`, any window, any legal instructions.

    ``prompt``: what can happen there happens within 2 cycles."""
    base, limit = window(bench, unit)
    bursts = AnyBursts(bench, prompt)
    with patch.object(module, "BurstGenerator", lambda config: bursts):
        inner = bench.add("unit", unit, "axi", "window_base", "window_limit", "control.instruction", "halt", *driven)
    bench.m.d.comb += unit.halt.eq(bench.rising("halt"))
    legal(bench, unit.control.instruction)
    first, final, shape = place(SMALL, bursts.o.p)
    good = (first >= base) & (first <= final) & (final < limit) & shape
    bench.assume(~bursts.o.valid | bursts.o.p.fault | good)
    bench.assume(~bursts.o.valid | ~bursts.o.p.last | bursts.o.p.group_end)
    return inner, (base, limit)


def local_port(bench, name, port, stop=0):
    """Requests to a local memory stay until they are granted, but for a unit that was stopped."""
    what = [getattr(port, member) for member, flow in port.signature.members.items()
            if flow.flow == Out and member != "valid"]
    bench.stable(name, port.valid, port.ready, *what, unless=stop | bench.past(stop))


@proof("LoadUnit with room for 2 bursts: AXI4 rules, window, no burst after a fault or halt, local writes stay until "
       "granted")
def load_bus(bench):
    with shallow(dma_load, OUTSTANDING=2, SETUPS=2):
        unit = dma_load.LoadUnit(config=SMALL)
        _, place = dma_unit(bench, unit, dma_load)
    axi, past = unit.axi, bench.past
    read_bus(bench, axi, SMALL, place, bursts=dma_load.OUTSTANDING, count=False)
    stop = unit.halt | (unit.control.fault != Fault.NONE)
    offered = axi.arvalid & ~past(axi.arvalid & ~axi.arready)
    bench.check("AR: nothing new under halt or after a fault", ~past(stop) | ~offered)
    bench.check("a fault stays", past(unit.control.fault == Fault.NONE, init=1) | (
        unit.control.fault == past(unit.control.fault)))
    bench.check("done is never reported after a fault", ~unit.control.done | (past(unit.control.fault) == Fault.NONE))
    bench.check("R is swallowed under halt", ~unit.halt | axi.rready)
    local_port(bench, "vector", unit.vector, stop)
    local_port(bench, "tile", unit.tile, stop)
    for fault in (Fault.WINDOW, Fault.BUS_READ, Fault.LOCAL_ADDRESS):
        bench.reach(f"fault {fault.name}", unit.control.fault == fault)


@proof("LoadUnit with room for 4 bursts: never more outstanding; idle only if nothing is offered or outstanding")
def load_bursts(bench):
    with shallow(dma_load, OUTSTANDING=4, SETUPS=2):
        unit = dma_load.LoadUnit(config=SMALL)
        inner, place = dma_unit(bench, unit, dma_load)
    outstanding = read_bus(bench, unit.axi, SMALL, place, bursts=4, rules=False)
    # Lemmas: each burst has an entry in the queue that its data will meet, and so has a fault, behind all bursts.
    queue, bursts = inner.submodules.infos, inner.submodules.bursts.o
    marker, closed = Signal(), Signal()
    faulty = bursts.valid & bursts.ready & bursts.p.fault
    bench.m.d.sync += [marker.eq(faulty | marker & ~(queue.r_en & (queue.level == 1))), closed.eq(closed | faulty)]
    bench.check("an entry for each burst", queue.level == outstanding + unit.axi.arvalid + marker)
    bench.check("nothing after a fault", ~closed | ~(bursts.valid & bursts.ready))
    bench.check("only a faulty burst closes", ~marker | closed)
    bench.check("idle only if nothing is offered or outstanding",
                ~unit.idle | (~unit.axi.arvalid & (outstanding == 0)))
    bench.reach("4 outstanding", outstanding == 4)


def idle_once_done(bench, unit):
    """What lets a program end without a drain: nothing is outstanding once all instructions are done."""
    instruction, inside = unit.control.instruction, Signal(6)
    bench.m.d.sync += inside.eq(inside + (instruction.valid & instruction.ready) - unit.control.done)
    bench.check("idle once every instruction is done", (inside != 0) | unit.idle)
    bench.reach("one of two is done", unit.control.done & (inside == 2))


@contextmanager
def shallow(module, **constants):
    """Queues of a module are less deep for as long as it lasts: the same rules with fewer states."""
    with ExitStack() as stack:
        for name, value in constants.items():
            stack.enter_context(patch.object(module, name, value))
        yield


def _fair(bench):
    with shallow(dma_load, OUTSTANDING=2, SETUPS=2):
        unit = dma_load.LoadUnit(config=SMALL)
        _, place = dma_unit(bench, unit, dma_load, "vector.ready", "tile.ready", prompt=True)
        read_bus(bench, unit.axi, SMALL, place, bursts=2, fair=2, rules=False, count=False)
    for port in (unit.vector, unit.tile):
        bench.m.d.comb += port.ready.eq(bench.fair(2, "grant"))
    axi = unit.axi
    return unit, (axi.arvalid & axi.arready) | (axi.rvalid & axi.rready)


@proof("LoadUnit with room for 2 bursts, stopped or after a fault: on a fair bus a beat moves every 12 cycles until it "
       "is idle")
def load_drain(bench):
    unit, beats = _fair(bench)
    stopped = ~unit.idle & (unit.halt | (unit.control.fault != Fault.NONE))
    bench.within("until the bus moves", 12, stopped, beats)
    bench.reach("idle under halt after beats", unit.halt & unit.idle & bench.past(beats))


@proof("LoadUnit with room for 2 bursts: under a fair bus and fair memories something moves every 12 cycles until it "
       "is done or reports a fault", depth=24)
def load_progress(bench):
    unit, beats = _fair(bench)
    control = unit.control
    local = (unit.vector.valid & unit.vector.ready) | (unit.tile.valid & unit.tile.ready)
    running = control.busy & (control.fault == Fault.NONE) & ~unit.halt
    bench.within("until something moves", 12, running, beats | local | control.done)
    bench.reach("done", control.done)


@proof("LoadUnit with room for 2 bursts: no burst is outstanding once every instruction is done", depth=16, reach=20)
def load_done(bench):
    unit, _ = _fair(bench)
    idle_once_done(bench, unit)
