"""Data path of the store unit: rows and tiles become the beats of bursts."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from .dma_address import Setup
from .dma_bytes import at_least, float32_to_uint8, rotate
from .dma_load import APART
from .interfaces import EXPONENT, TileRead, VectorRead, lanes, mantissas
from .isa import DataFormat

__all__ = ["Cause", "Demand", "Step", "RowReader", "ByteAligner"]


class Cause(enum.IntEnum, shape=2):
    """Why a beat does not write."""
    NONE = 0
    OUTSIDE = 1
    LOCAL_ADDRESS = 2
    NON_FINITE = 3


class Demand(data.StructLayout):
    """A beat to be made: ``count`` (1 to bus_bytes) bytes that end at byte ``end``.

    With ``outside`` there is no beat: here the instruction leaves the window. ``burst_end``,
    ``group_end`` and ``last`` mark the last beat of a burst, of a group of rows, of the instruction.
    """
    def __init__(self, config):
        offset = exact_log2(config.bus_bytes)
        super().__init__({
            "count": unsigned(offset + 1), "end": unsigned(offset), "burst_end": unsigned(1),
            "group_end": unsigned(1), "last": unsigned(1), "outside": unsigned(1),
        })


class Step(data.StructLayout):
    """What `ByteAligner` does with what the local memories return in the same cycle.

    Fields
    ------
    read : 1 bit
        A row of the vector memory returns; else the one before is still in use.
    tile, exponent, pixels : 1 bit
        The line of a tile, or its exponent, returns; the row consists of pixels.
    index : bits
        Part of the row, of bus_bytes bytes, that is in turn.
    complete, upper : 1 bit
        New bytes are ready (bus_bytes; N for pixels and tiles, that go to the upper or lower half).
    keep : 1 bit
        From byte ``position`` on, new bytes must not replace the residue.
    emit : 1 bit
        A beat leaves: byte ``position`` comes first, at ``start`` = ``position`` + ``shift``; the last one
        at ``end``.
    burst_end, last : 1 bit
        As in `Demand`.
    cause : Cause
    """
    def __init__(self, config):
        offset = exact_log2(config.bus_bytes)
        super().__init__({
            "read": unsigned(1), "tile": unsigned(1), "exponent": unsigned(1), "pixels": unsigned(1),
            "index": unsigned(ceil_log2(config.row_bytes // config.bus_bytes)),
            "complete": unsigned(1), "upper": unsigned(1), "keep": unsigned(1), "emit": unsigned(1),
            "position": unsigned(offset), "shift": unsigned(offset), "start": unsigned(offset),
            "end": unsigned(offset),
            "burst_end": unsigned(1), "last": unsigned(1), "cause": Cause,
        })


class RowReader(wiring.Component):
    """Reads the rows and lines that beats need, no more and none twice.

    One beat per cycle for FLOAT32, and for BFP8 where the bus is N bytes wide; with 2 N bytes one in two
    cycles. UINT8 takes a cycle for each bus_bytes of float32, so a beat takes 4.

    Parameters
    ----------
    config : Config

    Members
    -------
    setup : In(stream of Setup)
        One for each instruction.
    i : In(stream of Demand)
    vector, tile : Out(VectorRead), Out(TileRead)
        Without their data, which go to `ByteAligner`.
    room : In(1)
        A beat more may be taken from ``i``.
    stop : In(1)
        Read nothing any more; beats leave empty.
    step, stepped : Out(Step), Out(1)
        What to do in the next cycle, valid if ``stepped``.
    active, blocked : Out(1)
        An instruction is in execution; a memory does not give its row.
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "setup": In(stream.Signature(Setup)), "i": In(stream.Signature(Demand(config))),
            "vector": Out(VectorRead(config)), "tile": Out(TileRead(config)),
            "room": In(1), "stop": In(1), "step": Out(Step(config)), "stepped": Out(1),
            "active": Out(1), "blocked": Out(1),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        config, need = self.config, self.i.p
        size, bus = config.size, config.bus_bytes
        offset, parts = exact_log2(bus), config.row_bytes // bus
        tiles, pixels, dead = Signal(), Signal(), Signal()

        # The next row, or line of a tile; whether it is beyond the memory.
        depths = ceil_log2(config.tiles), ceil_log2(config.vector_rows)
        local, index, beyond, highest = Signal(max(depths)), Signal(range(parts)), Signal(), Signal()
        line, exponent_line = Signal(exact_log2(size)), Signal()
        m.d.comb += highest.eq(Mux(tiles, local[:depths[0]].all(), local[:depths[1]].all()))

        # Bytes of the group that were read but not yet written begin at `position`.
        available, position = Signal(offset), Signal(offset)
        upper, narrow = Signal(), Signal()
        fetch, enough, wrong, complete = Signal(), Signal(), Signal(), Signal()
        held, move, emit = Signal(), Signal(), Signal()
        able, ends = Signal(attrs=APART), Signal(attrs=APART)
        if bus == size:
            m.d.comb += enough.eq(1)
        else:
            m.d.comb += [narrow.eq(tiles | pixels), enough.eq(~narrow | (available + size >= need.count))]
        m.d.comb += [
            fetch.eq((available < need.count) & ~need.outside & ~dead & ~self.stop),
            wrong.eq(fetch & beyond & (tiles | (index == 0))),
            complete.eq(fetch & ~wrong & (~pixels | (index == parts - 1))),
            # The memories answer late: what else must hold is known by then.
            able.eq(self.i.valid & self.room & (self.active | ~fetch)),
            ends.eq(able & (~fetch | wrong | (complete & enough))),
            move.eq(able & ~self.blocked), emit.eq(ends & ~self.blocked), self.i.ready.eq(emit),
        ]

        # What was decided is held while a memory does not give the row.
        step = self.step
        m.d.comb += [
            self.blocked.eq(((self.vector.valid & ~self.vector.ready) | (self.tile.valid & ~self.tile.ready))
                            & ~self.stop),
            self.stepped.eq(held & ~self.blocked),
            step.read.eq(self.vector.valid), step.tile.eq(self.tile.valid),
        ]
        with m.If(~self.blocked):
            m.d.sync += [held.eq(move), self.vector.valid.eq(0), self.tile.valid.eq(0)]
        start = Signal(offset)
        m.d.comb += start.eq(need.end - (need.count - 1)[:offset])
        with m.If(move):
            m.d.sync += [
                self.vector.valid.eq(fetch & ~wrong & ~tiles & (index == 0)),
                self.tile.valid.eq(fetch & ~wrong & tiles),
                self.vector.row.eq(local), self.tile.tile.eq(local), self.tile.line.eq(line),
                step.exponent.eq(exponent_line), step.pixels.eq(pixels), step.index.eq(Mux(tiles, 0, index)),
                step.complete.eq(complete), step.upper.eq(upper),
                step.keep.eq(Mux(narrow, available > size, available != 0)),
                step.emit.eq(emit), step.position.eq(position),
                step.shift.eq(start - position), step.start.eq(start), step.end.eq(need.end),
                step.burst_end.eq(need.burst_end), step.last.eq(need.last),
                step.cause.eq(Mux(need.outside, Cause.OUTSIDE, Mux(wrong, Cause.LOCAL_ADDRESS, Cause.NONE))),
            ]

        with m.If(self.stop | (move & wrong)):
            m.d.sync += dead.eq(1)
        with m.If(move & fetch & ~wrong):
            with m.If(tiles):
                m.d.sync += exponent_line.eq(~exponent_line & (line == size - 1))
                with m.If(~exponent_line):
                    m.d.sync += line.eq(line + 1)
            with m.Else():
                m.d.sync += index.eq(index + 1)
        with m.If(move & fetch & Mux(tiles, ~exponent_line & (line == size - 1), index == 0)):
            m.d.sync += [local.eq(local + 1), beyond.eq(beyond | highest)]
        with m.If(move):
            gained = Mux(complete & narrow, size, 0)  # a whole word more is the same modulo its size
            m.d.sync += [available.eq(available + gained - Mux(emit, need.count, 0)),
                         upper.eq(upper ^ (complete & narrow))]
        with m.If(emit):
            m.d.sync += position.eq(position + need.count)
            with m.If(need.group_end):
                m.d.sync += [position.eq(0), available.eq(0), upper.eq(0), index.eq(0)]
            with m.If(need.last):
                m.d.sync += self.active.eq(0)

        setup = self.setup.p
        m.d.comb += self.setup.ready.eq(~self.active)
        with m.If(~self.active & self.setup.valid):
            m.d.sync += [
                self.active.eq(1), local.eq(setup.local), exponent_line.eq(1),
                tiles.eq(setup.format == DataFormat.BFP8), pixels.eq(setup.format == DataFormat.UINT8),
                beyond.eq(Mux(setup.format == DataFormat.BFP8, *(setup.local[depth:].any() for depth in depths))),
            ]
        return m


class ByteAligner(wiring.Component):
    """Converts, aligns and strobes, in a pipeline that never waits.

    ::

        row -> register -> part -> shift -> pixels -> residue -> rotate -> strobes -> o
                  0          1       2        3         4 (and merge)         5

    Parameters
    ----------
    config : Config

    Members
    -------
    step, stepped : In(Step), In(1)
        From `RowReader`, in the cycle in which it reads.
    row, line, exponent : In
        Data of the ports of the vector memory, in the cycle after, and of the tile memory, one later.
    stop : In(1)
        Write nothing any more.
    o_data, o_strobes, o_end : Out
        A beat, valid for one cycle if ``o_valid``; ``o_end`` with the last one of a burst.
    ended, last, cause : Out(1), Out(1), Out(Cause)
        For one cycle after the last beat of a burst is out: whether the instruction ends with it, and what
        was found wrong so far. Once something was, strobes are zero.
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "step": In(Step(config)), "stepped": In(1), "stop": In(1),
            "row": In(lanes(config)), "line": In(mantissas(config)), "exponent": In(EXPONENT),
            "o_valid": Out(1), "o_data": Out(8 * config.bus_bytes), "o_strobes": Out(config.bus_bytes),
            "o_end": Out(1), "ended": Out(1), "last": Out(1), "cause": Out(Cause),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        steps = [Signal(Step(self.config), name=f"step{i}", reset_less=True) for i in range(6)]
        valid = [Signal(name=f"stepped{i}") for i in range(6)]
        for step, before in zip(steps, [self.step, *steps], strict=False):
            m.d.sync += step.eq(before)
        for one, before in zip(valid, [self.stepped, *valid], strict=False):
            m.d.sync += one.eq(before)

        new = self._convert(m, self._part(m, steps, valid[0]), steps[3], valid[3])
        turned, wanted = self._align(m, new, steps[4], valid[4])
        self._finish(m, turned, wanted, steps[5], valid[5])
        return m

    def _part(self, m, steps, valid):
        """What is in turn of the row in use, which stays in a register, or the line of a tile, or its exponent."""
        width = 8 * self.config.bus_bytes
        row = Signal(8 * self.config.row_bytes, reset_less=True)
        with m.If(valid & steps[0].read):
            m.d.sync += row.eq(self.row)
        part, chosen, step = Signal(width, reset_less=True), Signal(width), steps[1]
        with m.Switch(step.index):
            for index in range(len(row) // width):
                with m.Case(index):
                    m.d.comb += chosen.eq(row[width * index:width * (index + 1)])
        extended = Cat(self.exponent, self.exponent[-1].replicate(16 - len(self.exponent)))
        m.d.sync += part.eq(Mux(step.tile, Mux(step.exponent, extended, self.line), chosen))
        return part

    def _convert(self, m, part, step, valid):
        """Bytes with a flag above each: not finite. Pixels gather from several parts. Two stages."""
        size, bus = self.config.size, self.config.bus_bytes
        converted = [Cat(*float32_to_uint8(m, part[32 * i:32 * i + 32])) for i in range(bus // 4)]
        delayed = Signal.like(part, reset_less=True)
        m.d.sync += delayed.eq(part)
        plain = [Cat(delayed[8 * i:8 * i + 8], C(0, 1)) for i in range(bus)]
        new = Signal(9 * bus, reset_less=True)
        low = Mux(step.pixels, Cat(new[9 * bus // 4:9 * size], *converted), Cat(plain[:size]))
        with m.If(valid):
            m.d.sync += new[:9 * size].eq(low)
            if bus != size:
                narrow = step.pixels | step.tile
                m.d.sync += new[9 * size:].eq(Mux(narrow, low, Cat(plain[size:])))
        return new

    def _align(self, m, new, step, valid):
        bus = self.config.bus_bytes
        residue, turned = Signal(9 * bus, reset_less=True), Signal(9 * bus, reset_less=True)
        merged = Signal(9 * bus)
        kept = at_least(m, step.position, bus, 9) & step.keep.replicate(9 * bus)
        target = step.complete.replicate(9 * bus)
        if bus != self.config.size:
            half = 9 * bus // 2
            wide = ~(step.pixels | step.tile)
            target = Cat((step.complete & (wide | ~step.upper)).replicate(half),
                         (step.complete & (wide | step.upper)).replicate(half))
        m.d.comb += merged.eq((new & target & ~kept) | (residue & ~(target & ~kept)))
        m.d.sync += turned.eq(rotate(m, merged, step.shift, 9))
        for i in range(0, 9 * bus, 9):
            with m.If(valid & target[i]):
                m.d.sync += residue[i:i + 9].eq(new[i:i + 9])
        wanted = Signal(bus, reset_less=True)
        m.d.sync += wanted.eq(at_least(m, step.start, bus, 1) & Cat(step.end >= i for i in range(bus)))
        return turned, wanted

    def _finish(self, m, turned, wanted, step, valid):
        bus = self.config.bus_bytes
        bad, infinite, silent = Signal(bus), Signal(), Signal()
        found, cause = Signal(Cause), Signal(Cause)
        m.d.comb += [
            bad.eq(Cat(turned[9 * i + 8] for i in range(bus))),
            # Outside there is no burst, whatever was found before, and so no response.
            cause.eq(Mux((found != Cause.NONE) & (step.cause != Cause.OUTSIDE), found, Mux(
                step.cause != Cause.NONE, step.cause, Mux(infinite, Cause.NON_FINITE, Cause.NONE)))),
            infinite.eq((bad & wanted).any()),
            silent.eq((found != Cause.NONE) | (step.cause != Cause.NONE) | self.stop),
            self.o_valid.eq(valid & step.emit & (step.cause != Cause.OUTSIDE)),
            self.o_data.eq(Cat(turned[9 * i:9 * i + 8] for i in range(bus))),
            self.o_strobes.eq(Mux(silent | infinite, 0, wanted)),
            self.o_end.eq(step.burst_end),
            self.ended.eq(valid & step.emit & step.burst_end), self.last.eq(step.last), self.cause.eq(cause),
        ]
        with m.If(valid & step.emit):
            m.d.sync += found.eq(cause)
