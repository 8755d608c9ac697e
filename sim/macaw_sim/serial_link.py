"""Requests over a serial line to the bridge of a board, each carried out once."""

import secrets
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import serial
from macaw_hw.board.protocol import (
    CAPABILITIES,
    HEADER,
    RESPONSE,
    VERSION,
    Command,
    Deframer,
    Status,
    frame,
)

__all__ = ["Capabilities", "SerialError", "SerialLink"]


class SerialError(RuntimeError):
    """The board did not answer, or refused a request; the message says what to do."""


@dataclass(frozen=True)
class Capabilities:
    """What a board tells of itself: bytes of a frame's data and of memory, its clock in Hz."""
    block_bytes: int
    memory_bytes: int
    clock: int


class SerialLink:
    """One request after the other on a serial line, as `macaw_hw.board.protocol` defines them.

    A request whose response does not come or is damaged is sent again; the board carries it out
    once and repeats its response. What is left of earlier exchanges on the line is ignored.

    Parameters
    ----------
    port : str
        Device file, or a URL that pyserial knows.
    baud : int
        Bits per second.
    timeout : float
        Seconds of silence after which a request is sent again.
    attempts : int
        How often a request is sent before the line is given up.

    Attributes
    ----------
    capabilities : Capabilities
    repeated : int
        Requests that were sent again, so far.

    Raises
    ------
    SerialError
        When the port cannot be opened or no board answers.
    """

    def __init__(self, port: str, *, baud: int, timeout: float = 1.0, attempts: int = 8):
        for name, value in (("baud", baud), ("timeout", timeout), ("attempts", attempts)):
            if value <= 0:
                raise ValueError(f"{name} must be above 0, not {value!r}")
        self._where, self._timeout, self._attempts = port, timeout, attempts
        self._deframer, self._sequence = Deframer(), 0
        self._received: deque[bytes | None] = deque()
        self.repeated = 0
        self._lost = False
        try:
            self._port = serial.serial_for_url(port, baudrate=baud, timeout=timeout, exclusive=True,
                                               write_timeout=timeout * attempts)
        except (serial.SerialException, OSError, ValueError) as error:
            raise SerialError(f"cannot open the serial port {port}: {error}") from None
        # Adapters hold back what they receive for many milliseconds unless told otherwise.
        with suppress(AttributeError, NotImplementedError, OSError, ValueError):
            self._port.set_low_latency_mode(True)
        try:
            self._port.reset_input_buffer()
            self.capabilities = self.synchronize()
        except BaseException:
            self._port.close()
            raise

    def close(self) -> None:
        """Close the port. Calling it again does nothing."""
        self._port.close()

    def synchronize(self) -> Capabilities:
        """Begin a session: the board forgets which request was the last."""
        nonce = secrets.randbits(32)
        data = self._exchange(Command.SYNC, nonce, 0, b"",
                              lambda data: data[:4] == nonce.to_bytes(4, "little"))
        _, version, block, memory, clock = CAPABILITIES.unpack(data)
        if version != VERSION:
            raise SerialError(f"the board speaks version {version} of the protocol, not {VERSION}: "
                              "write a new bitstream with macaw bitstream")
        self._lost = False
        return Capabilities(block, memory, clock)

    def request(self, command: Command, address: int = 0, length: int = 0,
                data: bytes = b"") -> tuple[Status, bytes]:
        """Have a request carried out, once. Returns its `Status` and the data of the response.

        After an error, nobody knows whether the request was carried out; the next one begins a new
        session.
        """
        if self._lost:
            self.synchronize()
        try:
            return self._exchange(command, address, length, data)
        except SerialError:
            self._lost = True
            raise

    def _exchange(self, command, address, length, data, accept=None):
        """Send until the response is there. With ``accept``, its data, which that function has to
        take; else status and data."""
        self._sequence = (self._sequence + 1) % 256
        line = frame(HEADER.pack(self._sequence, command, address, length) + data)
        self._received.clear()
        for attempt in range(self._attempts):
            self.repeated += attempt > 0
            self._write(line)
            for content in self._responses():
                if content is None or len(content) < RESPONSE.size:
                    break                           # a response was damaged
                sequence, number = RESPONSE.unpack_from(content)
                if number == Status.DAMAGED:
                    break                           # the request was damaged
                if sequence != self._sequence:
                    continue                        # an earlier response again
                status, answer = Status(number), content[RESPONSE.size:]
                if accept is None and status == Status.SEQUENCE:
                    raise SerialError(
                        f"the board on {self._where} does not know this session any more: it was "
                        "restarted, or another program uses the line; open the device again")
                if accept is None:
                    return status, answer
                if status == Status.OK and len(answer) == CAPABILITIES.size and accept(answer):
                    return answer
        raise SerialError(
            f"no valid answer on {self._where} to {self._attempts} requests: check the cable, the "
            "rate of the line, and that the board has the bitstream of macaw bitstream")

    def _responses(self):
        """Frames from the line, until it is silent for the timeout."""
        silent = time.monotonic() + self._timeout
        while (left := silent - time.monotonic()) > 0:
            if self._received:
                yield self._received.popleft()
                continue
            self._port.timeout = left
            data = self._read()
            if data:
                silent = time.monotonic() + self._timeout
            self._received.extend(self._deframer.feed(data))

    def _read(self):
        try:
            return self._port.read(max(1, self._port.in_waiting))
        except (serial.SerialException, OSError) as error:
            raise SerialError(f"the serial port {self._where} is gone: {error}") from None

    def _write(self, line):
        try:
            self._port.write(line)
        except (serial.SerialException, OSError) as error:
            raise SerialError(f"cannot write to the serial port {self._where}: {error}") from None
