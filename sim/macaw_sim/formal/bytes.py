"""Byte alignment of the load unit: every byte that counts arrives once, in order, at its place."""

from amaranth.hdl import Mux, Signal
from amaranth.utils import exact_log2
from macaw_hw import dma_bytes

from .bench import proof
from .bursts import SMALL

__all__ = ["byte_packer"]

_WORDS = 8
"""Words are numbered modulo this; far fewer are under way."""
_BIT = 5
"""The bit that is followed; the others move in the same way."""


@proof("BytePacker: any byte of any beat comes out in its word of its group at its place; ends of groups, too",
       reach=12)
def byte_packer(bench):
    m = bench.m
    unit = dma_bytes.BytePacker(config=SMALL)
    bench.add("packer", unit, "i")
    size = SMALL.bus_bytes
    beat, word = unit.i.p, unit.o.p
    bench.offer(unit.i.valid, unit.i.ready, beat)
    good = (beat.start <= beat.end) & ~beat.error & ~beat.outside & (~beat.last | beat.group_end)
    bench.assume(~unit.i.valid | good)
    bench.stable("words", unit.o.valid, unit.o.ready, word)

    # The next byte that counts goes to place `fill` of word `number`.
    begun, ended = unit.i.valid & unit.i.ready, unit.o.valid & unit.o.ready
    fill, number, arrived = Signal(exact_log2(size)), Signal(range(_WORDS)), Signal(range(_WORDS))
    lane = bench.constant(exact_log2(size), "lane")
    place, final, beyond = (Signal(range(2 * size + 1), name=name) for name in ("place", "final", "beyond"))
    m.d.comb += [place.eq(fill + (lane - beat.start)), final.eq(fill + (beat.end - beat.start)), beyond.eq(final + 1)]
    with m.If(begun):
        m.d.sync += [fill.eq(Mux(beat.group_end, 0, beyond)),
                     number.eq(number + Mux(beat.group_end, final // size + 1, beyond // size))]
    m.d.sync += arrived.eq(arrived + ended)

    followed, value, group_end, last = Signal(), Signal(), Signal(), Signal()
    where, target = Signal(exact_log2(size)), Signal(range(_WORDS))
    hit = followed & ended & (arrived == target)
    counts = (beat.start <= lane) & (lane <= beat.end)
    with m.If(bench.free(1, "pick") & begun & counts & ~followed):
        m.d.sync += [followed.eq(1), value.eq(beat.data.word_select(lane, 8)[_BIT]),
                     where.eq(place), target.eq(number + place // size),
                     group_end.eq(beat.group_end & (lane == beat.end)), last.eq(beat.last)]
    with m.Elif(hit):
        m.d.sync += followed.eq(0)
    bench.check("the byte is at its place", ~hit | (word.data.word_select(where, 8)[_BIT] == value))
    bench.check("the last byte of a group ends it", ~(hit & group_end) | (word.group_end & (word.last == last)))
    bench.check("no error comes from nowhere", ~unit.o.valid | ~(word.error | word.outside))
    bench.within("a byte that is followed", 3, followed & (group_end | (arrived != target)) & unit.o.ready, ended)
    bench.reach("the last byte of a group in a word of its own", hit & group_end & (where == 0))
