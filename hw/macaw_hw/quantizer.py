"""Quantizer: float32 rows become bfp8 tiles."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .float32 import Float32
from .interfaces import TileWrite, lanes
from .memory_init import BLOCK

__all__ = ["ExponentMaximum", "Kept", "QuantizerLane", "Quantizer"]

_LATENCY = 30
"""Cycles from the reservation of a row to its return, beyond the N that a tile takes to fill."""
_BIAS = 127 + 6


class ExponentMaximum(wiring.Component):
    """The largest exponent field of a row, :attr:`latency` cycles later. One row per cycle.

    Parameters
    ----------
    size : int
        Lanes, a power of two.

    Members
    -------
    row : In(N x 32)
    o : Out(8)
    """

    def __init__(self, *, size):
        self._size = size
        super().__init__({"row": In(data.ArrayLayout(32, size)), "o": Out(8)})

    @property
    def size(self):
        return self._size

    @property
    def latency(self):
        """Two levels of comparisons per register."""
        return (ceil_log2(self.size) + 1) // 2

    def elaborate(self, platform):
        m = Module()
        values = [Float32(self.row[i]).exponent for i in range(self.size)]
        level = 0
        while len(values) > 1:
            level += 1
            registered = level % 2 == 0 or len(values) == 2
            results = [Signal(8, name=f"largest{level}_{i}", reset_less=True) for i in range(len(values) // 2)]
            pairs = zip(values[::2], values[1::2], strict=True)
            m.d[("comb", "sync")[registered]] += [
                result.eq(Mux(a > b, a, b)) for result, (a, b) in zip(results, pairs, strict=True)]
            values = results
        m.d.comb += self.o.eq(values[0])
        return m


Kept = data.StructLayout({"sticky": 1, "mantissa": 7, "exponent": 8, "sign": 1})
"""What `QuantizerLane` needs of an element."""


class QuantizerLane(wiring.Component):
    """One lane: what is kept of an element until the tile's exponent is known, and how it is rounded then.

    ::

        i -> kept            stored -> | register | -> exponent difference | -> shift, round, clip | -> o

    Only what rounding can need is kept of an element: its sign, exponent, eight significant bits and whether any
    bit below is set. The three stages advance with ``advance``.

    Members
    -------
    i : In(32)
        Bits of a normalised float32.
    kept : Out(Kept)
        What of it is to be stored. Combinational.
    stored : In(Kept)
    advance : In(1)
    largest : In(8)
        Exponent field of the tile, one ``advance`` later than ``stored``.
    blank : In(1)
        Zero instead of what was stored, along with ``largest``.
    o : Out(signed(8))
        ``clip(rne(i * 2^(133 - largest)), -127, 127)``, two ``advance`` later than ``largest``.
    """

    i: In(32)
    kept: Out(Kept)
    stored: In(Kept)
    advance: In(1)
    largest: In(8)
    blank: In(1)
    o: Out(signed(8))

    def elaborate(self, platform):
        m = Module()
        f = Float32(self.i)
        element = Signal(Kept, reset_less=True)
        m.d.comb += [
            self.kept.sticky.eq(f.mantissa[:16].any()), self.kept.mantissa.eq(f.mantissa[16:]),
            self.kept.exponent.eq(f.exponent), self.kept.sign.eq(f.sign),
        ]

        # Value 1.mantissa: seven integer bits, one to round by, one that is sticky.
        value = Signal(9, reset_less=True)
        sign = Signal(reset_less=True)
        distance = Signal(3, reset_less=True)
        difference = Signal(8)
        m.d.comb += difference.eq(self.largest - element.exponent)
        with m.If(self.advance):
            m.d.sync += [
                element.eq(self.stored),
                # Shifted by 8 places or more, it would round to zero.
                value.eq(Mux(self.blank | (element.exponent == 0) | difference[3:].any(), 0,
                             Cat(element.sticky, element.mantissa, 1))),
                sign.eq(element.sign),
                distance.eq(difference),
            ]

        pairs = Signal(9)
        shifted = Signal(9)
        up = Signal()
        result = Signal(8, reset_less=True)
        lost = (distance[1:].any() & value[:2].any() | distance[2] & value[2:4].any()
                | distance[1:].all() & value[4:6].any() | distance[0] & pairs[0])
        m.d.comb += [
            pairs.eq(Mux(distance[2], Mux(distance[1], value >> 6, value >> 4), Mux(distance[1], value >> 2, value))),
            shifted.eq(Mux(distance[0], pairs >> 1, pairs)),
            up.eq(shifted[1] & (shifted[0] | lost | shifted[2]) & ~shifted[2:].all()),
            self.o.eq(result),
        ]
        with m.If(self.advance):
            # The complement lacks one to the negative.
            m.d.sync += result.eq(Cat(shifted[2:] ^ sign.replicate(7), sign) + (up ^ sign))
        return m


class Quantizer(wiring.Component):
    """Collects rows of float32 and writes them as bfp8 tiles, one row per cycle throughout.

    ::

        row --+--> memory: rows of several tiles --> QuantizerLane x N: shift, round --> tile
              |                                                         |
              +--> ExponentMaximum --> of the tile --> tiles' FIFO -----+

    A tile ends after N rows, or earlier with a row that is ``end``; the rows that it lacks are zeros. With
    largest element ``x``, the exponent is ``E = floor(log2 |x|) - 6`` (0 for a tile of zeros) and a mantissa
    ``clip(rne(value * 2^-E), -127, 127)``.

    There is no backpressure on rows: whoever starts to compute one reserves its place before, with
    ``reserve`` in a cycle where ``room`` is set.

    Parameters
    ----------
    config : Config

    Members
    -------
    reserve : In(1), room : Out(1)
    row : In(N x 32), valid, end, last : In(1)
        A normalised row; the last of its inner loop; the last of all.
    address : In(16)
        Tile for the oldest rows that were not written; goes on after a cycle with ``next``.
    next, wrap, over : Out(1)
        The tile at ``address`` is on its way; it ended with a row that was ``end``; that was ``last``.
    hold : In(1)
        No tile sets out, as the next ``address`` is not there yet.
    tile : Out(TileWrite)
    finished : Out(1)
        Pulse: the tile that ended with the ``last`` row was written.
    idle : Out(1)
        No tile is complete but not written, except behind one that is ``outside`` and while in ``hold``.
    outside : Out(1)
        A complete tile waits until reset because there is no tile ``address``.
    non_finite : Out(1)
        There was an infinity or a NaN in a tile. Neither this tile nor any later one is written, until
        reset; apart from that, all goes on.
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "reserve": In(1), "room": Out(1),
            "row": In(lanes(config)), "valid": In(1), "end": In(1), "last": In(1),
            "address": In(16), "next": Out(1), "wrap": Out(1), "over": Out(1), "hold": In(1),
            "tile": Out(TileWrite(config)),
            "finished": Out(1), "idle": Out(1), "outside": Out(1), "non_finite": Out(1),
        })

    @property
    def config(self):
        return self._config

    @property
    def depth(self):
        """Rows that have room: enough for one row per cycle in spite of the latencies."""
        return 1 << ceil_log2(self.config.size + _LATENCY)

    def elaborate(self, platform):
        m = Module()
        size, depth = self.config.size, self.depth
        layout = data.StructLayout({"largest": 8, "count": ceil_log2(size), "end": 1, "last": 1})
        # As many tiles as rows, if each has but one, and one whose rows are released while its zeros are written.
        m.submodules.tiles = tiles = SyncFIFOBuffered(width=layout.size, depth=depth + 1)
        lane = [QuantizerLane() for _ in range(size)]
        for i in range(size):
            m.submodules[f"lane{i}"] = lane[i]

        # One place may have been reserved since, so that the last one is never used.
        release = Signal()
        free = Signal(range(depth + 1), init=depth)
        m.d.sync += [free.eq(free - self.reserve + release), self.room.eq(free[1:].any())]

        complete, rows = self._collect(m, layout, lane, tiles)
        written, moving = self._emit(m, layout(tiles.r_data), lane, tiles, rows.read_port(), release)

        pending = Signal(range(depth + 1))
        m.d.sync += pending.eq(pending + complete - written)
        m.d.comb += self.idle.eq((pending == 0) | (self.outside | self.hold) & ~moving)
        return m

    def _collect(self, m, layout, lane, tiles):
        """Rows into their memory, complete tiles into the FIFO; returns whether a tile is complete, and that memory."""
        m.submodules.maximum = maximum = ExponentMaximum(size=self.config.size)
        count = Signal(ceil_log2(self.config.size))
        write_row = Signal(ceil_log2(self.depth))
        complete = Signal()
        m.d.comb += [
            complete.eq(self.valid & (self.end | (count == self.config.size - 1))),
            maximum.row.eq(self.row),
        ]
        with m.If(self.valid):
            m.d.sync += [write_row.eq(write_row + 1), count.eq(Mux(complete, 0, count + 1))]
        m.submodules.rows = rows = Memory(
            shape=Kept.size * len(lane), depth=self.depth, init=[], attrs=BLOCK)
        write = rows.write_port()
        m.d.comb += [
            write.addr.eq(write_row), write.en.eq(self.valid), write.data.eq(Cat(one.kept for one in lane)),
            *(one.i.eq(self.row[i]) for i, one in enumerate(lane)),
        ]

        # What belongs to a row goes along with the search for its maximum.
        flags = data.StructLayout({"valid": 1, "complete": 1, "count": len(count), "end": 1, "last": 1})
        along = [Signal(flags, name=f"along{i}") for i in range(maximum.latency)]
        m.d.sync += [
            along[0].eq(Cat(self.valid, complete, count, self.end, self.last)),
            *(after.eq(before) for before, after in zip(along, along[1:], strict=False)),
        ]
        running = Signal(8)
        largest = Signal(8)
        described = layout(tiles.w_data)
        m.d.comb += [
            largest.eq(Mux(maximum.o > running, maximum.o, running)),
            described.largest.eq(largest), described.count.eq(along[-1].count),
            described.end.eq(along[-1].end), described.last.eq(along[-1].last),
            tiles.w_en.eq(along[-1].complete),
        ]
        with m.If(along[-1].valid):
            m.d.sync += running.eq(Mux(along[-1].complete, 0, largest))
        return complete, rows

    def _emit(self, m, head, lane, tiles, rows, release):
        """Complete tiles into the memory; returns whether the last row of one leaves, and whether any is on its way."""
        size = self.config.size
        line = Signal(ceil_log2(size))
        read_row = Signal(ceil_log2(self.depth))
        advance = Signal()
        step = Signal()
        stored = Signal()
        infinite = Signal()
        stage = data.StructLayout({
            "present": 1, "dropped": 1, "ended": 1, "last": 1, "blank": 1, "line": len(line),
            "tile": len(self.tile.tile), "largest": 8})
        stages = [Signal(stage, name=f"stage{i}") for i in range(4)]
        m.d.comb += [
            self.outside.eq(tiles.r_rdy & ~self.hold & self.address[ceil_log2(self.config.tiles):].any()),
            step.eq(advance & tiles.r_rdy & ~self.hold & ~self.outside),
            stored.eq(line <= head.count),
            release.eq(step & stored),
            infinite.eq(head.largest == 0xFF),
            self.next.eq(step & (line == size - 1)), self.wrap.eq(head.end), self.over.eq(head.last),
            tiles.r_en.eq(self.next),
        ]
        with m.If(step):
            m.d.sync += [line.eq(line + 1), read_row.eq(read_row + stored)]
            with m.If(infinite):
                m.d.sync += self.non_finite.eq(1)
        with m.If(advance):
            m.d.sync += [
                stages[0].present.eq(step), stages[0].dropped.eq(infinite | self.non_finite),
                stages[0].ended.eq(self.next), stages[0].last.eq(head.last), stages[0].blank.eq(~stored),
                stages[0].line.eq(line), stages[0].tile.eq(self.address), stages[0].largest.eq(head.largest),
                *(after.eq(before) for before, after in zip(stages, stages[1:], strict=False)),
            ]
        m.d.comb += [rows.addr.eq(read_row), rows.en.eq(advance)]
        for i, one in enumerate(lane):
            m.d.comb += [one.stored.eq(rows.data.word_select(i, Kept.size)), one.advance.eq(advance),
                         one.largest.eq(stages[1].largest), one.blank.eq(stages[1].blank)]

        out = stages[-1]
        written = advance & out.present & out.ended
        m.d.comb += [
            self.tile.valid.eq(out.present & ~out.dropped),
            advance.eq(~self.tile.valid | self.tile.ready),
            self.tile.tile.eq(out.tile), self.tile.line.eq(out.line),
            self.tile.data.eq(Cat(one.o for one in lane)),
            self.tile.exponent.eq(Mux(out.largest == 0, 0, out.largest - _BIAS)),
            self.finished.eq(written & out.last),
        ]
        return written, Cat(stage.present for stage in stages).any()
