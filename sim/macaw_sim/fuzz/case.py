"""A program with all that it starts from, and how two devices run it."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from macaw.disassembler import disassemble
from macaw_hw.config import Config
from macaw_hw.isa import INSTRUCTION_BYTES, DataFormat
from macaw_hw.registers import COUNTERS, REGISTERS

from ..backend import Backend, BusError
from ..emulator.state import State

__all__ = ["DATA", "DATA_BYTES", "DUMP", "MAX_CYCLES", "RESULT", "Case", "Local", "Mismatch", "Target", "compare",
           "counters", "image_bytes", "instructions", "listing", "read", "run", "settle", "start", "transfers", "write"]

DATA, DATA_BYTES = 0x1_0000, 0x1_0000
"""Where the programs' data are; the program is below, unless a case says otherwise."""
DUMP = 0x4_0000
"""Where the contents of the local memories travel through."""
MAX_CYCLES = 4_000_000
RESULT = ("status", "fault_code", "fault_unit", "fault_instruction", "instructions")


class Target(Backend, Protocol):
    """A backend whose memory can answer with errors."""

    def inject_error(self, address: int, length: int = 1, *, response: str = "SLVERR", on: str = "both") -> None:
        """As `macaw_sim.verilator.backend.VerilatorBackend` has it."""

    def clear_errors(self) -> None:
        """Undo all `inject_error`."""


class Mismatch(AssertionError):
    """The device does what it must not; the message says what."""


@dataclass(frozen=True)
class Local:
    """Contents of the local memories: uint32 [vector_rows, N], int8 [tiles, N, N], int16 [tiles]."""
    bits: np.ndarray
    mantissas: np.ndarray
    exponents: np.ndarray

    @classmethod
    def of(cls, state: State) -> "Local":
        return cls(state.bits.copy(), state.mantissas.copy(), state.exponents.copy())

    def put(self, state: State) -> None:
        state.bits[:], state.mantissas[:], state.exponents[:] = self.bits, self.mantissas, self.exponents


@dataclass(frozen=True, eq=False)
class Case:
    """What determines a run, but for the timing of the memory.

    Attributes
    ----------
    program : bytes
        Instructions.
    dram : uint8 array
        Memory before the start; the program is in it.
    address : int
        Of the program.
    window : (int, int) or None
        First byte, first byte beyond; None is all of ``dram``.
    errors : tuple of (int, int, str)
        Address, length and direction (read, write, both) of bytes that answer with a bus error.
    watchdog : int
    local : Local or None
        What the local memories hold, where that matters.
    """
    program: bytes
    dram: np.ndarray
    address: int = 0
    window: tuple[int, int] | None = None
    errors: tuple = ()
    watchdog: int = 20_000
    local: Local | None = field(default=None, repr=False)

    def with_program(self, program: bytes) -> "Case":
        """The same with another program, which is also put into memory."""
        dram = self.dram.copy()
        dram[self.address:self.address + len(self.program)] = 0
        dram[self.address:self.address + len(program)] = np.frombuffer(program, np.uint8)
        return replace(self, program=program, dram=dram)

    def save(self, path, **about) -> None:
        """Write to an ``.npz`` file, with plain values ``about`` it that `load` gives back."""
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {"address": self.address, "window": self.window, "errors": self.errors, "watchdog": self.watchdog,
                  "about": about}
        local = {} if self.local is None else vars(self.local)
        np.savez_compressed(path, header=json.dumps(header), dram=self.dram,
                            program=np.frombuffer(self.program, np.uint8), **local)

    @classmethod
    def load(cls, path) -> tuple["Case", dict]:
        with np.load(path) as file:
            header = json.loads(str(file["header"]))
            names = ("bits", "mantissas", "exponents")
            local = Local(*(file[name] for name in names)) if "bits" in file else None
            window = header["window"] and tuple(header["window"])
            case = cls(file["program"].tobytes(), file["dram"], header["address"], window,
                       tuple(map(tuple, header["errors"])), header["watchdog"], local)
            return case, header["about"]


def instructions(program: bytes) -> list[bytes]:
    return [program[at:at + INSTRUCTION_BYTES] for at in range(0, len(program), INSTRUCTION_BYTES)]


def listing(program: bytes) -> str:
    """One line for each instruction."""
    return "\n".join(f"{index:6}  {disassemble(one)}" for index, one in enumerate(instructions(program)))


def image_bytes(config: Config) -> int:
    """Memory that the cases of a configuration need."""
    size = DUMP + config.vector_rows * config.row_bytes + config.tiles * config.tile_bytes
    return max(1 << 20, -(-size // 4096) * 4096)


def write(backend: Backend, name: str, value: int) -> None:
    """Write a register by name, both words of a long one."""
    for low in range(0, REGISTERS[name].width, 32):
        backend.write_register(REGISTERS[name].offset + low // 8, value >> low & 0xFFFFFFFF)


def read(backend: Backend, name: str) -> int:
    """A register by name, both words of a long one."""
    register = REGISTERS[name]
    return sum(backend.read_register(register.offset + low // 8) << low for low in range(0, register.width, 32))


def start(backend: Target, case: Case, before: Callable[[], None] = lambda: None) -> None:
    """Put a case into memory and registers, call ``before``, and ring the doorbell."""
    if case.dram.size > backend.dram.size:
        raise ValueError(f"the case needs {case.dram.size} bytes of memory, the backend has {backend.dram.size}")
    backend.dram[:case.dram.size] = case.dram
    backend.clear_errors()
    for address, length, on in case.errors:
        backend.inject_error(address, length, on=on)
    base, limit = case.window or (0, backend.dram.size)
    for name, value in (("irq_status", 7), ("irq_enable", 7), ("program_address", case.address),
                        ("program_length", len(case.program) // INSTRUCTION_BYTES), ("watchdog", case.watchdog),
                        ("window_base", base), ("window_limit", limit)):
        write(backend, name, value)
    before()
    write(backend, "control", 1)


def settle(backend: Backend, max_cycles: int = MAX_CYCLES) -> dict[str, int]:
    """Wait for the end of a program and of its bursts; status and fault registers."""
    if not backend.wait_interrupt(max_cycles):
        raise Mismatch(f"no interrupt within {max_cycles} cycles")
    running = REGISTERS["status"].bits[0].mask
    for _ in range(100_000):
        if not read(backend, "status") & running:
            return {name: read(backend, name) for name in RESULT}
    raise Mismatch("the device does not stop draining")


def run(backend: Target, case: Case, max_cycles: int = MAX_CYCLES, before=lambda: None) -> dict[str, int]:
    """Run a case; status and fault registers. ``backend.dram`` holds the memory after it."""
    start(backend, case, before)
    try:
        return settle(backend, max_cycles)
    except BusError as error:
        raise Mismatch(str(error)) from None


def counters(backend: Backend) -> dict[str, int]:
    """All counters of the last program."""
    return {name: read(backend, name) for name in COUNTERS}


def compare(first: Target, second: Target, case: Case) -> None:
    """Run a case that does not fault on both; `Mismatch` says where registers or memory differ."""
    registers = run(first, case), run(second, case)
    if registers[0]["fault_code"] and registers[1]["fault_code"]:
        raise Mismatch(f"a legal program ends with a fault on both: {registers[0]}")
    if registers[0] != registers[1]:
        raise Mismatch(f"registers differ: {registers[0]} and {registers[1]}")
    different = np.flatnonzero(first.dram != second.dram)
    if different.size:
        at = int(different[0])
        raise Mismatch(f"{different.size} bytes of memory differ, the first at {at:#x}: "
                       f"{first.dram[at]:#04x} and {second.dram[at]:#04x}")


def transfers(config: Config, ranges=None):
    """Fields of the transfers of both local memories from or to ``DUMP``: (fields, place in ``Local``)."""
    at = DUMP
    if ranges is None:
        ranges = {"row": [(0, config.vector_rows)], "tile": [(0, config.tiles)]}
    for kind, format, size, run in (("row", DataFormat.FLOAT32, config.row_bytes, config.size),
                                    ("tile", DataFormat.BFP8, config.tile_bytes, 1)):
        for first, beyond in ranges[kind]:
            for place in range(first, beyond, 1024):
                count = min(1024, beyond - place)
                yield {"format": format, "address": at, "local": place, "run": count * run}
                at += count * size
