"""A small FIFO for the queues of the DMA engine."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

__all__ = ["RingFIFO"]


class RingFIFO(wiring.Component):
    """Items leave in the order in which they entered, a cycle later at the earliest, one per cycle.

    Ports are those of Amaranth's FIFOs. Whether there is an item, and whether there is room, come from registers, for
    which no level has to be counted; ``level`` costs logic only where it is used.

    Parameters
    ----------
    width : int
        Bits.
    depth : int
        Items that have room, a power of two and at least 2.

    Members
    -------
    w_data : In(width), w_en : In(1), w_rdy : Out(1)
        An item enters where both are set.
    r_data : Out(width), r_rdy : Out(1), r_en : In(1)
        The first item, which leaves where both are set.
    level : Out
        Items inside.
    """

    def __init__(self, *, width, depth):
        if depth < 2 or depth & depth - 1:
            raise ValueError(f"depth must be a power of two and at least 2, not {depth!r}")
        self._width, self._depth = width, depth
        super().__init__({
            "w_data": In(width), "w_en": In(1), "w_rdy": Out(1, init=1),
            "r_data": Out(width), "r_en": In(1), "r_rdy": Out(1), "level": Out(range(depth + 1)),
        })

    @property
    def width(self):
        return self._width

    @property
    def depth(self):
        return self._depth

    def elaborate(self, platform):
        m = Module()
        m.submodules.storage = storage = Memory(shape=self.width, depth=self.depth, init=[])
        write, read = storage.write_port(), storage.read_port(domain="comb")

        # Places of the first item and of the next one to come, and the places behind them.
        bits = exact_log2(self.depth)
        first, end = Signal(bits), Signal(bits)
        second, beyond = Signal(bits, init=1), Signal(bits, init=1)
        enter, leave = Signal(), Signal()
        m.d.comb += [
            enter.eq(self.w_en & self.w_rdy), leave.eq(self.r_en & self.r_rdy),
            write.addr.eq(end), write.data.eq(self.w_data), write.en.eq(enter),
            read.addr.eq(first), self.r_data.eq(read.data),
            self.level.eq(Mux(self.w_rdy, (end - first)[:bits], self.depth)),
        ]
        with m.If(enter):
            m.d.sync += [end.eq(beyond), beyond.eq(beyond + 1)]
        with m.If(leave):
            m.d.sync += [first.eq(second), second.eq(second + 1)]
        with m.If(enter & ~leave):
            m.d.sync += [self.r_rdy.eq(1), self.w_rdy.eq(beyond != first)]
        with m.Elif(leave & ~enter):
            m.d.sync += [self.w_rdy.eq(1), self.r_rdy.eq(second != end)]
        return m
