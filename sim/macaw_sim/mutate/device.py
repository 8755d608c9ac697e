"""Devices with one of the mutations of a netlist, and the programs that they run."""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from macaw_hw.config import Config
from macaw_hw.isa import Fault, Queue

from ..backend import BusError
from ..fuzz.case import Case, Local, Mismatch, counters, image_bytes, read, settle, start
from ..fuzz.directed import long_case, overflow_case, rule_cases
from ..fuzz.generator import Generator, dump_case, fill_case
from ..fuzz.illegal import KINDS, illegal_case
from ..fuzz.judge import Model, conclude
from ..fuzz.limits import limit_cases
from ..verilator import backend
from ..verilator.backend import ProtocolError, VerilatorBackend
from ..verilator.build import build_library

__all__ = ["CAUGHT", "Mutant", "Step", "choose", "record", "replay"]

CAUGHT = (Mismatch, ProtocolError, BusError, TimeoutError)
"""What a device raises, or a check of it, that is not as it must be."""
_PATIENCE = 4
"""How many times as long as the unchanged device a changed one may run."""
_REGISTERS = ("irq_enable", "irq_status", "program_address", "program_length", "watchdog", "window_base",
              "window_limit")


def choose(verilog: str, number: int) -> None:
    """Devices with ``verilog`` (of a `Netlist`) that are made from now on have this mutation; 0 is none."""
    library = backend._load(build_library(verilog))
    ctypes.c_uint32.in_dll(library, "macaw_mutation").value = number


class Mutant(VerilatorBackend):
    """A device with one of the mutations; ``deadline`` is a cycle after which it counts as hanging."""

    deadline: int | None = None

    def __init__(self, config: Config, verilog: str, number: int, **options):
        choose(verilog, number)
        super().__init__(config, dram_bytes=image_bytes(config), verilog=verilog, **options)

    def read_register(self, offset: int) -> int:
        if self.deadline is not None and self.cycles > self.deadline:
            raise TimeoutError("the device hangs")
        return super().read_register(offset)

    def wait_interrupt(self, max_cycles: int) -> bool:
        if self.deadline is not None:
            max_cycles = min(max_cycles, max(self.deadline - self.cycles, 0))
        return super().wait_interrupt(max_cycles)


@dataclass
class Step:
    """A program, and what the unchanged device made of it.

    Attributes
    ----------
    name : str
    case : Case
        Its memory ends with the last byte that is not 0.
    races : bool
        Other outcomes than this one may be right; the model tells.
    registers, counters : dict
    dram : uint8 array
        Memory afterwards, up to the last byte that is not 0.
    cycles : int
        All that it took, accesses to registers included.
    """
    name: str
    case: Case
    races: bool
    registers: dict[str, int] = field(repr=False)
    counters: dict[str, int] = field(repr=False)
    dram: np.ndarray = field(repr=False)
    cycles: int


def _run(device, case):
    """Registers and counters after a case. The registers that it sets must read back."""
    device.dram[case.dram.size:] = 0
    start(device, case)
    registers = settle(device)
    return registers | {name: read(device, name) for name in _REGISTERS}, counters(device)


def _trimmed(dram):
    used = np.flatnonzero(dram)
    return dram[:used[-1] + 1 if used.size else 1].copy()


def record(device: Mutant, *, legal: int = 0, illegal: int = 0, kinds=KINDS, overflow: int = 0, long=(),
           rules: bool = False, seed: int) -> list[Step]:
    """Run programs as `fuzz.campaign` draws them on the device without mutation.

    Parameters
    ----------
    legal, illegal : int
        Number of programs; of those that fault, of the ``kinds`` in turns, each is followed by a legal one.
    overflow : int
        Pairs of queues, from the ``seed``-th on, that post as many tokens as fit, and one more.
    long : sequence
        Programs as `fuzz.directed.LONG` has them.
    rules : bool
        All of `fuzz.directed.rule_cases` and `fuzz.limits.limit_cases`.
    seed : int
    """
    steps: list[Step] = []

    def run(name, case, races=False):
        before = device.cycles
        short = replace(case, dram=_trimmed(case.dram))
        registers, counted = _run(device, short)
        steps.append(Step(name, short, races, registers, counted, _trimmed(device.dram), device.cycles - before))
        return registers["fault_code"] == Fault.NONE

    generator = Generator(device.config, seed)
    dump = dump_case(device.config)
    for number in range(legal):
        run(f"legal program {number}", generator.case())
        if number % 5 == 4 or number == legal - 1:
            run(f"local memories after legal program {number}", dump)
    for name, before, case, races, after in _faulting(device.config, illegal, kinds, overflow, long, rules, seed):
        if before is not None:
            run(f"memories before {name}", before)
        if run(name, case, races) and after is not None:
            run(f"local memories after {name}", after)
    return steps


def _faulting(config, illegal, kinds, overflow, long, rules, seed):
    """Name, what sets the local memories, program, whether other outcomes may be right, what stores the memories."""
    generator = Generator(config, seed, wide=False)
    regions = generator.fields.regions

    def drawn(name, case, local, races):
        return name, fill_case(config, local, regions), case, races, dump_case(config, regions)

    for number in range(illegal):
        kind = kinds[number % len(kinds)]
        bad = illegal_case(generator, kind, int(generator.rng.integers(1, 30)))
        yield drawn(f"{kind} program {number}", bad, bad.local, True)
        local = Local.of(generator.state)
        good = replace(generator.case(int(generator.rng.integers(1, 8))), local=local)
        yield drawn(f"program after {kind} program {number}", good, local, False)
    pairs = [(a, b) for a in Queue for b in Queue if a != b]
    for number in range(overflow):
        source, target = pairs[(seed + number) % len(pairs)]
        for extra in (0, 1):
            case = overflow_case(generator, source, target, extra)
            yield drawn(f"tokens {source.name}-{target.name} {extra}", case, case.local, True)
    for cases in (rule_cases, limit_cases) if rules else ():
        for what, case in cases(generator):
            yield what, None, case, True, None
    for queue, end, number in long:
        case = long_case(generator, queue, end, number)
        yield drawn(f"{number} instructions of {queue.name}, {end}", case, case.local, True)


def replay(device: Mutant, steps: list[Step], notice: Callable[[str], None] = lambda text: None) -> None:
    """Run recorded programs on a device with a mutation. One of `CAUGHT` says how it differs.

    ``notice`` is told of counters that differ, where nothing else does.
    """
    for step in steps:
        device.deadline = device.cycles + _PATIENCE * step.cycles + 20_000
        try:
            registers, counted = _run(device, step.case)
        except CAUGHT as error:
            raise Mismatch(f"{step.name}: {error}") from None
        used = step.dram.size
        if registers == step.registers and np.array_equal(device.dram[:used], step.dram) and not (
                device.dram[used:].any()):
            different = [name for name, value in step.counters.items() if counted[name] != value]
            if different:
                notice(f"{step.name}: {', '.join(different)}")
        elif step.races:
            whole = np.zeros(device.dram.size, np.uint8)
            whole[:step.case.dram.size] = step.case.dram
            try:
                conclude(device, Model(device.config, replace(step.case, dram=whole)), registers)
            except (*CAUGHT, ValueError) as error:
                # ValueError: a fault that there is not.
                raise Mismatch(f"{step.name}: {error}") from None
        else:
            raise Mismatch(f"{step.name}: {_difference(step, registers, device.dram)}")


def _difference(step, registers, dram):
    wrong = {name: (value, step.registers[name]) for name, value in registers.items()
             if value != step.registers[name]}
    if wrong:
        return ", ".join(f"{name} is {value:#x}, not {right:#x}" for name, (value, right) in wrong.items())
    expected = np.zeros_like(dram)
    expected[:step.dram.size] = step.dram
    different = np.flatnonzero(dram != expected)
    at = int(different[0])
    return f"{different.size} bytes of memory differ, the first at {at:#x}: {dram[at]:#04x}, not {expected[at]:#04x}"
