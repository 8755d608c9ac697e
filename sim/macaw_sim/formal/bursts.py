"""Addresses of the DMA engine: loops become runs, runs become bursts inside the window."""

from amaranth.hdl import Cat, Signal, Value
from amaranth.utils import exact_log2
from macaw_hw import dma_address
from macaw_hw.config import Config
from macaw_hw.isa import LOAD, violations

from .axi4 import PAGE
from .bench import proof

__all__ = ["SMALL", "WIDE", "legal", "window", "place", "run_generator", "burst_splitter",
           "burst_splitter_wide", "burst_generator"]

SMALL = Config(size=4, address_width=20)
"""256 beats are 1 KiB."""
WIDE = Config(size=16, bus_bytes=32, address_width=20)
"""256 beats are 8 KiB, and a beat is an instruction."""


def window(bench, unit):
    """Any window, also an empty one; it stays."""
    width = len(unit.window_base)
    base, limit = bench.constant(width, "window_base"), bench.constant(width, "window_limit")
    bench.m.d.comb += [unit.window_base.eq(base), unit.window_limit.eq(limit)]
    return base, limit


def legal(bench, stream, format=LOAD):
    """Offers any instructions that break no rule of the instruction set."""
    fields = stream.payload
    bench.offer(stream.valid, stream.ready, fields)
    raw = {field.name: Value.cast(fields[field.name]) for field in format.fields}
    broken = [rule for _, rule in violations(format, raw, SMALL.size)]
    bench.assume(~stream.valid | ~Cat(broken).any())


def place(config, burst):
    """First and last byte of a burst, and whether it stays within 4 KiB."""
    offset = exact_log2(config.bus_bytes)
    beats = burst.address[offset:] + burst.length
    return burst.address, Cat(burst.end, beats), (burst.address[offset:12] + burst.length) < PAGE >> offset


@proof("RunGenerator: one run per step, the last one marked, first byte not behind the final one")
def run_generator(bench):
    unit = dma_address.RunGenerator(config=SMALL)
    bench.add("runs", unit, "instruction")
    legal(bench, unit.instruction)
    run = unit.o.p
    begun = unit.instruction.valid & unit.instruction.ready
    ended = unit.o.valid & unit.o.ready & run.last
    open_instructions = Signal(3)
    bench.m.d.sync += open_instructions.eq(open_instructions + begun - ended)
    bench.stable("runs", unit.o.valid, unit.o.ready, unit.o.payload)
    bench.stable("setup", unit.setup.valid, unit.setup.ready, unit.setup.payload)
    bench.check("a run has a first byte not behind the final one", ~unit.o.valid | (run.first <= run.final))
    bench.check("setup passes with the instruction", begun == (unit.setup.valid & unit.setup.ready))
    bench.check("a run belongs to an instruction", ~unit.o.valid | (open_instructions != 0))
    bench.check("at most 2 instructions inside", open_instructions <= 2)
    bench.check("the last run ends a group", ~(unit.o.valid & run.last) | run.group_end)
    bench.reach("an instruction of several runs", ended & bench.past(unit.o.valid & unit.o.ready & ~run.last))


def _bursts(bench, config, base, limit, runs, bursts):
    """Bursts cover the runs of the stream before them exactly; runs are as `run_generator` shows."""
    m, run, burst = bench.m, runs.p, bursts.p
    first, final, shape = place(config, burst)
    bench.stable("bursts", bursts.valid, bursts.ready, bursts.payload)
    bench.check("every byte is inside the window", ~bursts.valid | burst.fault | ((first >= base) & (final < limit)))
    bench.check("the first byte is not behind the last one", ~bursts.valid | burst.fault | (first <= final))
    bench.check("no burst crosses 4 KiB", ~bursts.valid | burst.fault | shape)

    # The run that is being split, and the byte its next burst must begin with.
    given, busy = Signal.like(runs.payload, reset_less=True), Signal()
    outside, following = Signal(), Signal(config.address_width)
    moved = bursts.valid & bursts.ready
    with m.If(runs.ready):
        m.d.sync += [given.eq(run), busy.eq(runs.valid), following.eq(run.first),
                     outside.eq((run.first < base) | (run.final >= limit) | run.final[config.address_width:].any())]
    with m.Elif(moved):
        m.d.sync += following.eq(final + 1)
    bench.check("a run stays until its last burst is accepted",
                ~busy | (runs.ready == (moved & (outside | (final == given.final)))))
    bench.check("bursts exactly while there is a run", bursts.valid == busy)
    bench.check("a fault exactly for a run that leaves the window or the address space",
                ~busy | (burst.fault == outside))
    bench.check("bursts follow each other without a gap", ~busy | outside | (first == following))
    bench.check("what is left of the run is inside the window", ~busy | outside | (
        (following >= base) & (following <= given.final) & (given.final < limit)
        & (given.final >> config.address_width == 0)))
    bench.check("no burst goes beyond its run", ~busy | outside | (final <= given.final))
    bench.check("flags come with the burst that ends the run", ~busy | outside | (
        Cat(burst.group_end, burst.last) == Cat(given.group_end, given.last) & (final == given.final).replicate(2)))
    bench.reach("a fault", bursts.valid & burst.fault)
    bench.reach("the second burst of a run", bench.past(bursts.valid & bursts.ready & ~burst.group_end)
                & bursts.valid & ~burst.fault & burst.group_end)


def _splitter(bench, config):
    unit = dma_address.BurstSplitter(config=config)
    bench.add("splitter", unit, "i", "window_base", "window_limit")
    base, limit = window(bench, unit)
    bench.offer(unit.i.valid, unit.i.ready, unit.i.payload)
    bench.assume(~unit.i.valid | (unit.i.p.first <= unit.i.p.final))
    _bursts(bench, config, base, limit, unit.i, unit.o)


@proof("BurstSplitter, bus of 4 bytes: bursts cover their run exactly, inside the window, never across 4 KiB; else a "
       "fault")
def burst_splitter(bench):
    _splitter(bench, SMALL)


@proof("BurstSplitter, bus of 32 bytes: the same where 256 beats are more than 4 KiB")
def burst_splitter_wide(bench):
    _splitter(bench, WIDE)


@proof("BurstGenerator, both together: no legal instruction makes a burst outside the window or across 4 KiB", depth=12)
def burst_generator(bench):
    unit = dma_address.BurstGenerator(config=SMALL)
    base, limit = window(bench, unit)
    legal(bench, unit.instruction)
    inner = bench.add("bursts", unit, "instruction", "window_base", "window_limit")
    runs = inner.submodules.runs.o
    bench.assume(~runs.valid | (runs.p.first <= runs.p.final))  # proven in `run_generator`
    _bursts(bench, SMALL, base, limit, runs, unit.o)
