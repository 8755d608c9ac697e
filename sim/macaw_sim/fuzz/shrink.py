"""Makes a failing program as short as it can be (delta debugging: Zeller and Hildebrandt, 2002)."""

import time

from macaw_hw import isa
from macaw_hw.config import Config

from ..emulator.synchronization import SynchronizationError
from .case import Case, instructions
from .tokens import encode, synchronized, without

__all__ = ["shrink"]

_SECONDS = 60.0
_MEMORY = ("count0", "count1", "count2", "count3", "run")
_SMALLER = {isa.Opcode.LOAD: _MEMORY, isa.Opcode.STORE: _MEMORY, isa.Opcode.MATRIX: ("rows", "k_tiles"),
            isa.Opcode.VECTOR: ("inner", "outer", "shuffle")}


def shrink(config: Config, case: Case, fails, *, seconds: float = _SECONDS) -> Case:
    """A case with fewer and smaller instructions for which ``fails(case)`` still holds.

    Instructions are left out in halves, quarters and so on down to single ones, until none can be spared; then
    counts are made 1. What is left gets just the tokens that it needs if that still fails, else it keeps
    its tokens but those of what was left out. ``fails`` may raise SynchronizationError or ValueError for
    a program that makes no sense; that counts as no failure.
    """
    limit = time.monotonic() + seconds

    def holds(candidate):
        try:
            return time.monotonic() < limit and candidate.program != b"" and fails(candidate)
        except (SynchronizationError, ValueError):
            return False

    def variants(program, dropped):
        kept = b"".join(one for index, one in enumerate(instructions(program)) if index not in dropped)
        for make in (lambda: synchronized(kept, config), lambda: without(program, dropped), lambda: kept):
            try:
                yield case.with_program(make())
            except (ValueError, AssertionError):
                continue

    size = max(1, len(instructions(case.program)) // 2)
    while size:
        at, spared = 0, False
        while at < len(instructions(case.program)):
            dropped = set(range(at, at + size))
            found = next((v for v in variants(case.program, dropped) if holds(v)), None)
            if found is None:
                at += size
            else:
                case, spared = found, True
        if not (size == 1 and spared):
            size //= 2
    return _smaller(case, holds)


def _smaller(case, holds):
    for index in range(len(instructions(case.program))):
        try:
            decoded = [isa.decode(one) for one in instructions(case.program)]
        except ValueError:
            return case
        format, fields = decoded[index]
        for name in _SMALLER[format.opcode]:
            before = fields[name]
            least = 0 if name == "shuffle" else 1
            for value in (least, before // 2):
                if least <= value < before:
                    fields[name] = value
                    candidate = case.with_program(encode(decoded))
                    if holds(candidate):
                        case = candidate
                        break
                    fields[name] = before
    return case
