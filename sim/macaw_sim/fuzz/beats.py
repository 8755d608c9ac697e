"""An error response to every beat of every burst of a program, one after the other."""

from dataclasses import replace

from macaw_hw.config import Config
from macaw_hw.isa import INSTRUCTION_BYTES, Fault, Queue

from ..backend import BusError
from ..verilator.backend import STREAMS, ProtocolError, Watched
from .campaign import Failure, device, timing
from .case import Case, Local, Mismatch, run
from .coverage import Coverage
from .generator import Generator
from .judge import Model, conclude, prepare

__all__ = ["campaign", "every_beat", "strike"]

_FAILURES = (Mismatch, ProtocolError, BusError, TimeoutError)
_LENGTHS = (1, 9)
_MOST = 400
_QUEUES = {"load": Queue.LOAD, "store": Queue.STORE}


def campaign(config: Config, *, runs: int, seed: int, options: dict | None = None, verilog: str | None = None,
             coverage: Coverage | None = None) -> dict[str, int]:
    """At least ``runs`` runs of short programs: of each program one for every beat that it loads or fetches, and for
    every burst that it stores, in which this one is answered with SLVERR or DECERR. Half of the errors
    stay for all that follows.

    Each run must report the error at the instruction that the beat belongs to, with memory as
    `judge.Model` allows, and the same program without error must be right behind it.

    Returns
    -------
    dict
        Runs by stream (`macaw_sim.verilator.backend.STREAMS`), and ``programs``.

    Raises
    ------
    Failure
        On the first run that does not end as it must.
    """
    options = timing(seed) if options is None else options
    generator = Generator(config, seed, wide=False)
    ranges, done, programs = generator.fields.regions, dict.fromkeys(STREAMS, 0), 0
    rtl = device(config, seed, options, verilog)
    try:
        while sum(done.values()) < runs:
            local = Local.of(generator.state)
            case = replace(generator.case(int(generator.rng.integers(*_LENGTHS))), local=local)
            try:
                counts = every_beat(rtl, case, generator.rng, ranges, most=_MOST)
            except _FAILURES as error:
                raise Failure(f"seed {seed}: program {programs}: {error}") from None
            programs += bool(counts)
            for stream, count in counts.items():
                done[stream] += count
                if coverage is not None and count:
                    coverage.hit("moment", f"{stream}_error", "stopped")
    finally:
        rtl.close()
    return done | {"programs": programs}


def every_beat(rtl, case: Case, rng, ranges=None, most: int = 1 << 32) -> dict[str, int]:
    """Strike a legal program at each of its beats and bursts in turn, with a run without error behind each.

    ``ranges`` are those of the local memories to set before. Returns the runs by stream; none at all where they
    would be more than ``most``.
    """
    counts = _clean(rtl, case, ranges)
    if sum(counts.values()) > most:
        return {}
    for stream, count in counts.items():
        for number in range(count):
            end = number + 1 if rng.random() < 0.5 else 1 << 32
            try:
                strike(rtl, case, stream, number, end, ("SLVERR", "DECERR")[int(rng.integers(2))], ranges)
                _clean(rtl, case, ranges)
            except _FAILURES as error:
                raise Mismatch(f"error in {stream} {number}: {error}") from None
    return counts


def _clean(rtl, case, ranges):
    """Run a program without error; how much of each stream the memory answered."""
    prepare(rtl, case, ranges)
    registers = run(rtl, case, before=rtl.watch)
    conclude(rtl, Model(rtl.config, case), registers)
    return rtl.watched().counts


def strike(rtl, case: Case, stream: str, first: int, end: int, response: str, ranges=None) -> Watched:
    """Run a legal program with errors in beats (bursts) ``first`` up to ``end`` of a stream; raise `Mismatch` unless
    it ends with the report of an instruction that the first of them belongs to, and with memory to match."""
    prepare(rtl, case, ranges)
    registers = run(rtl, case, before=lambda: rtl.watch(stream, first, end, response=response))
    watched = rtl.watched()
    at = watched.struck
    rtl.watch()
    if at is None:
        raise Mismatch("there was no such beat")
    conclude(rtl, _model(rtl.config, case, stream, at, registers["fault_instruction"]), registers)
    return watched


def _model(config, case, stream, at, reported):
    """What an error at byte address ``at`` of a stream leads to."""
    if stream == "fetch":
        index = (at - case.address) // INSTRUCTION_BYTES
        return Model(config, case, fetched=(case.program[:index * INSTRUCTION_BYTES], Fault.BUS_READ))
    model = Model(config, case)
    touching = {index for index, header in enumerate(model.program.headers)
                if header.queue == _QUEUES[stream] and _touches(model.steps[index], at, config.bus_bytes)}
    if reported not in touching:
        raise Mismatch(f"instruction {reported} is reported, but the error belongs to one of {sorted(touching)}")
    return Model(config, case, struck=reported)


def _touches(step, at, bus_bytes):
    at &= -bus_bytes
    return bool(((step.starts < at + bus_bytes) & (at < step.starts + step._run_bytes)).any())
