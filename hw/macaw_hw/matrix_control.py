"""The two halves of the matrix unit's control: one loads weights, the other streams activations."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .accumulator import Accumulator, result_layout
from .interfaces import TileRead
from .isa import MATRIX

__all__ = ["WeightLoader", "Streamer"]


class WeightLoader(wiring.Component):
    """Reads the W tiles of instructions, line after line, one tile ahead of the `Streamer`.

    A tile is ``full`` once its last line is requested, and the next one is begun when the streamer has
    ``taken`` it, in that very cycle if possible.

    Parameters
    ----------
    config : Config

    Members
    -------
    instruction : In(layout of MATRIX), start : In(1), ready : Out(1)
        With ``start``, allowed while ``ready``, the unit begins the instruction.
    w : Out(TileRead)
        Its data is meant for the array.
    o_load, o_row : Out
        ``w`` carries line ``o_row`` of the tile.
    full : Out(1), taken : In(1)
        The next tile is there for the taking.
    out_of_range : Out(1)
        The next tile does not exist; the unit has stopped.
    """

    def __init__(self, *, config):
        self._config = config
        line = ceil_log2(config.size)
        super().__init__({
            "instruction": In(MATRIX.layout), "start": In(1), "ready": Out(1),
            "w": Out(TileRead(config)), "o_load": Out(1), "o_row": Out(line),
            "full": Out(1), "taken": In(1), "out_of_range": Out(1),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        active = Signal()
        transpose = Signal()
        tile = Signal(16)
        stride = Signal(16)
        remaining = Signal(16)
        line = Signal.like(self.w.line)
        issue = Signal()
        last_line = Signal()
        last_tile = Signal()
        m.d.comb += [
            self.out_of_range.eq(active & tile[len(self.w.tile):].any()),
            self.w.valid.eq(active & ~self.out_of_range & ((line != 0) | ~self.full | self.taken)),
            self.w.tile.eq(tile), self.w.line.eq(line), self.w.transpose.eq(transpose),
            issue.eq(self.w.valid & self.w.ready),
            last_line.eq(line == self.config.size - 1), last_tile.eq(remaining == 1),
            self.ready.eq(~active | (issue & last_line & last_tile)),
        ]
        m.d.sync += [self.o_load.eq(issue), self.o_row.eq(line)]
        with m.If(self.taken):
            m.d.sync += self.full.eq(0)
        with m.If(issue):
            m.d.sync += line.eq(line + 1)
            with m.If(last_line):
                m.d.sync += [self.full.eq(1), tile.eq(tile + stride), remaining.eq(remaining - 1),
                             active.eq(~last_tile)]
        with m.If(self.start):
            m.d.sync += [
                active.eq(1), transpose.eq(self.instruction.w_transpose), tile.eq(self.instruction.w),
                stride.eq(self.instruction.w_k_stride), remaining.eq(self.instruction.k_tiles),
            ]
        return m


class Streamer(wiring.Component):
    """Reads the X lines of instructions, one per cycle, and says where their results go.

    An instruction is ``k_tiles`` passes over its rows. A pass waits for its W tile; and a row of Y that is added to
    comes `Accumulator.loop` cycles after it came before at the earliest, be it in the pass before, in the instruction
    before, or (with ``y_stride`` 0) in the same pass.

    Parameters
    ----------
    config : Config
    drain : int
        Cycles after which the results of a row are in memory and its instruction is done.

    Members
    -------
    instruction : In(layout of MATRIX), start : In(1), ready : Out(1)
        With ``start``, allowed while ``ready``, the unit takes the instruction; it holds two.
    full : In(1), taken : Out(1), w_out_of_range : In(1)
        To and from the weight loader.
    x : Out(TileRead)
        Its data is meant for the array.
    o_valid, o_first : Out(1), o_result : Out(result_layout)
        ``x`` carries a line; it is the first with the next W tile; what becomes of it.
    fault : Out(1)
        An address is out of range and all earlier instructions are done. The unit has stopped.
    """

    def __init__(self, *, config, drain):
        self._config = config
        self._drain = drain
        super().__init__({
            "instruction": In(MATRIX.layout), "start": In(1), "ready": Out(1),
            "full": In(1), "taken": Out(1), "w_out_of_range": In(1),
            "x": Out(TileRead(config)),
            "o_valid": Out(1), "o_first": Out(1), "o_result": Out(result_layout(config)),
            "fault": Out(1),
        })

    @property
    def config(self):
        return self._config

    @property
    def drain(self):
        return self._drain

    def elaborate(self, platform):
        m = Module()
        pending = Signal(MATRIX.layout, reset_less=True)
        waiting = Signal()
        move = Signal()
        current = Signal(MATRIX.layout, reset_less=True)
        active = Signal()
        step = Signal()
        issue = Signal()
        first_row = Signal()
        last_row = Signal()
        first_pass = Signal()
        last_pass = Signal()
        age = Signal(range(self.drain + 1), init=self.drain)
        # The row that is asked for; the walk is one ahead.
        row = data.StructLayout({
            "x": len(self.x.tile), "y": len(self.o_result.row), "line": len(self.x.line), "transpose": 1,
            "first": 1, "fresh": 1, "last": 1, "outside": 1})
        asked = Signal(row, reset_less=True)
        asking = Signal()
        m.d.comb += [
            issue.eq(self.x.valid & self.x.ready),
            step.eq(active & (~asking | issue)),
            last_pass.eq(current.k_tiles == 1),
            move.eq(waiting & (~active | (step & last_row & last_pass))),
            self.ready.eq(~waiting | move),
            self.taken.eq(issue & asked.first),
        ]

        with m.If(issue):
            m.d.sync += age.eq(1)
        with m.Elif(age != self.drain):
            m.d.sync += age.eq(age + 1)
        x, y, line = self._walk(m, pending, move, current, step, last_row, first_row)
        with m.If(step):
            m.d.sync += [
                asked.x.eq(x), asked.y.eq(y), asked.line.eq(line), asked.transpose.eq(current.x_transpose),
                asked.first.eq(first_row), asked.fresh.eq(first_pass & ~current.accumulate),
                asked.last.eq(last_row & last_pass),
                asked.outside.eq(x[len(asked.x):].any() | y[len(asked.y):].any()),
            ]
        m.d.sync += asking.eq(step | asking & ~issue)

        bad = Signal()
        hazard = self._hazard(m, y[:len(asked.y)], step, asked, issue)
        m.d.comb += [
            bad.eq(asked.outside | (asked.first & ~self.full & self.w_out_of_range)),
            self.x.tile.eq(asked.x), self.x.line.eq(asked.line), self.x.transpose.eq(asked.transpose),
            self.x.valid.eq(asking & ~asked.outside & ~hazard & (self.full | ~asked.first)),
        ]
        m.d.sync += [
            self.fault.eq(asking & bad & (age == self.drain)),
            self.o_valid.eq(issue), self.o_first.eq(asked.first),
            self.o_result.row.eq(asked.y), self.o_result.fresh.eq(asked.fresh), self.o_result.last.eq(asked.last),
        ]

        with m.If(step & last_row):
            m.d.sync += [current.k_tiles.eq(current.k_tiles - 1), first_pass.eq(0), active.eq(~last_pass)]
        with m.If(move):
            m.d.sync += [active.eq(1), current.eq(pending), first_pass.eq(1), waiting.eq(0)]
        with m.If(self.start):
            m.d.sync += [pending.eq(self.instruction), waiting.eq(1)]
        return m

    def _hazard(self, m, following, step, asked, issue):
        """Whether the row that is asked for was issued so recently that its old value is not there.

        It is compared when it is taken from the walk, as ``following``; from then on, what was found grows older.
        """
        recent = [Signal(data.StructLayout({"valid": 1, "row": len(asked.y)}), name=f"recent{i}")
                  for i in range(Accumulator.loop - 2)]
        m.d.sync += [recent[0].eq(Cat(issue, asked.y)),
                     *(after.eq(before) for before, after in zip(recent, recent[1:], strict=False))]
        same = Signal(Accumulator.loop - 1)
        with m.If(step):
            m.d.sync += same.eq(Cat(issue & (asked.y == following),
                                    *(one.valid & (one.row == following) for one in recent)))
        with m.Else():
            m.d.sync += same.eq(same << 1)
        return same.any() & ~asked.fresh

    def _walk(self, m, pending, move, current, step, last_row, first_row):
        """X tile, Y row and line of the next row: signals."""
        x = Signal(16, reset_less=True)
        y = Signal(16, reset_less=True)
        left = Signal(16, reset_less=True)
        line = Signal.like(self.x.line)
        next_x = Signal(16)
        m.d.comb += [last_row.eq(left == 1), next_x.eq(current.x + current.x_k_stride)]
        with m.If(step):
            m.d.sync += [y.eq(y + current.y_stride), left.eq(left - 1), line.eq(line + 1), first_row.eq(0)]
            with m.If(line == self.config.size - 1):
                m.d.sync += x.eq(x + current.x_row_stride)
            with m.If(last_row):
                m.d.sync += [current.x.eq(next_x), x.eq(next_x), y.eq(current.y), left.eq(current.rows),
                             line.eq(0), first_row.eq(1)]
        with m.If(move):
            m.d.sync += [x.eq(pending.x), y.eq(pending.y), left.eq(pending.rows), line.eq(0), first_row.eq(1)]
        return x, y, line
