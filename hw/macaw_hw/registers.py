"""The AXI4-Lite register map, described once: hardware, driver and docs read it here.

All registers are 32 bits wide, at multiples of 4. A 64-bit quantity is two registers, low word
first; reading the low word of a counter latches its high word, so that the pair is consistent.

An access answers SLVERR, and changes nothing, where there is no register, on a write to a register
that is read only, and on a write to one that is `locked` while a program runs. Byte strobes are
honoured; the two low address bits are ignored. A register that is write only reads as zero.
"""

from dataclasses import dataclass

from amaranth.lib import enum

from .isa import Fault, FaultUnit, Queue

__all__ = ["IDENTITY", "VERSION", "REGISTER_SPACE", "Access", "Bits", "Register", "REGISTERS", "COUNTERS",
           "CONFIG_REGISTERS"]

IDENTITY = 0x4D434157
"""The ASCII letters MCAW."""
VERSION = 0x0001_0000
"""Major version in the upper, minor in the lower 16 bits."""
REGISTER_SPACE = 0x1000
"""Bytes of address space; an access outside the map answers SLVERR."""


class Access(enum.Enum):
    READ = "read only"
    WRITE = "write only"
    READ_WRITE = "read/write"
    CLEAR = "read, write 1 to clear"


@dataclass(frozen=True)
class Bits:
    """A bit field of a register."""
    name: str
    low: int
    width: int
    doc: str

    def extract(self, value):
        return value >> self.low & (1 << self.width) - 1

    @property
    def mask(self):
        return (1 << self.width) - 1 << self.low


@dataclass(frozen=True)
class Register:
    """One 32-bit register, or with ``width`` 64 a pair of them."""
    name: str
    offset: int
    access: Access
    doc: str
    bits: tuple = ()
    width: int = 32
    reset: int = 0
    locked: bool = False
    """Describes the program: cannot be written while one runs."""


COUNTERS = {
    "cycles": "Cycles from doorbell to end of program.",
    **{f"{queue.name.lower()}_{kind}": doc.format(queue=queue.name)
       for queue in Queue
       for kind, doc in (
           ("busy", "Cycles with a {queue} instruction in execution."),
           ("wait_token", "Cycles the head of the {queue} queue waits for a token."),
           ("wait_memory", "Cycles the {queue} unit waits for a bank of a local memory."),
           ("wait_other", "Cycles the {queue} unit waits for the bus (load, store), for weights or the "
                          "accumulation latency (matrix), or for the quantizer or the instruction before (vector)."))},
    "fetch_blocked": "Cycles a fetched instruction waits for room in its queue.",
    "instructions": "Instructions completed.",
    "beats_read": "AXI4 read beats, instructions included.",
    "beats_written": "AXI4 write beats.",
}
"""64-bit event counters; cleared by the doorbell, stopped at the end of the program."""

CONFIG_REGISTERS = ("size", "vector_banks", "vector_bank_rows", "tile_banks", "tile_bank_tiles", "bus_bytes",
                    "address_width", "queue_depth")
"""Fields of `Config` that can be read from the device, in order."""

_CONTROL = (Bits("start", 0, 1, "The doorbell: run the program. Ignored, with status unchanged, while running."),
            Bits("abort", 1, 1, "Stop the program and reset all units once outstanding bursts have ended."))
_STATUS = (Bits("running", 0, 1, "A program runs, or an aborted one still drains."),
           Bits("done", 1, 1, "The last program ended without fault."),
           Bits("fault", 2, 1, "The last program was stopped by a fault."),
           Bits("aborted", 3, 1, "The last program was stopped by `abort`."))
_IRQ = (Bits("done", 0, 1, "Program ended without fault."), Bits("fault", 1, 1, "Program stopped by a fault."),
        Bits("aborted", 2, 1, "Program stopped by `abort`."))


def _map():
    offset = 0
    def register(name, access, doc, bits=(), width=32, reset=0, locked=False):
        nonlocal offset
        offset = (offset + width // 8 - 1) & -(width // 8)
        yield name, Register(name, offset, access, doc, bits, width, reset, locked)
        offset += width // 8
    yield from register("identity", Access.READ, "The letters MCAW.", reset=IDENTITY)
    yield from register("version", Access.READ, "Major version in bits 31:16, minor in 15:0.", reset=VERSION)
    for name in CONFIG_REGISTERS:
        yield from register(name, Access.READ, f"`Config.{name}`.")
    yield from register("control", Access.WRITE, "Start and abort.", _CONTROL)
    yield from register("status", Access.READ, "What the device does, and how the last program ended.", _STATUS)
    yield from register("irq_enable", Access.READ_WRITE, "Events that raise `irq`.", _IRQ)
    yield from register("irq_status", Access.CLEAR, "Events since they were last cleared.", _IRQ)
    yield from register("program_address", Access.READ_WRITE, "Byte address of the first instruction; a multiple "
                        "of 32 (the low 5 bits read as zero).", width=64, locked=True)
    yield from register("program_length", Access.READ_WRITE, "Instructions in the program, below 2^24; 0 ends at "
                        "once.", locked=True)
    yield from register("watchdog", Access.READ_WRITE, "Cycles without any progress after which a program is "
                        "stopped; 0 is never.", reset=1 << 20, locked=True)
    yield from register("window_base", Access.READ_WRITE, "First byte the DMA may touch.", width=64, locked=True)
    yield from register("window_limit", Access.READ_WRITE, "First byte beyond what the DMA may touch.", width=64,
                        locked=True)
    yield from register("fault_code", Access.READ, "; ".join(f"{int(f)} {f.name}" for f in Fault) + ".")
    yield from register("fault_unit", Access.READ, "; ".join(f"{int(u)} {u.name}" for u in FaultUnit) + ".")
    yield from register("fault_instruction", Access.READ, "Index of the faulting instruction in the program.")
    for name, doc in COUNTERS.items():
        yield from register(name, Access.READ, doc, width=64)


REGISTERS = dict(_map())
