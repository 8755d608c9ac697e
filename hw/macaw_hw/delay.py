"""Registers of pipelines, and a delay line that costs a small memory instead of a register per cycle and bit."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .memory_init import NO_COLLISION_CHECK

__all__ = ["register", "delayed", "DelayLine"]


def register(shape, name):
    """A register of a pipeline that has no handshake: what it holds after a reset does not matter."""
    return Signal(shape, name=name, reset_less=True)


def delayed(m, value, cycles, name):
    """``value`` now, one cycle later, and so on."""
    values = [value]
    for i in range(cycles):
        values.append(register(value.shape(), f"{name}_{i + 1}"))
        m.d.sync += values[i + 1].eq(values[i])
    return values


class DelayLine(wiring.Component):
    """``o`` is ``i`` of ``cycles`` cycles ago; undefined for the first ``cycles`` cycles.

    A circular buffer: what is read is the entry that the next cycle overwrites. Reset does not clear it.

    Parameters
    ----------
    width : int
        Bits.
    cycles : int
        Delay, a power of two and at least 2.

    Raises
    ------
    ValueError
        For ``cycles`` outside its range.
    """

    def __init__(self, *, width, cycles):
        if cycles < 2 or cycles & cycles - 1:
            raise ValueError(f"cycles must be a power of two and at least 2, not {cycles!r}")
        self._width = width
        self._cycles = cycles
        super().__init__({"i": In(width), "o": Out(width)})

    @property
    def width(self):
        return self._width

    @property
    def cycles(self):
        return self._cycles

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=self.width, depth=self.cycles, init=[], attrs=NO_COLLISION_CHECK)
        position = Signal(ceil_log2(self.cycles), reset_less=True)
        read = memory.read_port()
        write = memory.write_port()
        m.d.sync += position.eq(position + 1)
        m.d.comb += [
            write.addr.eq(position), write.data.eq(self.i), write.en.eq(1),
            read.addr.eq(position + 1), read.en.eq(1), self.o.eq(read.data),
        ]
        return m
