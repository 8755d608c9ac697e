"""Store unit: a bus master that keeps the rules and writes nothing outside the window."""

from amaranth.hdl import Cat, Signal
from macaw_hw import dma_store
from macaw_hw.dma_store_path import Cause
from macaw_hw.isa import Fault

from .axi4 import write_bus
from .bench import proof
from .bursts import SMALL
from .loads import dma_unit, idle_once_done, local_port, shallow

__all__ = ["store_bus", "store_ports", "store_beats", "store_progress", "store_done"]


def _lemmas(bench, unit, inner, places):
    """Beats begun are in the pipeline or in the queue behind it, and there is room for all of them."""
    reader, queue = inner.submodules.reader, inner.submodules.beats
    begun = reader.i.valid & reader.i.ready & ~reader.i.p.outside
    beat = reader.step.emit & (reader.step.cause != Cause.OUTSIDE)
    inside, pipeline = Signal(range(places + 2)), [Signal(name=f"beat_at{i}") for i in range(6)]
    bench.m.d.sync += [
        inside.eq(inside + begun - (unit.axi.wvalid & unit.axi.wready)),
        Cat(pipeline).eq(Cat(reader.stepped & beat, *pipeline)),
    ]
    held = (reader.stepped | reader.blocked) & beat
    bench.check("lemma: beats are in the pipeline or in the queue", inside == queue.level + sum(pipeline) + held)
    bench.check("lemma: the pipeline ends in the queue", queue.w_en == pipeline[-1])
    bench.check("lemma: there is room if it says so", ~reader.room | (inside != places))
    bench.check("lemma: never more beats than room", inside <= places)


@proof("StoreUnit with room for 2 bursts: AXI4 rules of addresses and data, window, no burst after a fault or halt")
def store_bus(bench):
    with shallow(dma_store, OUTSTANDING=2, SETUPS=2, _BEATS=2):
        unit = dma_store.StoreUnit(config=SMALL)
        _, place = dma_unit(bench, unit, dma_store)
    axi, past = unit.axi, bench.past
    write_bus(bench, axi, SMALL, place, bursts=dma_store.OUTSTANDING, beats=False)
    stop = unit.halt | (unit.control.fault != Fault.NONE)
    offered = axi.awvalid & ~past(axi.awvalid & ~axi.awready)
    bench.check("AW: nothing new under halt or after a fault", ~past(stop) | ~offered)
    bench.check("a fault stays", past(unit.control.fault == Fault.NONE, init=1) | (
        unit.control.fault == past(unit.control.fault)))
    for fault in (Fault.WINDOW, Fault.BUS_WRITE, Fault.LOCAL_ADDRESS, Fault.NON_FINITE):
        bench.reach(f"fault {fault.name}", unit.control.fault == fault)


@proof("StoreUnit with room for 2 beats: never more of them; local reads stay until granted")
def store_ports(bench):
    with shallow(dma_store, OUTSTANDING=2, SETUPS=2, _BEATS=2):
        unit = dma_store.StoreUnit(config=SMALL)
        inner, place = dma_unit(bench, unit, dma_store)
        _lemmas(bench, unit, inner, dma_store._BEATS)
    write_bus(bench, unit.axi, SMALL, place, bursts=dma_store.OUTSTANDING, beats=False, rules=False)
    stop = unit.halt | (unit.control.fault != Fault.NONE)
    local_port(bench, "vector", unit.vector, stop)
    local_port(bench, "tile", unit.tile, stop)


@proof("StoreUnit: AWLEN + 1 beats to each address with `last` on the last one, strobes inside the window, one "
       "response awaited for each burst", depth=18, reach=16)
def store_beats(bench):
    unit = dma_store.StoreUnit(config=SMALL)
    _, place = dma_unit(bench, unit, dma_store)
    outstanding = write_bus(bench, unit.axi, SMALL, place, bursts=dma_store.OUTSTANDING, rules=False)
    bench.check("idle only if nothing is offered or outstanding",
                ~unit.idle | (~unit.axi.awvalid & ~unit.axi.wvalid & (outstanding == 0)))


def _fair(bench):
    with shallow(dma_store, OUTSTANDING=2, SETUPS=2, _BEATS=2):
        unit = dma_store.StoreUnit(config=SMALL)
        _, place = dma_unit(bench, unit, dma_store, "vector.ready", "tile.ready", prompt=True)
        write_bus(bench, unit.axi, SMALL, place, bursts=2, fair=2, rules=False, beats=False)
    for port in (unit.vector, unit.tile):
        bench.m.d.comb += port.ready.eq(bench.fair(2, "grant"))
    return unit


@proof("StoreUnit with room for 2 bursts: under a fair bus and fair memories something moves every 20 cycles until it "
       "is done or reports a fault; stopped, the bus moves until it is idle", depth=36)
def store_progress(bench):
    unit = _fair(bench)
    axi, control = unit.axi, unit.control
    bus = (axi.awvalid & axi.awready) | (axi.wvalid & axi.wready) | (axi.bvalid & axi.bready)
    local = (unit.vector.valid & unit.vector.ready) | (unit.tile.valid & unit.tile.ready)
    running = control.busy & (control.fault == Fault.NONE) & ~unit.halt
    stopped = ~unit.idle & (unit.halt | (control.fault != Fault.NONE))
    bench.within("until something moves", 20, running, bus | local | control.done)
    bench.within("until the bus moves", 20, stopped, bus)
    bench.reach("done", control.done)


@proof("StoreUnit with room for 2 bursts: no burst is outstanding once every instruction is done", depth=18, reach=22)
def store_done(bench):
    unit = _fair(bench)
    idle_once_done(bench, unit)
