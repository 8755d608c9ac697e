"""The bridge from a serial line to the registers and the memory of the accelerator."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..control import AxiLite
from .frames import COUNT, FrameReceiver, FrameSender
from .protocol import (
    BLOCK_BYTES,
    CAPABILITIES,
    CHANGE_BYTES,
    STATE,
    VERSION,
    Command,
    Status,
)
from .uart import UartReceiver, UartTransmitter

__all__ = ["Bridge"]

_RESET_CYCLES = 16
_WORD = 4
_PATIENCE = 4096


class Bridge(wiring.Component):
    """Carries out the requests of `protocol`, each once, and answers them.

    ::

        rx --> UartReceiver --> FrameReceiver --> execute <--> registers, memory
        tx <-- UartTransmitter <-- FrameSender <--+

    A request waits in the receiver until the response before it is on the line.

    Parameters
    ----------
    divisor : int
        Cycles per bit on the line, at least 4.
    size : int
        Bytes of memory.
    clock : int
        Frequency of the clock in Hz, told to the host.

    Members
    -------
    rx, tx : In(1), Out(1)
        The line.
    bus : Out(AxiLite)
        To the registers.
    address, valid, ready, store, data, q, block, changed, forget, forgotten
        To the memory, as `memory.BoardMemory` has them.
    irq : In(1)
        Of the accelerator.
    reset : Out(1)
        To reset accelerator and memory, for some cycles.
    alarm : Out(1)
        A damaged frame or a refused request was the latest.
    """

    def __init__(self, *, divisor, size, clock):
        self._divisor, self._size, self._clock = divisor, size, clock
        super().__init__({
            "rx": In(1, init=1), "tx": Out(1, init=1), "bus": Out(AxiLite()),
            "address": Out(ceil_log2(size)), "valid": Out(1), "ready": In(1), "store": Out(1),
            "data": Out(8), "q": In(8),
            "block": Out(ceil_log2(size // CHANGE_BYTES)), "changed": In(1),
            "forget": Out(1), "forgotten": In(1),
            "irq": In(1), "reset": Out(1), "alarm": Out(1),
        })

    @property
    def divisor(self):
        return self._divisor

    @property
    def size(self):
        return self._size

    @property
    def clock(self):
        return self._clock

    def elaborate(self, platform):
        m = Module()
        m.submodules.uart_receiver = uart_receiver = UartReceiver(divisor=self._divisor)
        m.submodules.uart_transmitter = uart_transmitter = UartTransmitter(divisor=self._divisor)
        m.submodules.receiver = request = FrameReceiver()
        m.submodules.sender = sender = FrameSender()
        wiring.connect(m, sender.o, uart_transmitter.i)
        m.d.comb += [
            uart_receiver.line.eq(self.rx), self.tx.eq(uart_transmitter.line),
            request.byte.eq(uart_receiver.data), request.valid.eq(uart_receiver.valid),
            request.error.eq(uart_receiver.error),
        ]
        self._index = Signal(COUNT)
        """The data byte of the request or of the response that is in work."""
        self._word = Signal(8 * CAPABILITIES.size)
        """What is received for, or sent from, a place that takes several bytes at once."""
        self._left = Signal(range(CAPABILITIES.size + 1))
        self._patience = Signal(range(_PATIENCE))
        self._cycles = Signal(64)
        m.d.sync += self._cycles.eq(self._cycles + 1)
        m.d.comb += request.data_address.eq(self._index)

        status, count = Signal(Status), Signal(COUNT)
        """Of the response to the last request; its data are in the sender."""
        with m.FSM():
            with m.State("IDLE"):
                self._accept(m, request, sender, status, count)
            self._registers(m, request, status)
            self._memory(m, request, sender)
            self._others(m, request, sender)
            with m.State("RESPOND"):
                m.d.sync += count.eq(self._index)
                m.next = "SEND"
            with m.State("SEND"):
                self._respond(m, request, sender, request.sequence, status, count)
        return m

    def _respond(self, m, request, sender, sequence, status, count):
        m.d.comb += [sender.start.eq(1), sender.sequence.eq(sequence), sender.status.eq(status),
                     sender.count.eq(count), request.release.eq(1)]
        m.d.sync += self.alarm.eq((status == Status.DAMAGED) | (status == Status.SEQUENCE))
        m.next = "IDLE"

    def _accept(self, m, request, sender, status, count):
        """What to do with a frame: carry it out, repeat the last response, or refuse it."""
        latest, crc, synchronized = Signal(8), Signal(32), Signal()
        with m.If(request.pending & ~sender.busy):
            with m.If(~request.good):
                self._respond(m, request, sender, 0, Status.DAMAGED, 0)
            with m.Elif((request.command == Command.SYNC)
                        | (synchronized & (request.sequence == (latest + 1)[:8]))):
                m.d.sync += [latest.eq(request.sequence), crc.eq(request.crc), synchronized.eq(1),
                             self._index.eq(0), self._patience.eq(_PATIENCE - 1)]
                self._dispatch(m, request, status)
            with m.Elif(synchronized & (request.sequence == latest) & (request.crc == crc)):
                self._respond(m, request, sender, latest, status, count)
            with m.Else():
                self._respond(m, request, sender, request.sequence, Status.SEQUENCE, 0)

    def _dispatch(self, m, request, status):
        """To the state that carries the request out, if its arguments are right."""
        inside = request.address + request.length <= self._size
        plain, word = request.count == 0, request.count == _WORD
        block = (request.length <= BLOCK_BYTES) & inside
        choices = {
            Command.SYNC: ("SYNC", plain), Command.RESET: ("RESET", plain),
            Command.STATE: ("STATE", plain), Command.CHANGES: ("CHANGES", plain),
            Command.CLEAR: ("CLEAR", plain),
            Command.READ_REGISTER: ("READ REGISTER", plain),
            Command.WRITE_REGISTER: ("TAKE WORD", word),
            Command.READ_MEMORY: ("READ MEMORY", plain & block),
            Command.WRITE_MEMORY: ("TAKE BYTE", (request.count == request.length) & block),
        }
        m.d.sync += status.eq(Status.ARGUMENT)
        m.next = "RESPOND"
        for command, (state, allowed) in choices.items():
            with m.If((request.command == command) & allowed):
                m.d.sync += status.eq(Status.OK)
                m.next = state

    def _registers(self, m, request, status):
        """One register access on the bus."""
        bus = self.bus
        m.d.comb += [bus.araddr.eq(request.address), bus.awaddr.eq(request.address),
                     bus.wdata.eq(self._word), bus.wstrb.eq(0b1111)]

        def answered(response):
            m.d.sync += [self._index.eq(0),
                         status.eq(Mux(response == 0, Status.OK, Status.BUS_ERROR))]

        def patience():
            m.d.sync += self._patience.eq(self._patience - 1)
            with m.If(self._patience == 0):
                m.d.sync += [status.eq(Status.NO_ANSWER), bus.arvalid.eq(0), bus.awvalid.eq(0),
                             bus.wvalid.eq(0), bus.rready.eq(0), bus.bready.eq(0),
                             self._index.eq(0)]
                m.next = "RESPOND"

        with m.State("READ REGISTER"):
            m.d.sync += [bus.arvalid.eq(1), bus.rready.eq(1)]
            m.next = "READING"
        with m.State("READING"):
            patience()
            with m.If(bus.arready):
                m.d.sync += bus.arvalid.eq(0)
            with m.If(bus.rvalid):
                answered(bus.rresp)
                m.d.sync += [bus.rready.eq(0), self._word.eq(bus.rdata), self._left.eq(_WORD)]
                m.next = "GIVE WORD"
                with m.If(bus.rresp != 0):
                    m.next = "RESPOND"

        # The bytes come from the buffer of the receiver, each one cycle after its address.
        with m.State("TAKE WORD"):
            m.d.sync += self._index.eq(self._index + 1)
            m.d.sync += self._word.eq(Cat(self._word[8:8 * _WORD], request.data))
            with m.If(self._index == _WORD):
                m.d.sync += [bus.awvalid.eq(1), bus.wvalid.eq(1), bus.bready.eq(1)]
                m.next = "WRITING"
        with m.State("WRITING"):
            patience()
            with m.If(bus.awready):
                m.d.sync += bus.awvalid.eq(0)
            with m.If(bus.wready):
                m.d.sync += bus.wvalid.eq(0)
            with m.If(bus.bvalid):
                answered(bus.bresp)
                m.d.sync += bus.bready.eq(0)
                m.next = "RESPOND"

    def _memory(self, m, request, sender):
        """Bytes between the buffers and memory, one after the other."""
        last = self._index == request.length
        m.d.comb += [self.address.eq(request.address + self._index), self.data.eq(request.data)]
        clear = Signal.like(self.address)
        with m.State("CLEAR"):
            m.d.comb += [self.valid.eq(1), self.store.eq(1), self.address.eq(clear),
                         self.data.eq(0)]
            with m.If(self.ready):
                m.d.sync += clear.eq(clear + 1)
                with m.If(clear == self._size - 1):
                    m.next = "RESPOND"
        with m.State("READ MEMORY"):
            m.d.comb += self.valid.eq(~last)
            with m.If(last):
                m.next = "RESPOND"
            with m.Elif(self.ready):
                m.next = "GIVE BYTE"
        with m.State("GIVE BYTE"):
            self._give(m, sender, self.q)
            m.next = "READ MEMORY"
        with m.State("TAKE BYTE"):
            m.next = "WRITE MEMORY"
            with m.If(last):
                m.d.sync += self._index.eq(0)
                m.next = "RESPOND"
        with m.State("WRITE MEMORY"):
            m.d.comb += [self.valid.eq(1), self.store.eq(1)]
            with m.If(self.ready):
                m.d.sync += self._index.eq(self._index + 1)
                m.next = "TAKE BYTE"

    def _give(self, m, sender, byte):
        """The next data byte of the response."""
        m.d.comb += [sender.data_address.eq(self._index), sender.data.eq(byte), sender.write.eq(1)]
        m.d.sync += self._index.eq(self._index + 1)

    def _others(self, m, request, sender):
        with m.State("GIVE WORD"):
            self._give(m, sender, self._word[:8])
            m.d.sync += [self._word.eq(self._word[8:]), self._left.eq(self._left - 1)]
            with m.If(self._left == 1):
                m.next = "RESPOND"
        with m.State("SYNC"):
            m.d.sync += [self._word.eq(Cat(request.address, *self._constants())),
                         self._left.eq(CAPABILITIES.size)]
            m.next = "GIVE WORD"
        with m.State("STATE"):
            m.d.sync += [self._word.eq(Cat(self.irq, Signal(31, name="zeros"), self._cycles)),
                         self._left.eq(STATE.size)]
            m.next = "GIVE WORD"
        with m.State("RESET"):
            m.d.comb += self.reset.eq(1)
            m.d.sync += self._index.eq(self._index + 1)
            with m.If(self._index == _RESET_CYCLES - 1):
                m.d.sync += self._index.eq(0)
                m.next = "RESPOND"
        # Eight blocks make a byte; `left` counts within it, `address` of the memory is not in use.
        bit, block = Signal(range(8)), Signal.like(self.block)
        m.d.comb += self.block.eq(block)
        with m.State("CHANGES"):
            m.d.comb += self.forget.eq(1)
            with m.If(self.forgotten):
                m.d.sync += [self._word[:8].eq(Cat(self._word[1:8], self.changed)), bit.eq(bit + 1),
                             block.eq(block + 1)]
                with m.If(bit == 7):
                    m.next = "GIVE CHANGES"
        with m.State("GIVE CHANGES"):
            self._give(m, sender, self._word[:8])
            m.next = "CHANGES"
            with m.If(block == 0):
                m.next = "RESPOND"

    def _constants(self):
        """What the host is told about the board, after its nonce."""
        return [Const(VERSION, 16), Const(BLOCK_BYTES, 16), Const(self._size, 32),
                Const(self._clock, 32)]
