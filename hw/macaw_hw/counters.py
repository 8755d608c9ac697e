"""Event counters that cost a short adder each and one memory for all."""

from itertools import zip_longest

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .memory_init import BLOCK

__all__ = ["Counters", "element"]

_WIDTH = 64


class Counters(wiring.Component):
    """64-bit counters of events.

    Every counter has its lowest bits in registers, which count, and all bits in a shared memory. The counters
    take turns, one per cycle. In its turn, the memory is brought up to date by as much as the registers went
    on since; they go on for less than their range in a round.

    ::

        turn ----> memory ----> old ---+
          |                            v
          +--> short counters -> now -> - -> moved
                                              v
                                       old -> + -> value, memory
          0             1                2    3      4

    Parameters
    ----------
    limits : sequence of int
        For each counter, how many events it may get in a cycle.

    Members
    -------
    clear : In(1)
        All counters are zero in the next cycle.
    enable : In(1)
        Events count.
    events : In for each counter
        How many to add.
    select, request : In, In(1)
        The counter to read. Both stay until ``valid``, which comes within a round and 4 cycles.
    value, valid : Out(64), Out(1)
        For one cycle, an exact value between request and answer.
    """

    def __init__(self, *, limits):
        self._limits = tuple(limits)
        super().__init__({
            "clear": In(1), "enable": In(1),
            **{f"event{i}": In(range(limit + 1)) for i, limit in enumerate(self._limits)},
            "select": In(ceil_log2(len(self._limits))), "request": In(1),
            "value": Out(_WIDTH), "valid": Out(1),
        })

    @property
    def limits(self):
        return self._limits

    @property
    def events(self):
        return [getattr(self, f"event{i}") for i in range(len(self._limits))]

    def elaborate(self, platform):
        m = Module()
        count = len(self._limits)  # more than 5, so that a counter is written before its next turn
        m.submodules.memory = memory = Memory(shape=_WIDTH, depth=count, init=[], attrs=BLOCK)
        read, write = memory.read_port(), memory.write_port()

        widths = [(limit * count).bit_length() for limit in self._limits]
        width = max(widths)
        short = [Signal(bits, name=f"short{i}") for i, bits in enumerate(widths)]
        for register, event in zip(short, self.events, strict=True):
            with m.If(self.enable):
                m.d.sync += register.eq(register + event)
            with m.If(self.clear):
                m.d.sync += register.eq(0)

        # Each stage knows whose turn it has. For a round after a clear, what the memory holds is from before.
        turns = [Signal(range(count), name=f"turn{i}") for i in range(5)]
        asked = [Signal(name=f"asked{i}") for i in range(2, 5)]
        stale, unread = Signal(init=1), Signal(range(count + 1), init=count)
        for signals in (turns, asked):
            m.d.sync += [after.eq(before) for before, after in zip(signals, signals[1:], strict=False)]
        m.d.sync += [turns[0].eq(Mux(turns[0] == count - 1, 0, turns[0] + 1)),
                     stale.eq((unread != 0) | self.clear), unread.eq(unread - (unread != 0))]
        with m.If(self.clear):
            m.d.sync += unread.eq(count)

        old, before = Signal(_WIDTH, reset_less=True), Signal(_WIDTH, reset_less=True)
        now, kept, moved = Signal(width), Signal(width), Signal(width)
        masks = [(1 << bits) - 1 for bits in widths]
        m.d.comb += read.addr.eq(turns[0])
        # Stage 1
        m.d.sync += [
            old.eq(read.data), now.eq(element(short, turns[1])), kept.eq(element(masks, turns[1])),
            asked[0].eq(self.request & (turns[1] == self.select)),
        ]
        with m.If(stale):
            m.d.sync += old.eq(0)
        # Stages 2 and 3
        m.d.sync += [before.eq(old), moved.eq((now - old[:width]) & kept), self.value.eq(before + moved)]
        m.d.comb += [
            write.addr.eq(turns[4]), write.data.eq(self.value), write.en.eq(1), self.valid.eq(asked[2]),
        ]
        return m


def element(values, index):
    """``values[index]``: a tree of multiplexers, where a switch would decode every index."""
    for bit in index:
        values = [Mux(bit, odd, even) for even, odd in zip_longest(values[::2], values[1::2], fillvalue=0)]
    return values[0]
