"""Many programs on the RTL and on the emulator; what differs is shrunk and saved."""

import random
from dataclasses import replace
from itertools import chain
from pathlib import Path

from macaw_hw.config import CONFIGS, Config, named_config
from macaw_hw.isa import Fault, Queue

from ..emulator import EmulatorBackend
from ..tools import output_directory
from ..verilator.backend import ProtocolError, VerilatorBackend
from .case import Case, Local, Mismatch, compare, counters, image_bytes, listing
from .coverage import Coverage
from .directed import long_case, overflow_case, rule_cases
from .generator import Generator, dump_case
from .illegal import KINDS, illegal_case
from .judge import Model, judge
from .limits import limit_cases
from .shrink import shrink

__all__ = ["Failure", "legal", "illegal", "replay", "timing"]

_FAILURES = (Mismatch, ProtocolError)
_DUMP_EVERY = 20
_SEEDS = 4


class Failure(AssertionError):
    """A mismatch, with the file that repeats it.

    Attributes
    ----------
    path : Path or None
    """

    def __init__(self, message, path=None):
        super().__init__(message)
        self.path = path


def timing(seed: int) -> dict:
    """Options of the memory model, drawn from a seed."""
    draw = random.Random(seed)
    return {"read_latency": draw.choice([1, 2, 7, 40, 150]), "write_latency": draw.choice([1, 5, 20, 100]),
            "read_bandwidth": draw.choice([1.0, 1.0, 0.5, 0.11]), "write_bandwidth": draw.choice([1.0, 1.0, 0.6]),
            "stalls": draw.choice([0.0, 0.1, 0.4]), "outstanding": draw.choice([1, 2, 16]),
            "reorder": draw.random() < 0.5, "interleave": draw.random() < 0.5}


def device(config: Config, seed: int, options: dict, verilog: str | None = None):
    """The RTL, its Verilog not rewritten for speed, with a memory that has room for every case."""
    return VerilatorBackend(config, dram_bytes=image_bytes(config), seed=seed, verilog=verilog, merge=False, **options)


def legal(config: Config, *, programs: int, seed: int, options: dict | None = None, length: int | None = None,
          verilog: str | None = None, coverage: Coverage | None = None, save: bool = True) -> None:
    """Compare ``programs`` random legal programs: registers and memory after each, local memories now and then.

    Parameters
    ----------
    seed : int
        Of the programs, and of the memory's ``options`` unless given.
    length : int, optional
        Instructions of a program; by default drawn for each.
    verilog : str, optional
        Instead of that generated for ``config``.
    save : bool
        Shrink and save a failure.

    Raises
    ------
    Failure
        On the first difference.
    """
    options = timing(seed) if options is None else options
    generator, dump = Generator(config, seed), dump_case(config)
    rtl = device(config, seed, options, verilog)
    emulator = EmulatorBackend(config, dram_bytes=image_bytes(config))
    recent: list[Case] = []
    try:
        for number in range(programs):
            local = Local.of(generator.state)
            case = generator.case(length)
            recent = [*recent[-_DUMP_EVERY:], replace(case, local=local)]
            try:
                compare(rtl, emulator, case)
                if coverage is not None:
                    coverage.program(case, counters(rtl))
                if number % _DUMP_EVERY == _DUMP_EVERY - 1 or number == programs - 1:
                    compare(rtl, emulator, dump)
            except _FAILURES as error:
                raise _failure(config, recent[::-1], seed, options, verilog, f"program {number}: {error}",
                               save) from None
    finally:
        rtl.close()
        emulator.close()


def illegal(config: Config, *, programs: int, seed: int, options: dict | None = None, verilog: str | None = None,
            kinds=KINDS, overflow: bool = True, rules: bool = False, long=(),
            coverage: Coverage | None = None, save: bool = True) -> None:
    """Judge ``programs`` programs that fault, each followed by a legal one on the same device.

    ``kinds`` are taken in turns; with ``overflow`` too many tokens from each queue to some other follow,
    with ``rules`` each single break of a rule of the instruction set and all of `limits.limit_cases`, then the programs
    ``long`` as `directed.LONG` has them.
    Other parameters and errors as for `legal`.
    """
    options = timing(seed) if options is None else options
    generator = Generator(config, seed, wide=False)
    ranges = generator.fields.regions
    rtl = device(config, seed, options, verilog)
    try:
        for number in range(programs):
            kind = kinds[number % len(kinds)]
            bad = illegal_case(generator, kind, int(generator.rng.integers(1, 30)))
            local = Local.of(generator.state)
            good = replace(generator.case(int(generator.rng.integers(1, 8))), local=local)
            _judge_all(rtl, (bad, good), ranges, config, seed, options, verilog, f"program {number} ({kind})", save,
                       coverage)
        for source in Queue if overflow else ():
            target = Queue((source + int(generator.rng.integers(1, len(Queue)))) % len(Queue))
            cases = [overflow_case(generator, source, target, extra) for extra in (0, 1)]
            _judge_all(rtl, cases, ranges, config, seed, options, verilog, "tokens", save, coverage)
        for what, case in chain(rule_cases(generator), limit_cases(generator)) if rules else ():
            _judge_all(rtl, (case,), ranges, config, seed, options, verilog, what, save, coverage)
        for queue, end, number in long:
            case = long_case(generator, queue, end, number)
            _judge_all(rtl, (case,), ranges, config, seed, options, verilog, f"{number} instructions", save, coverage)
    finally:
        rtl.close()


def _judge_all(rtl, cases, ranges, config, seed, options, verilog, what, save, coverage):
    for case in cases:
        try:
            expected, registers = judge(rtl, case, ranges)
            if coverage is not None:
                coverage.outcome(case, registers, expected)
        except _FAILURES as error:
            raise _failure(config, [case], seed, options, verilog, f"{what}: {error}", save) from None


def _failure(config, cases, seed, options, verilog, message, save):
    """Shrink the first of ``cases`` that fails by itself, and save it."""
    message = f"seed {seed}: {message}"
    if not save:
        return Failure(message)
    for case in cases:
        clean = _clean(config, case)
        for memory_seed in range(seed, seed + _SEEDS):
            def fails(candidate, memory_seed=memory_seed, clean=clean):
                same = _clean(config, candidate) == clean
                return same and _difference(config, candidate, memory_seed, options, verilog) is not None
            if fails(case):
                small = shrink(config, case, fails)
                return _saved(config, small, case, seed, memory_seed, options, message)
    return _saved(config, cases[0], cases[0], seed, seed, options, f"{message} (not repeated by this program alone)")


def _clean(config, case):
    """Whether a case ends without fault: a shrunk program must not fail for another reason."""
    return all(code == Fault.NONE for code, _, _ in Model(config, case).expect().reports)


def _saved(config, case, original, seed, memory_seed, options, message):
    name = next(name for name, known in CONFIGS.items() if known == config)
    path = output_directory("fuzz") / f"{name}-{seed}.npz"
    case.save(path, config=name, seed=memory_seed, options=options, message=message,
              original=original.program.hex())
    return Failure(f"{message}\n{listing(case.program)}\nrepeat: python -m macaw_sim.fuzz --replay {path}", path)




def _difference(config, case, seed, options, verilog):
    rtl = device(config, seed, options, verilog)
    try:
        judge(rtl, case)
    except _FAILURES as error:
        return str(error)
    finally:
        rtl.close()
    return None


def replay(path: Path, verilog: str | None = None) -> str | None:
    """Run a saved case again on a new device: the difference, or None."""
    case, about = Case.load(path)
    return _difference(named_config(about["config"]), case, about["seed"], about["options"], verilog)
