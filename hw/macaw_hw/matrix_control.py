"""The two halves of the matrix unit's control: one loads weights, the other streams activations."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .accumulator import Accumulator, result_layout
from .delay import delayed
from .interfaces import TileRead
from .isa import MATRIX

__all__ = ["WeightLoader", "Streamer"]


class WeightLoader(wiring.Component):
    """Reads the W tiles of instructions, line after line, one tile ahead of the `Streamer`.

    A tile is ``full`` from the cycle in which its last line is granted until the streamer has ``taken`` it; lines of
    the next one are requested from the cycle after that on, which is the one in which ``x`` is read.

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
        The next tile is there for the taking; it is taken, only while ``full``.
    out_of_range : Out(1)
        The tile behind the one that is ``full``, if any, does not exist; the unit has stopped.
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
        # The next tile, and the one whose lines are requested.
        active, transpose, outside = Signal(), Signal(), Signal()
        tile, stride = Signal(16), Signal(16)
        count, number = Signal(16), Signal(16, init=1)
        line = self.w.line
        issue, ends, begin, kept = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            outside.eq(tile[len(self.w.tile):].any()),
            issue.eq(self.w.valid & self.w.ready), ends.eq(issue & (line == self.config.size - 1)),
            self.full.eq(kept | ends),
            begin.eq(active & ~outside & (self.taken | ~kept & ~self.w.valid)),
            self.out_of_range.eq(active & outside & ~self.w.valid),
            self.ready.eq(~active),
        ]
        asked = Signal()
        m.d.comb += self.o_row.eq(delayed(m, line, 2, "row")[-1])
        m.d.sync += [asked.eq(issue), self.o_load.eq(asked), kept.eq(self.full & ~self.taken),
                     self.w.valid.eq(begin | self.w.valid & ~ends)]
        with m.If(issue):
            m.d.sync += line.eq(line + 1)
        with m.If(begin):
            m.d.sync += [self.w.tile.eq(tile), self.w.transpose.eq(transpose), tile.eq(tile + stride),
                         number.eq(number + 1), active.eq(number != count)]
        with m.If(self.start):
            m.d.sync += [
                active.eq(1), transpose.eq(self.instruction.w_transpose), tile.eq(self.instruction.w),
                stride.eq(self.instruction.w_k_stride), count.eq(self.instruction.k_tiles), number.eq(1),
            ]
        return m


class Streamer(wiring.Component):
    """Reads the X lines of instructions, one per cycle, and says where their results go.

    An instruction is ``k_tiles`` passes over its rows. A pass waits for its W tile; and a row of Y that is added to
    comes `Accumulator.loop` cycles after it came before at the earliest, be it in the pass before, in the instruction
    before, or (with ``y_stride`` 0) in the same pass. What a row has to wait for is known a cycle before it is read:
    ``x`` comes from registers, and must be ready always.

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
        Its data is meant for the array; ready always.
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
        go = Signal()
        first_row = Signal()
        last_row = Signal()
        first_pass = Signal()
        last_pass = Signal()
        # The row that is asked for; the walk is one ahead.
        row = data.StructLayout({
            "x": len(self.x.tile), "y": len(self.o_result.row), "line": len(self.x.line), "transpose": 1,
            "first": 1, "fresh": 1, "last": 1, "outside": 1})
        asked = Signal(row, reset_less=True)
        asking = Signal()
        m.d.comb += [
            step.eq(active & (~asking | go)),
            move.eq(waiting & (~active | (step & last_row & last_pass))),
            self.ready.eq(~waiting),
            self.taken.eq(go & asked.first),
        ]
        # Cycles since the latest row, at most as many as its results may take.
        age = Signal(ceil_log2(self.drain + 1), init=-1)
        with m.If(go):
            m.d.sync += age.eq(0)
        with m.Elif(~age.all()):
            m.d.sync += age.eq(age + 1)
        x, y, outside, line = self._walk(m, pending, move, current, step, last_row, first_row)
        with m.If(step):
            m.d.sync += [
                asked.x.eq(x), asked.y.eq(y), asked.line.eq(line), asked.transpose.eq(current.x_transpose),
                asked.first.eq(first_row), asked.fresh.eq(first_pass & ~current.accumulate),
                asked.last.eq(last_row & last_pass), asked.outside.eq(outside),
            ]
        m.d.sync += asking.eq(step | asking & ~go)

        bad = Signal()
        hazard = self._hazard(m, y, step, asked, go)
        read, valid = Signal(row, reset_less=True), Signal()
        m.d.comb += [
            bad.eq(asked.outside | (asked.first & ~self.full & self.w_out_of_range)),
            go.eq(asking & ~asked.outside & ~hazard & (self.full | ~asked.first)),
            self.x.tile.eq(read.x), self.x.line.eq(read.line), self.x.transpose.eq(read.transpose),
        ]
        m.d.sync += [
            self.fault.eq(asking & bad & age.all()),
            self.x.valid.eq(go), read.eq(asked), valid.eq(self.x.valid), self.o_valid.eq(valid),
        ]
        returned = delayed(m, read, 2, "returned")[-1]
        m.d.comb += [
            self.o_first.eq(returned.first), self.o_result.row.eq(returned.y),
            self.o_result.fresh.eq(returned.fresh), self.o_result.last.eq(returned.last),
        ]

        turn = Signal(16, init=1)
        m.d.comb += last_pass.eq(turn == current.k_tiles)
        with m.If(step & last_row):
            m.d.sync += [turn.eq(turn + 1), first_pass.eq(0), active.eq(~last_pass)]
        with m.If(move):
            m.d.sync += [active.eq(1), current.eq(pending), turn.eq(1), first_pass.eq(1), waiting.eq(0)]
        with m.If(self.start):
            m.d.sync += [pending.eq(self.instruction), waiting.eq(1)]
        return m

    def _hazard(self, m, following, step, asked, go):
        """Whether the row that is asked for was read so recently that its old value is not there.

        It is compared when it is taken from the walk, as ``following``; from then on, what was found grows older.
        """
        recent = [Signal(data.StructLayout({"valid": 1, "row": len(asked.y)}), name=f"recent{i}")
                  for i in range(Accumulator.loop - 2)]
        m.d.sync += [recent[0].eq(Cat(go, asked.y)),
                     *(after.eq(before) for before, after in zip(recent, recent[1:], strict=False))]
        same = Signal(Accumulator.loop - 1)
        with m.If(step):
            m.d.sync += same.eq(Cat(go & (asked.y == following),
                                    *(one.valid & (one.row == following) for one in recent)))
        with m.Else():
            m.d.sync += same.eq(same << 1)
        hazard = Signal()
        m.d.comb += hazard.eq(same.any() & ~asked.fresh)
        return hazard

    def _walk(self, m, pending, move, current, step, last_row, first_row):
        """X tile and Y row of the next row of X, whether one of them is outside of its memory, and its line: signals.

        Addresses outside need not be kept, as nothing goes on from there.
        """
        depths = {"x": len(self.x.tile), "y": len(self.o_result.row)}
        value, beyond, base = ({name: Signal(width, name=f"{prefix}_{name}", reset_less=True)
                                for name, width in (depths if wide else dict.fromkeys(depths, 1)).items()}
                               for prefix, wide in (("walk", 1), ("beyond", 0), ("base", 1)))
        again = Signal()
        turn = {"x": base["x"] + current.x_k_stride, "y": base["y"]}
        line = Signal.like(self.x.line)
        ahead = {"x": (line == self.config.size - 1, value["x"] + current.x_row_stride),
                 "y": (1, value["y"] + current.y_stride)}
        m.d.comb += again.eq(move | step & last_row)
        for name, depth in depths.items():
            begin, after = Signal(16, name=f"begin_{name}"), Signal(16, name=f"after_{name}")
            goes, further = ahead[name]
            m.d.comb += [begin.eq(Mux(move, pending[name], turn[name])), after.eq(Mux(again, begin, further))]
            with m.If(again | step & goes):
                m.d.sync += [value[name].eq(after), beyond[name].eq(after[depth:].any())]
            with m.If(again):
                m.d.sync += base[name].eq(begin)

        # The number, from 1, of the row behind the next one.
        number = Signal(16, init=2)
        single = Signal(reset_less=True)
        with m.If(step):
            m.d.sync += [number.eq(number + 1), last_row.eq(number == current.rows), line.eq(line + 1), first_row.eq(0)]
            with m.If(last_row):
                m.d.sync += [number.eq(2), last_row.eq(single), line.eq(0), first_row.eq(1)]
        with m.If(move):
            only = pending.rows == 1
            m.d.sync += [number.eq(2), single.eq(only), last_row.eq(only), line.eq(0), first_row.eq(1)]
        return value["x"], value["y"], beyond["x"] | beyond["y"], line
