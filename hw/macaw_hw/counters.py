"""Event counters that cost a small adder each and one memory for all."""

from functools import reduce
from operator import or_

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

__all__ = ["Counters"]

_PER_CYCLE = 4


class Counters(wiring.Component):
    """64-bit counters of events, each up to 4 per cycle.

    Every counter has a short part that counts, and a long part in a shared memory. One counter per cycle,
    in turn, moves its short part to memory; ``value`` adds both, so it is exact in every cycle.

    Parameters
    ----------
    count : int
        Number of counters.

    Members
    -------
    clear : In(1)
        All counters are zero in the next cycle.
    enable : In(1)
        Events count.
    events : In(3) for each counter
        How much to add, at most 4.
    select, value : In, Out(64)
        The counter to read, combinational.
    """

    def __init__(self, *, count):
        self._count = count
        super().__init__({
            "clear": In(1), "enable": In(1), "events": In(range(_PER_CYCLE + 1)).array(count),
            "select": In(ceil_log2(count)), "value": Out(64),
        })

    def elaborate(self, platform):
        m = Module()
        count = self._count
        m.submodules.memory = memory = Memory(shape=64, depth=count, init=[])
        write, scanned, selected = memory.write_port(), *(memory.read_port(domain="comb") for _ in range(2))

        turn = Signal(range(count))
        stale = Signal(init=1)
        """The memory from `turn` on still holds the values from before the last clear."""
        short = [Signal(range(_PER_CYCLE * count + 1), name=f"short_{i}") for i in range(count)]

        def short_of(index):
            # As an expression and not a `switch`: simulators evaluate that at time 0, too.
            return reduce(or_, (Mux(index == i, register, 0) for i, register in enumerate(short)))

        m.d.comb += [
            scanned.addr.eq(turn), write.addr.eq(turn), write.en.eq(1),
            write.data.eq(Mux(stale, 0, scanned.data) + short_of(turn)),
            selected.addr.eq(self.select),
            self.value.eq(Mux(stale & (self.select >= turn), 0, selected.data) + short_of(self.select)),
        ]
        m.d.sync += turn.eq(turn + 1)
        with m.If(turn == count - 1):
            m.d.sync += [turn.eq(0), stale.eq(0)]
        for i, register in enumerate(short):
            event = Mux(self.enable, self.events[i], 0)
            m.d.sync += register.eq(Mux(turn == i, 0, register) + event)
        with m.If(self.clear):
            m.d.sync += [turn.eq(0), stale.eq(1), *(register.eq(0) for register in short)]
        return m
