"""Frames of the serial protocol: from bytes to a checked request, and from a response to bytes."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.crc import catalog
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..memory_init import NO_COLLISION_CHECK
from .protocol import BLOCK_BYTES, CRC_BYTES, ESCAPE, FLAG, FLIP, HEADER, RESPONSE

__all__ = ["COUNT", "FrameReceiver", "FrameSender"]

_LONGEST = HEADER.size + BLOCK_BYTES + CRC_BYTES
COUNT = range(_LONGEST + 1)
"""Shape of a number of bytes in a frame."""


class _Buffer(wiring.Component):
    """Data bytes of a frame, in one block of memory; what is read comes one cycle later."""

    def __init__(self):
        address = ceil_log2(BLOCK_BYTES)
        super().__init__({"write_address": In(address), "write_data": In(8), "write": In(1),
                          "read_address": In(address), "read_data": Out(8)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=8, depth=BLOCK_BYTES, init=[],
                                              attrs=NO_COLLISION_CHECK)
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [write.addr.eq(self.write_address), write.data.eq(self.write_data),
                     write.en.eq(self.write), read.addr.eq(self.read_address),
                     self.read_data.eq(read.data)]
        return m


class FrameReceiver(wiring.Component):
    """Takes bytes from the line until a frame is complete, and holds it until it is released.

    Bytes that arrive meanwhile are lost, and so is the frame that they belong to.

    Members
    -------
    byte : In(8)
    valid, error : In(1)
        From the UART.
    pending : Out(1)
        A frame is there: good if ``good``, else damaged.
    sequence, command, address, length : Out
        The header of a good frame.
    count : Out(COUNT)
        Its data bytes.
    crc : Out(32)
        Its CRC, which tells it from others with the same sequence number.
    data_address, data : In, Out(8)
        Data bytes, one cycle later.
    release : In(1)
        The frame is not needed any more.
    """

    def __init__(self):
        super().__init__({
            "byte": In(8), "valid": In(1), "error": In(1),
            "pending": Out(1), "good": Out(1), "sequence": Out(8), "command": Out(8),
            "address": Out(32), "length": Out(16), "count": Out(COUNT), "crc": Out(32),
            "data_address": In(ceil_log2(BLOCK_BYTES)), "data": Out(8), "release": In(1),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = crc = catalog.CRC32_ISO_HDLC(8).create()
        m.submodules.buffer = buffer = _Buffer()

        received = Signal(COUNT)
        escaped, damaged = Signal(), Signal()
        take = Signal()
        value = Signal(8)
        header, latest = Signal(8 * HEADER.size), Signal(8 * CRC_BYTES)
        m.d.comb += [
            value.eq(self.byte ^ Mux(escaped, FLIP, 0)),
            crc.data.eq(value), crc.valid.eq(take),
            buffer.write_address.eq(received - HEADER.size), buffer.write_data.eq(value),
            # The CRC behind the longest data has no place there.
            buffer.write.eq(take & (received >= HEADER.size)
                            & (received < HEADER.size + BLOCK_BYTES)),
            buffer.read_address.eq(self.data_address), self.data.eq(buffer.read_data),
            Cat(self.sequence, self.command, self.address, self.length).eq(header),
            self.count.eq(received - (HEADER.size + CRC_BYTES)), self.crc.eq(latest),
        ]
        m.d.comb += crc.start.eq(~self.pending & ~take & (received == 0))
        with m.If(self.valid & self.pending):
            m.d.sync += damaged.eq(self.byte != FLAG)
        with m.Elif(self.valid):
            with m.If(self.error):
                m.d.sync += damaged.eq(1)
            with m.Elif(self.byte == FLAG):
                m.d.sync += [escaped.eq(0), damaged.eq(0)]
                with m.If((received != 0) | damaged | escaped):
                    m.d.sync += [
                        self.pending.eq(1),
                        self.good.eq(crc.match_detected & ~damaged & ~escaped
                                     & (received >= HEADER.size + CRC_BYTES))]
            with m.Elif(self.byte == ESCAPE):
                m.d.sync += escaped.eq(1)
                with m.If(escaped):
                    m.d.sync += damaged.eq(1)
            with m.Elif(received == _LONGEST):
                m.d.sync += damaged.eq(1)
            with m.Else():
                m.d.comb += take.eq(1)
                m.d.sync += [escaped.eq(0), received.eq(received + 1),
                             latest.eq(Cat(latest[8:], value))]
                with m.If(received < HEADER.size):
                    m.d.sync += header.eq(Cat(header[8:], value))
        with m.If(self.release):
            m.d.sync += [self.pending.eq(0), received.eq(0)]
        return m


class FrameSender(wiring.Component):
    """Sends a response: its head, data bytes from a buffer, and the CRC.

    Members
    -------
    data_address, data, write : In
        Writes a data byte to the buffer; only while not ``busy``.
    start : In(1)
        Send; only while not ``busy``.
    sequence, status : In(8)
        Taken with ``start``.
    count : In(COUNT)
        Data bytes; taken with ``start``. The buffer stays, so that a response can be sent again.
    busy : Out(1)
    o : Out(stream.Signature(8))
    """

    def __init__(self):
        super().__init__({
            "data_address": In(ceil_log2(BLOCK_BYTES)), "data": In(8), "write": In(1),
            "start": In(1), "sequence": In(8), "status": In(8), "count": In(COUNT),
            "busy": Out(1), "o": Out(stream.Signature(8)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.crc = crc = catalog.CRC32_ISO_HDLC(8).create()
        m.submodules.buffer = buffer = _Buffer()
        m.d.comb += [buffer.write_address.eq(self.data_address), buffer.write_data.eq(self.data),
                     buffer.write.eq(self.write)]

        index, end = Signal(range(RESPONSE.size + BLOCK_BYTES + 1)), Signal(COUNT)
        head = Signal(8 * RESPONSE.size)
        tail, left = Signal(8 * CRC_BYTES), Signal(range(CRC_BYTES + 1))
        escaped = Signal()
        value, special = Signal(8), Signal()
        m.d.comb += [
            buffer.read_address.eq(index - RESPONSE.size), crc.data.eq(value),
            special.eq((value == FLAG) | (value == ESCAPE)),
            self.o.payload.eq(Mux(~special, value, Mux(escaped, value ^ FLIP, ESCAPE))),
        ]
        sent = self.o.valid & self.o.ready
        settle = Signal(range(3))
        """Cycles until the buffer shows the byte of `index`."""
        with m.If(settle != 0):
            m.d.sync += settle.eq(settle - 1)

        with m.FSM():
            with m.State("IDLE"):
                m.d.comb += crc.start.eq(1)
                with m.If(self.start):
                    m.d.sync += [index.eq(0), end.eq(self.count + RESPONSE.size),
                                 head.eq(Cat(self.sequence, self.status))]
                    m.next = "BEGIN"
            with m.State("BEGIN"):
                self._flag(m)
                with m.If(sent):
                    m.next = "CONTENT"
            with m.State("CONTENT"):
                m.d.comb += [self.busy.eq(1), self.o.valid.eq(settle == 0),
                             value.eq(Mux(index < RESPONSE.size, head[:8], buffer.read_data))]
                with m.If(sent):
                    m.d.sync += escaped.eq(special & ~escaped)
                    with m.If(~special | escaped):
                        m.d.comb += crc.valid.eq(1)
                        m.d.sync += [index.eq(index + 1), head.eq(head[8:]), settle.eq(2)]
                        with m.If(index == end - 1):
                            m.next = "CRC"
            with m.State("CRC"):
                m.d.comb += self.busy.eq(1)
                m.d.sync += [tail.eq(crc.crc), left.eq(CRC_BYTES)]
                m.next = "TAIL"
            with m.State("TAIL"):
                m.d.comb += [self.busy.eq(1), self.o.valid.eq(1), value.eq(tail[:8])]
                with m.If(sent):
                    m.d.sync += escaped.eq(special & ~escaped)
                    with m.If(~special | escaped):
                        m.d.sync += [tail.eq(tail[8:]), left.eq(left - 1)]
                        with m.If(left == 1):
                            m.next = "END"
            with m.State("END"):
                self._flag(m)
                with m.If(sent):
                    m.next = "IDLE"
        return m

    def _flag(self, m):
        m.d.comb += [self.busy.eq(1), self.o.valid.eq(1), self.o.payload.eq(Const(FLAG, 8))]
