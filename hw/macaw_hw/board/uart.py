"""UART: 8 data bits, no parity, one stop bit."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out

__all__ = ["UartReceiver", "UartTransmitter"]


def _checked(divisor):
    if divisor < 4:
        raise ValueError(f"divisor must be at least 4, not {divisor!r}")
    return divisor


class UartReceiver(wiring.Component):
    """Bytes from a line, each sampled in the middle of its bits.

    A start bit that has ended by its middle is taken for noise. After a byte without stop bit the
    line must return to its idle level first.

    Parameters
    ----------
    divisor : int
        Cycles per bit, at least 4.

    Members
    -------
    line : In(1)
        Asynchronous.
    valid : Out(1)
        One pulse for each byte; it has to be taken then.
    data : Out(8)
    error : Out(1)
        With ``valid``: there was no stop bit.
    """

    def __init__(self, *, divisor):
        self._divisor = _checked(divisor)
        super().__init__({"line": In(1, init=1), "valid": Out(1), "data": Out(8), "error": Out(1)})

    @property
    def divisor(self):
        return self._divisor

    def elaborate(self, platform):
        m = Module()
        line = Signal(init=1)
        m.submodules.synchronizer = FFSynchronizer(self.line, line, init=1)
        wait = Signal(range(self._divisor))
        left = Signal(range(10))
        idle = Signal(init=1)
        m.d.sync += self.valid.eq(0)
        with m.If(wait != 0):
            m.d.sync += wait.eq(wait - 1)
        with m.If(idle):
            with m.If((left == 0) & ~line):
                m.d.sync += [idle.eq(0), wait.eq(self._divisor // 2 - 1), left.eq(9)]
            with m.Elif(line):
                m.d.sync += left.eq(0)          # the line has returned after a missing stop bit
        with m.Elif(wait == 0):
            m.d.sync += [wait.eq(self._divisor - 1), left.eq(left - 1)]
            with m.If(left == 9):
                m.d.sync += idle.eq(line)
                with m.If(line):
                    m.d.sync += left.eq(0)
            with m.Elif(left == 0):
                m.d.sync += [idle.eq(1), self.valid.eq(1), self.error.eq(~line), left.eq(~line)]
            with m.Else():
                m.d.sync += self.data.eq(Cat(self.data[1:], line))
        return m


class UartTransmitter(wiring.Component):
    """Bytes to a line.

    Parameters
    ----------
    divisor : int
        Cycles per bit, at least 4.

    Members
    -------
    i : In(stream.Signature(8))
    line : Out(1)
    """

    def __init__(self, *, divisor):
        self._divisor = _checked(divisor)
        super().__init__({"i": In(stream.Signature(8)), "line": Out(1, init=1)})

    @property
    def divisor(self):
        return self._divisor

    def elaborate(self, platform):
        m = Module()
        bits, left, wait = Signal(9, init=0x1FF), Signal(range(11)), Signal(range(self._divisor))
        m.d.comb += [self.i.ready.eq(left == 0), self.line.eq(bits[0])]
        with m.If(left == 0):
            with m.If(self.i.valid):
                m.d.sync += [bits.eq(Cat(0, self.i.payload)), left.eq(10),
                             wait.eq(self._divisor - 1)]
        with m.Else():
            m.d.sync += wait.eq(Mux(wait == 0, self._divisor - 1, wait - 1))
            with m.If(wait == 0):
                m.d.sync += [bits.eq(Cat(bits[1:], 1)), left.eq(left - 1)]
        return m
