"""Instruction fetch as a bus master: rules of AXI4, window, order of instructions, no deadlock."""

from amaranth.hdl import C, Cat, Mux, Signal
from macaw_hw import fetch
from macaw_hw.isa import Fault

from .axi4 import read_bus
from .bench import proof
from .bursts import WIDE, window
from .fifos import follow
from .loads import shallow

__all__ = ["fetch_bus", "fetch_addresses", "fetch_order", "fetch_order_3", "fetch_fault", "fetch_progress"]

_AHEAD = 8


def _fetch(bench, ahead=_AHEAD, everywhere=False, **bus):
    """The unit with a program at any place, begun once between resets; and its bus.

    ``everywhere``: the window is all of memory, not any.
    """
    m = bench.m
    config = WIDE
    unit = fetch.Fetch(config=config)
    bench.add("fetch", unit, "axi", "start", "address", "window_base", "window_limit", "halt")
    m.d.comb += unit.halt.eq(bench.rising("halt"))
    if everywhere:
        base, limit = 0, 1 << config.address_width
        m.d.comb += [unit.window_base.eq(base), unit.window_limit.eq(limit)]
    else:
        base, limit = window(bench, unit)
    started = Signal()
    m.d.comb += [unit.start.eq(bench.free(1, "start") & ~started),
                 unit.address.eq(Cat(C(0, 5), bench.constant(config.address_width - 5, "address")))]
    m.d.sync += started.eq(started | unit.start)
    outstanding = read_bus(bench, unit.axi, config, (base, limit), bursts=ahead, **bus)
    return unit, base, limit, started, outstanding


@proof("Fetch: AXI4 rules; every instruction read is whole and inside the window", limit=40)
def fetch_bus(bench):
    unit, base, limit, started, outstanding = _fetch(bench, count=False)
    axi, past = unit.axi, bench.past
    end = axi.araddr + ((axi.arlen + 1) << 5)
    bench.check("AR: whole instructions inside the window", ~axi.arvalid | (axi.araddr >= base) & (end <= limit))
    offered = axi.arvalid & ~past(axi.arvalid & ~axi.arready)
    bench.check("R: always accepted", axi.rready)
    bench.check("AR: nothing new under halt", ~past(unit.halt) | ~offered)
    bench.check("idle exactly if nothing is offered or outstanding",
                unit.idle == (~axi.arvalid & (outstanding == 0)))
    bench.check("AR: only for a program", ~axi.arvalid | started)


@proof("Fetch: each address once, in order", depth=24)
def fetch_addresses(bench):
    unit, _, _, _, _ = _fetch(bench, count=False, rules=False)
    axi, past = unit.axi, bench.past
    offered = axi.arvalid & ~past(axi.arvalid & ~axi.arready)
    # Where the next burst begins: behind the one that is offered, else behind the latest.
    # Beyond the address space there is none: no address has the last bit.
    following = Signal(len(unit.address) + 1)
    reached = past(Mux(unit.start, unit.address, following))
    bench.m.d.comb += following.eq(Mux(axi.arvalid, axi.araddr + ((axi.arlen + 1) << 5), reached))
    bench.check("AR: each begins where the one before ended", ~offered | (axi.araddr == reached))
    bench.reach("a second burst", offered & past(past(past(past(axi.arvalid & axi.arready)))))


def _order(bench, ahead):
    unit, _, _, _, outstanding = _fetch(bench, ahead=ahead, everywhere=True, exact=True, rules=False)
    axi = unit.axi
    # A program that runs on beyond the address space ends with a fault, which is no instruction.
    leaves = unit.o.valid & unit.o.ready & (unit.o.p.fault != Fault.WINDOW)
    bits, error = unit.o.p.bits, unit.o.p.fault == Fault.BUS_READ
    inside = follow(bench, "instructions", axi.rvalid & axi.rready, Cat(axi.rdata[0], axi.rresp[1]), leaves,
                    Cat(bits[0], error), ahead)
    requested = Signal(range(2 * ahead + 2))
    bench.m.d.sync += requested.eq(requested + Mux(axi.arvalid & axi.arready, axi.arlen + 1, 0) - leaves)
    bench.check(f"at most {ahead} instructions requested ahead", requested <= ahead)
    bench.stable("instructions", unit.o.valid, unit.o.ready, unit.o.p.fault, bits[0])
    bench.check("finished only when nothing is offered, outstanding or inside",
                ~unit.finished | ~axi.arvalid & (outstanding == 0) & (inside == 0))


@proof("Fetch without a window: no more instructions ahead than have room; each leaves once, in order, with its error",
       depth=18, reach=24)
def fetch_order(bench):
    _order(bench, _AHEAD)


@proof("the same with room for 3 instructions, in bursts of 2")
def fetch_order_3(bench):
    with shallow(fetch, _BUFFERED=3, _BURST=2):
        _order(bench, 3)


@proof("Fetch with room for 3 instructions: a fault of the window comes behind all that was requested, and is the last",
       depth=18)
def fetch_fault(bench):
    with shallow(fetch, _BUFFERED=3, _BURST=2):
        unit, _, _, _, outstanding = _fetch(bench, ahead=3, exact=True, rules=False)
    axi = unit.axi
    outside = unit.o.valid & (unit.o.p.fault == Fault.WINDOW)
    bench.check("nothing is offered or outstanding", ~outside | (~axi.arvalid & (outstanding == 0)))
    bench.check("nothing follows", ~bench.past(outside) | outside)
    bench.reach("a fault behind an instruction", outside & bench.past(unit.o.valid & unit.o.ready & ~outside))


@proof("Fetch with room for 3 instructions: under a fair bus one leaves, or the program is over, every 16 cycles",
       depth=36)
def fetch_progress(bench):
    with shallow(fetch, _BUFFERED=3, _BURST=2):
        unit, _, _, started, _ = _fetch(bench, ahead=3, everywhere=True, fair=2, exact=True, rules=False, count=False)
    bench.within("the next instruction", 16, started & ~unit.finished & ~unit.halt, unit.o.valid)
    bench.reach("the end of a program", started & unit.finished & bench.past(unit.o.valid))
