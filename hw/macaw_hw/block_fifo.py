"""A FIFO in block memory whose places are reserved before there are items."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .memory_init import BLOCK, NO_COLLISION_CHECK

__all__ = ["BlockFIFO"]


def _incremented(pointer):
    """``pointer + 1`` without a carry chain, whose ends cost as much as a short addition."""
    return Cat(bit ^ pointer[:i].all() for i, bit in enumerate(pointer))


class BlockFIFO(wiring.Component):
    """Items leave in the order in which they entered, :attr:`LATENCY` cycles later at the earliest, one per cycle.

    There is no backpressure on items: whoever starts to compute one reserves its place before, with ``reserve`` in
    a cycle where ``room`` is set. The first item is in registers, so that much may follow in the same cycle.

    Parameters
    ----------
    width : int
        Bits.
    depth : int
        Places in the memory, a power of two; one stays free.
    block : bool
        In block memory, whatever the tools think of the size. Its output comes late in the cycle and goes to registers
        first. Distributed memory has the registers already.

    Members
    -------
    reserve : In(1), room : Out(1)
    w_data : In(width), w_en : In(1)
        An item enters.
    r_data : Out(width), r_rdy : Out(1), r_en : In(1)
        The first item, which leaves where both are set.
    empty : Out(1)
        No item is inside; places may be reserved.
    """

    LATENCY = {True: 3, False: 2}
    """Cycles from ``w_en`` to ``r_rdy``, by ``block``."""

    def __init__(self, *, width, depth, block=True):
        if depth < 2 or depth & depth - 1:
            raise ValueError(f"depth must be a power of two and at least 2, not {depth!r}")
        self._width, self._depth, self._block = width, depth, block
        super().__init__({"reserve": In(1), "room": Out(1), "w_data": In(width), "w_en": In(1),
                          "r_data": Out(width), "r_en": In(1), "r_rdy": Out(1), "empty": Out(1)})

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
        reserved, end, first = (Signal(ceil_log2(self.depth), name=name) for name in ("reserved", "end", "first"))
        before = Signal.like(first, init=self.depth - 1)
        waiting, fetch = Signal(), Signal()
        m.d.comb += [
            self.room.eq(reserved != before), waiting.eq(end != first),
            write.addr.eq(end), write.data.eq(self.w_data), write.en.eq(self.w_en),
            read.addr.eq(first), read.en.eq(fetch),
        ]
        for pointer, step in ((reserved, self.reserve), (end, self.w_en), (first, fetch)):
            with m.If(step):
                m.d.sync += pointer.eq(_incremented(pointer))
        with m.If(fetch):
            m.d.sync += before.eq(first)

        if self.block:
            fetched, move = Signal(), Signal()
            m.d.comb += [
                move.eq(fetched & (~self.r_rdy | self.r_en)), fetch.eq(waiting & (~fetched | move)),
                self.empty.eq(~waiting & ~fetched & ~self.r_rdy),
            ]
            m.d.sync += [fetched.eq(fetch | fetched & ~move), self.r_rdy.eq(move | self.r_rdy & ~self.r_en)]
            with m.If(~self.r_rdy | self.r_en):
                m.d.sync += self.r_data.eq(read.data)
        else:
            m.d.comb += [fetch.eq(waiting & (~self.r_rdy | self.r_en)), self.r_data.eq(read.data),
                         self.empty.eq(~waiting & ~self.r_rdy)]
            m.d.sync += self.r_rdy.eq(fetch | self.r_rdy & ~self.r_en)
        return m
