"""Addresses of the DMA engine: loops become runs, runs become bursts inside the window."""

from amaranth.hdl import Cat, Signal, Value
from amaranth.lib import data
from amaranth.utils import exact_log2
from macaw_hw import dma_address
from macaw_hw.config import Config
from macaw_hw.isa import LOAD, violations

from .axi4 import PAGE
from .bench import proof

__all__ = ["SMALL", "WIDE", "INSIDE", "legal", "window", "place", "run_generator", "burst_splitter",
           "burst_splitter_wide", "burst_generator"]

SMALL = Config(size=4, address_width=20)
"""256 beats are 1 KiB."""
WIDE = Config(size=16, bus_bytes=32, address_width=20)
"""256 beats are 8 KiB, and a beat is an instruction."""
INSIDE = 3
"""Instructions that `BurstGenerator` holds at most: one becomes runs, one is a run that is split, one the burst that is
offered."""


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
    bench.check("a run has a first byte not behind the final one, or is outside",
                ~unit.o.valid | (run.first >> SMALL.address_width != 0) | (run.first <= run.final))
    bench.check("setup passes with the instruction", begun == (unit.setup.valid & unit.setup.ready))
    bench.check("a run belongs to an instruction", ~unit.o.valid | (open_instructions != 0))
    bench.check("at most 1 instruction inside", open_instructions <= 1)
    bench.check("the last run ends a group", ~(unit.o.valid & run.last) | run.group_end)
    several = Signal()
    with bench.m.If(unit.o.valid & unit.o.ready):
        bench.m.d.sync += several.eq(~run.last)
    bench.reach("an instruction of several runs", ended & several)


def _bursts(bench, config, base, limit, runs, bursts):
    """Bursts cover the runs of the stream before them exactly; runs are as `run_generator` shows."""
    m, run, burst = bench.m, runs.p, bursts.p
    first, final, shape = place(config, burst)
    bench.stable("bursts", bursts.valid, bursts.ready, bursts.payload)
    bench.check("every byte is inside the window", ~bursts.valid | burst.fault | ((first >= base) & (final < limit)))
    bench.check("the first byte is not behind the last one", ~bursts.valid | burst.fault | (first <= final))
    bench.check("no burst crosses 4 KiB", ~bursts.valid | burst.fault | shape)

    # What is left of the run that is being split, and the same when the burst that is offered was made of it.
    width, piece = config.address_width, min(PAGE, 256 * config.bus_bytes)
    layout = data.StructLayout({"first": width, "final": width, "outside": 1, "flags": 2, "whole": 1})
    rest, given = Signal(layout), Signal(layout)
    left, accepted = ~runs.ready, runs.valid & runs.ready
    made, ends = left & ~bursts.valid, Signal(width)
    m.d.comb += ends.eq(rest.first | (piece - 1))
    whole = rest.outside | (rest.final <= ends)
    with m.If(accepted):
        m.d.sync += [
            rest.first.eq(run.first), rest.final.eq(run.final), rest.flags.eq(Cat(run.group_end, run.last)),
            rest.outside.eq((run.first < base) | (run.final >= limit)
                            | Cat(run.first[width:], run.final[width:]).any()),
        ]
    with m.If(made):
        m.d.sync += [given.eq(rest), given.whole.eq(whole), rest.first.eq(ends + 1)]
    bench.check("a run stays until its last burst is made", ~bench.past(made) | (left == ~bench.past(whole)))
    bench.check("bursts exactly for what is left", bursts.valid | ~bench.past(made))
    bench.check("a burst only for a run", ~bursts.valid | bench.past(bursts.valid & ~bursts.ready | made))
    bench.check("a fault exactly for a run that leaves the window or the address space",
                ~bursts.valid | (burst.fault == given.outside))
    good = bursts.valid & ~given.outside
    bench.check("a burst begins where the one before ended", ~good | (first == given.first))
    bench.check("the last one ends its run", ~good | ~given.whole | (final == given.final))
    bench.check("what it leaves begins behind it", ~good | given.whole | (left & (rest.first == final + 1)))
    bench.check("what is left of the run is inside the window", ~left | rest.outside | (
        (rest.first >= base) & (rest.first <= rest.final) & (rest.final < limit)))
    bench.check("flags come with the burst that ends the run", ~good | (
        Cat(burst.group_end, burst.last) == given.flags & given.whole.replicate(2)))
    bench.reach("a fault", bursts.valid & burst.fault)
    second = Signal()
    with m.If(bursts.valid & bursts.ready):
        m.d.sync += second.eq(~given.whole)
    bench.reach("the second burst of a run", second & bursts.valid & ~burst.fault & burst.group_end)


def _splitter(bench, config):
    unit = dma_address.BurstSplitter(config=config)
    bench.add("splitter", unit, "i", "window_base", "window_limit")
    base, limit = window(bench, unit)
    bench.offer(unit.i.valid, unit.i.ready, unit.i.payload)
    run = unit.i.p
    bench.assume(~unit.i.valid | (run.first >> config.address_width != 0) | (run.first <= run.final))
    _bursts(bench, config, base, limit, unit.i, unit.o)


@proof("BurstSplitter, bus of 4 bytes: bursts cover their run exactly, inside the window, never across 4 KiB; else a "
       "fault")
def burst_splitter(bench):
    _splitter(bench, SMALL)


@proof("BurstSplitter, bus of 32 bytes: the same where 256 beats are more than 4 KiB")
def burst_splitter_wide(bench):
    _splitter(bench, WIDE)


@proof("BurstGenerator, both together: no legal instruction makes a burst outside the window or across 4 KiB", depth=16)
def burst_generator(bench):
    unit = dma_address.BurstGenerator(config=SMALL)
    base, limit = window(bench, unit)
    legal(bench, unit.instruction)
    inner = bench.add("bursts", unit, "instruction", "window_base", "window_limit")
    runs = inner.submodules.runs.o
    # Proven in `run_generator`.
    bench.assume(~runs.valid | (runs.p.first >> SMALL.address_width != 0) | (runs.p.first <= runs.p.final))
    _bursts(bench, SMALL, base, limit, runs, unit.o)
    inside = Signal(range(INSIDE + 2))
    begun = unit.setup.valid & unit.setup.ready
    bench.m.d.sync += inside.eq(inside + begun - (unit.o.valid & unit.o.ready & unit.o.p.last))
    bench.check("setup passes with the instruction", begun == (unit.instruction.valid & unit.instruction.ready))
    bench.check(f"at most {INSIDE} instructions inside", inside <= INSIDE)
    bench.check("a burst belongs to an instruction", ~unit.o.valid | (inside != 0))
    bench.reach(f"{INSIDE} instructions inside", inside == INSIDE)
