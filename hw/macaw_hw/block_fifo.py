"""A FIFO whose items lie in block memory."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .memory_init import BLOCK, NO_COLLISION_CHECK

__all__ = ["BlockFIFO"]


class BlockFIFO(wiring.Component):
    """Items leave in the order in which they entered, two cycles later at the earliest, one per cycle.

    Ports are those of Amaranth's FIFOs. The output of the memory is the first item, which is why that has a place
    of its own.

    Parameters
    ----------
    width : int
        Bits.
    depth : int
        Items that have room in the memory, a power of two.
    block : bool
        In block memory, whatever the tools think of the size.

    Members
    -------
    w_data : In(width), w_en : In(1), w_rdy : Out(1)
        An item enters where both are set.
    r_data : Out(width), r_rdy : Out(1), r_en : In(1)
        The first item, which leaves where both are set.
    """

    def __init__(self, *, width, depth, block=True):
        if depth < 2 or depth & depth - 1:
            raise ValueError(f"depth must be a power of two and at least 2, not {depth!r}")
        self._width, self._depth, self._block = width, depth, block
        super().__init__({"w_data": In(width), "w_en": In(1), "w_rdy": Out(1),
                          "r_data": Out(width), "r_en": In(1), "r_rdy": Out(1)})

    @property
    def width(self):
        return self._width

    @property
    def depth(self):
        return self._depth

    @property
    def block(self):
        return self._block

    def elaborate(self, platform):
        m = Module()
        attributes = BLOCK if self.block else NO_COLLISION_CHECK
        m.submodules.storage = storage = Memory(shape=self.width, depth=self.depth, init=[], attrs=attributes)
        write, read = storage.write_port(), storage.read_port()
        waiting = Signal(range(self.depth + 1))
        enter = Signal()
        fetch = Signal()
        m.d.comb += [
            self.w_rdy.eq(~waiting[-1]), enter.eq(self.w_en & self.w_rdy),
            fetch.eq((waiting != 0) & (~self.r_rdy | self.r_en)),
            write.data.eq(self.w_data), write.en.eq(enter), read.en.eq(fetch), self.r_data.eq(read.data),
        ]
        first = Signal(ceil_log2(self.depth))
        end = Signal.like(first)
        m.d.comb += [write.addr.eq(end), read.addr.eq(first)]
        m.d.sync += [
            end.eq(end + enter), first.eq(first + fetch), waiting.eq(waiting + enter - fetch),
            self.r_rdy.eq(fetch | self.r_rdy & ~self.r_en),
        ]
        return m
