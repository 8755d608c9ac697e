"""A device on an FPGA board, behind a serial line."""

import numpy as np
from macaw_hw.board.protocol import CHANGE_BYTES, STATE, Command, Status
from macaw_hw.config import Config
from macaw_hw.registers import REGISTERS

from .backend import DRAM_BYTES, BusError
from .serial_link import SerialError, SerialLink

__all__ = ["BAUD", "SerialBackend"]

BAUD = 1_000_000
_PAGE = 4096
_WINDOW = ("window_base", "window_limit")
_WORDS = {REGISTERS[name].offset + low // 8: (name, low) for name in _WINDOW for low in (0, 32)}
_START = REGISTERS["control"].bits[0].mask
_RUNNING = REGISTERS["status"].bits[0].mask


class SerialBackend:
    """A :class:`~macaw_sim.backend.Backend` over the UART bridge of a board (`macaw_hw.board`).

    ``dram`` is a copy of the board's memory. The doorbell first sends what has changed within the
    window, and the end of a program fetches the blocks that the device has written. Both happen
    within `write_register`, `wait_interrupt` and `read_register` of the status.

    Parameters
    ----------
    config : Config
        Configuration of the device; what is on the board says the device itself, in its registers.
    dram_bytes : int
        Size of ``dram``, a multiple of 4096; the board's memory, where that is smaller.
    port : str
        Device file of the serial line, for example ``/dev/ttyUSB0``.
    baud : int
        Bits per second, as the bitstream has it.
    timeout : float
        Seconds of silence after which a request is sent again.
    attempts : int
        How often a request is sent before the line is given up.
    options
        Those of other backends are accepted and have no effect.

    Attributes
    ----------
    config, dram
        As `macaw_sim.backend.Backend` defines them.
    link : SerialLink

    Raises
    ------
    ValueError
        Without ``port``, or for an option outside its range.
    SerialError
        When no board answers; also from each method, when the line fails for good.
    """

    def __init__(self, config: Config, *, dram_bytes: int = DRAM_BYTES, port: str | None = None,
                 baud: int = BAUD, timeout: float = 1.0, attempts: int = 8, **options):
        if dram_bytes <= 0 or dram_bytes % _PAGE:
            raise ValueError(f"dram_bytes must be a positive multiple of {_PAGE}, "
                             f"not {dram_bytes!r}")
        if not port:
            raise ValueError("the serial backend needs port, the device file of the board's serial "
                             "line, for example /dev/ttyUSB0")
        self.config = config
        link = SerialLink(port, baud=baud, timeout=timeout, attempts=attempts)
        self.link: SerialLink | None = link
        size = min(dram_bytes, link.capabilities.memory_bytes)
        self.dram = np.zeros(size, np.uint8)
        self._there = np.zeros(size, np.uint8)      # what the board has
        self.reset()
        self._request(Command.CLEAR)
        self._request(Command.CHANGES)

    def read_register(self, offset: int) -> int:
        value = int.from_bytes(self._register("read", Command.READ_REGISTER, offset, b""), "little")
        if offset == REGISTERS["status"].offset and self._stale and not value & _RUNNING:
            self._fetch()
        return value

    def write_register(self, offset: int, value: int) -> None:
        if offset == REGISTERS["control"].offset and value & _START:
            self._send()
            self._stale = True
        self._register("write", Command.WRITE_REGISTER, offset, int(value).to_bytes(4, "little"))
        if offset in _WORDS:
            name, low = _WORDS[offset]
            self._window[name] = self._window[name] & ~(0xFFFFFFFF << low) | value << low

    def wait_interrupt(self, max_cycles: int) -> bool:
        # The clock of the board runs by itself; what has to be waited for is counted there.
        start = None
        while True:
            irq, cycles = STATE.unpack(self._request(Command.STATE))
            start = cycles if start is None else start
            if irq or cycles - start >= max_cycles:
                break
        if irq:
            self.read_register(REGISTERS["status"].offset)
        return bool(irq)

    def reset(self) -> None:
        """Hard reset of the device and of the bus to its memory, whose contents stay."""
        self._window = dict.fromkeys(_WINDOW, 0)
        self._request(Command.RESET)
        # It may have been writing until then.
        self._stale = True
        self.read_register(REGISTERS["status"].offset)

    def close(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None
            del self.dram

    def _request(self, command, address=0, length=0, data=b""):
        if self.link is None:
            raise RuntimeError("the backend is closed")
        status, answer = self.link.request(command, address, length, data)
        if status != Status.OK:
            raise SerialError(f"the board answers {status.name} to {command.name} at {address:#x}, "
                              f"length {length}")
        return answer

    def _register(self, verb, command, offset, data):
        if self.link is None:
            raise RuntimeError("the backend is closed")
        status, answer = self.link.request(command, offset, 0, data)
        if status == Status.BUS_ERROR:
            raise BusError(f"the device rejects a {verb} of register {offset:#x}")
        if status == Status.NO_ANSWER:
            raise TimeoutError(f"no answer to a {verb} of register {offset:#x}: reset the device")
        if status != Status.OK:
            raise SerialError(f"the board answers {status.name} to a {verb} of register "
                              f"{offset:#x}")
        return answer

    def _send(self):
        """Bring the board's memory up to date, within the window."""
        first, end = (self._window[name] for name in _WINDOW)
        blocks = slice(first // CHANGE_BYTES, -(-min(end, self.dram.size) // CHANGE_BYTES))
        ours, theirs = (array.reshape(-1, CHANGE_BYTES)[blocks]
                        for array in (self.dram, self._there))
        wanted = np.flatnonzero((ours != theirs).any(axis=1)) + blocks.start
        for address, length in self._runs(wanted):
            data = self.dram[address:address + length]
            self._request(Command.WRITE_MEMORY, address, length, data.tobytes())
            self._there[address:address + length] = data

    def _fetch(self):
        """Take over what the device has written since the last time."""
        answer = np.frombuffer(self._request(Command.CHANGES), np.uint8)
        bits = np.unpackbits(answer, bitorder="little")
        for address, length in self._runs(np.flatnonzero(bits[:self.dram.size // CHANGE_BYTES])):
            data = np.frombuffer(self._request(Command.READ_MEMORY, address, length), np.uint8)
            self.dram[address:address + length] = self._there[address:address + length] = data
        self._stale = False

    def _runs(self, blocks):
        """Address and length of runs of consecutive blocks, none longer than a frame takes."""
        longest = self.link.capabilities.block_bytes // CHANGE_BYTES
        start = 0
        for index in range(1, len(blocks) + 1):
            if (index == len(blocks) or blocks[index] != blocks[index - 1] + 1
                    or index - start == longest):
                yield int(blocks[start]) * CHANGE_BYTES, (index - start) * CHANGE_BYTES
                start = index
