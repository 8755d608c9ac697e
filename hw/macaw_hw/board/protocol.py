"""The protocol on the serial line, described once: bridge, driver and tests read it here.

A frame is its content between two flags, with flags and escapes in the content replaced by an
escape and the byte XOR 0x20 (as in HDLC, RFC 1662). The last four bytes of the content are the
CRC-32 of those before (that of Ethernet and zlib), low byte first. All numbers are little endian.

====================  ================================================================
request               ``sequence`` (1 byte), `Command` (1), ``address`` (4), ``length`` (2), data
response              ``sequence`` (1 byte), `Status` (1), data
====================  ================================================================

The host sends a request and waits for the response with the same sequence number; it sends the same
bytes again when there is none. A request is carried out once: when it arrives again, the bridge
repeats its response. Sequence numbers count up from that of the last SYNC, modulo 256; any other is
refused. A frame that is damaged is answered with DAMAGED and sequence number 0, and has no effect.
"""

import zlib
from struct import Struct

from amaranth.lib import enum

__all__ = ["FLAG", "ESCAPE", "FLIP", "VERSION", "BLOCK_BYTES", "CHANGE_BYTES", "CRC_BYTES",
           "HEADER", "RESPONSE", "CAPABILITIES", "STATE", "Command", "Status", "Deframer", "frame"]

FLAG, ESCAPE, FLIP = 0x7E, 0x7D, 0x20
VERSION = 1
BLOCK_BYTES = 1024
"""Data bytes of a frame, at most."""
CHANGE_BYTES = 256
"""Bytes of memory for each bit of the answer to CHANGES."""
CRC_BYTES = 4
HEADER = Struct("<BBIH")
"""Of a request: sequence, command, address, length."""
RESPONSE = Struct("<BB")
"""Head of a response: sequence, status."""
CAPABILITIES = Struct("<IHHII")
"""Of the response to SYNC: nonce, protocol version, bytes of a block, of memory, clock in Hz."""
STATE = Struct("<IQ")
"""Of the response to STATE: the level of ``irq``, and cycles since the board was configured."""


class Command(enum.IntEnum, shape=8):
    """What the bridge is to do. ``address`` and ``length`` are 0 where they are not named."""
    SYNC = 0
    """Begin a session: ``address`` is a nonce that comes back. Any sequence number will do."""
    READ_REGISTER = 1
    """The register at ``address``: 4 bytes."""
    WRITE_REGISTER = 2
    """4 bytes of data to the register at ``address``."""
    READ_MEMORY = 3
    """``length`` bytes of memory from ``address`` on; any alignment."""
    WRITE_MEMORY = 4
    """The data, ``length`` bytes, to memory from ``address`` on; any alignment."""
    RESET = 5
    """Hard reset of the accelerator and of its bus; memory keeps its contents."""
    STATE = 6
    """Interrupt and clock."""
    CHANGES = 7
    """One bit for each `CHANGE_BYTES` bytes of memory, that of the lowest address first: whether
    the accelerator wrote there since the last CHANGES."""
    CLEAR = 8
    """All of memory becomes zero."""


class Status(enum.IntEnum, shape=8):
    """How a request ended."""
    OK = 0
    BUS_ERROR = 1
    """The accelerator answered SLVERR."""
    NO_ANSWER = 2
    """The accelerator did not answer the register access within 4096 cycles."""
    ARGUMENT = 3
    """No such command, wrong length, or memory beyond the end. Nothing was done."""
    SEQUENCE = 4
    """Neither the next request nor the last one again. Nothing was done; SYNC begins anew."""
    DAMAGED = 5
    """A frame with a wrong CRC, too short or too long, or with framing errors. Nothing was done."""


def frame(content):
    """The bytes on the line for ``content``: CRC added, escaped, between flags."""
    content = bytes(content)
    content += zlib.crc32(content).to_bytes(CRC_BYTES, "little")
    escaped = bytearray([FLAG])
    for byte in content:
        escaped += bytes([ESCAPE, byte ^ FLIP]) if byte in (FLAG, ESCAPE) else bytes([byte])
    return bytes(escaped + bytes([FLAG]))


class Deframer:
    """Finds frames in a stream of bytes.

    Parameters
    ----------
    limit : int
        Bytes of content that a frame may have, CRC included.
    """

    def __init__(self, limit=RESPONSE.size + BLOCK_BYTES + CRC_BYTES):
        self._limit = limit
        self._content, self._escaped, self._damaged = bytearray(), False, False

    def feed(self, data):
        """Yields each frame that is complete: its content without CRC, None for a damaged one."""
        for byte in data:
            if byte == FLAG:
                if self._content or self._damaged or self._escaped:
                    yield self._finish()
                self._content, self._escaped, self._damaged = bytearray(), False, False
            elif byte == ESCAPE:
                self._damaged |= self._escaped
                self._escaped = True
            elif len(self._content) == self._limit:
                self._damaged = True
            else:
                self._content.append(byte ^ FLIP if self._escaped else byte)
                self._escaped = False

    def _finish(self):
        content, crc = bytes(self._content[:-CRC_BYTES]), self._content[-CRC_BYTES:]
        good = (not self._damaged and not self._escaped and len(crc) == CRC_BYTES
                and zlib.crc32(content) == int.from_bytes(crc, "little"))
        return content if good else None
