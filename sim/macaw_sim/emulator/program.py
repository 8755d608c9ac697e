"""A program, decoded and scheduled once for all its runs."""

import struct
from functools import lru_cache

from macaw_hw import isa
from macaw_hw.config import Config
from macaw_hw.isa import INSTRUCTION_BYTES, Fault, Opcode

from .dma import Load, Store
from .matrix import Matrix
from .schedule import Header, schedule
from .synchronization import SynchronizationError, check
from .vector import Vector

__all__ = ["Program", "describe"]

_UNITS = {Opcode.LOAD: Load, Opcode.MATRIX: Matrix, Opcode.VECTOR: Vector, Opcode.STORE: Store}


def describe(instruction: bytes) -> str:
    """Short form of 32 bytes of instruction: operation and fields, without those at their default."""
    format, fields = isa.decode(instruction)
    words = [format.opcode.name]
    for name, kind in (("op", isa.VectorOp), ("format", isa.DataFormat)):
        if name in fields:
            words.append(kind(fields.pop(name)).name)
    if "scalar" in fields:
        fields["scalar"] = struct.unpack("<f", fields["scalar"].to_bytes(4, "little"))[0]
    for name, value in fields.items():
        if name == "opcode" or value == (1 if name.startswith("count") else 0):
            continue
        words.append(f"{name}=0x{value:x}" if name == "address" else f"{name}={value:.9g}" if name == "scalar"
                     else f"{name}={value}")
    return " ".join(words)


@lru_cache(maxsize=1 << 14)
def _decode(instruction: bytes, config: Config):
    """The header and the unit's model of an instruction, or None when it is illegal."""
    try:
        format, fields = isa.decode(instruction)
    except ValueError:
        return None
    if any(broken for _, broken in isa.violations(format, fields, config.size)):
        return None
    return Header(int(format.queue), fields["wait"], fields["post"]), _UNITS[format.opcode](fields, config)


class Program:
    """What a device of ``config`` does with the instructions ``content``, whatever its memories hold.

    Attributes
    ----------
    steps : list
        The model of each instruction, up to the first illegal one.
    headers : list of Header
        Their queues and tokens.
    schedule : Schedule
        The order in which they run. When one ends the program wherever it runs, the order goes no further.
    illegal : bool
        An illegal instruction follows the last step.
    """

    def __init__(self, content: bytes, config: Config):
        self._content, self._config = content, config
        decoded = []
        self.illegal = False
        for start in range(0, len(content), INSTRUCTION_BYTES):
            known = _decode(content[start:start + INSTRUCTION_BYTES], config)
            if known is None:
                self.illegal = True
                break
            decoded.append(known)
        self.headers = [header for header, _ in decoded]
        self.steps = [step for _, step in decoded]
        self.schedule = schedule(self.headers, config.queue_depth)
        self._checked = False
        self._error: SynchronizationError | None = None

    def check(self) -> None:
        """Raise `SynchronizationError` when tokens leave the order of conflicting accesses open."""
        if not self._checked:
            order = []
            for index in self.schedule.order:
                if self.steps[index].fault != Fault.NONE:
                    break
                order.append(index)
            try:
                check(self.headers, self.steps, order, self._config, self._describe)
            except SynchronizationError as error:
                self._error = error
            self._checked = True
        if self._error:
            raise SynchronizationError(str(self._error), self._error.instructions)

    def _describe(self, index: int) -> str:
        return describe(self._content[index * INSTRUCTION_BYTES:(index + 1) * INSTRUCTION_BYTES])
