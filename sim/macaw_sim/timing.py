"""Recorded cycle counts: every counter of the device after fixed programs.

Nothing else in the tests notices a change that only costs cycles, or a counter that counts wrongly. The programs are
kept with the counts, so that they stay the same when the fuzzer changes.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from macaw_hw import isa
from macaw_hw.config import CONFIGS, Config
from macaw_hw.isa import Fault, Opcode, Queue

from .fuzz.case import DATA, DATA_BYTES, Case, Mismatch, counters, image_bytes, instructions, run
from .fuzz.generator import Generator
from .verilator.backend import VerilatorBackend

__all__ = ["PATH", "check", "draw", "load", "measure", "save"]

PATH = Path(__file__).with_name("timing.json")
_MEMORIES: tuple[dict, ...] = ({"read_latency": 2, "write_latency": 2}, {}, {"read_latency": 90, "stalls": 0.2,
                               "read_bandwidth": 0.6, "write_bandwidth": 0.5, "outstanding": 4})
_SEED = 5
_LENGTH = 28
_PROGRAMS = {"n4": 30, "n16": 10}
_WATCHDOGS = (100, 341, 682, 1365, 2730, 5461, 10922, 21845)
"""Numbers of cycles after which a program that waits for ever is stopped."""


class _Plain(Generator):
    """Draws programs on `memory`."""

    def _fill(self, dram):
        dram[:] = memory(self.config)


def memory(config: Config) -> np.ndarray:
    """What the programs work on: moderate numbers, and tiles of moderate numbers."""
    rng = np.random.Generator(np.random.PCG64(_SEED))
    dram = np.zeros(image_bytes(config), np.uint8)
    half = DATA_BYTES // 2
    dram[DATA:DATA + half] = (rng.integers(-999, 1000, half // 4) / 64).astype(np.float32).view(np.uint8)
    size = config.tile_bytes
    for at in range(DATA + half, DATA + DATA_BYTES - size, size):
        dram[at + config.size:at + size] = rng.integers(0, 256, size - config.size)
    return dram


def draw(config: Config, number: int) -> list[bytes]:
    """New programs: half of them with many instructions of a kind in a row."""
    generator = _Plain(config, _SEED, wide=False)
    return [generator.case(_LENGTH).program for _ in range(number)]


def measure(config: Config, programs: list[bytes], verilog: str | None = None) -> list[list[dict[str, int]]]:
    """The counters of each program for each of three memories, then of one that waits for a token that never comes,
    with several watchdogs. `Mismatch` for another end than these have."""
    found: list[list[dict[str, int]]] = []
    content = memory(config)
    for options in _MEMORIES:
        device = VerilatorBackend(config, dram_bytes=content.size, seed=_SEED, verilog=verilog, **options)
        try:
            row = []
            for number, program in enumerate(programs):
                registers = run(device, Case(b"", content, 0).with_program(program), max_cycles=200_000)
                if registers["fault_code"]:
                    raise Mismatch(f"program {number} ended with {registers}")
                row.append(counters(device))
            found.append(row)
        finally:
            device.close()
    return [*found, _watchdogs(config, content, verilog)]


def _watchdogs(config, content, verilog):
    device = VerilatorBackend(config, dram_bytes=content.size, seed=_SEED, verilog=verilog, **_MEMORIES[0])
    waiting = Case(b"", content, 0).with_program(isa.encode(Opcode.LOAD, run=1, address=DATA, wait=1 << Queue.STORE))
    try:
        row = []
        for cycles in _WATCHDOGS:
            registers = run(device, replace(waiting, watchdog=cycles), max_cycles=200_000)
            if registers["fault_code"] != Fault.WATCHDOG:
                raise Mismatch(f"the watchdog of {cycles} cycles: {registers}")
            row.append(counters(device))
        return row
    finally:
        device.close()


def load(config: Config) -> tuple[list[bytes], list[list[dict[str, int]]]]:
    """The recorded programs of a configuration, and their counters for each memory."""
    stored = json.loads(PATH.read_text())[_name(config)]
    names = stored["counters"]
    return ([bytes.fromhex(text) for text in stored["programs"]],
            [[dict(zip(names, row, strict=True)) for row in rows] for rows in stored["values"]])


def save(config: Config, programs: list[bytes], measured: list[list[dict[str, int]]]) -> None:
    """Record programs and counters in place of those of the configuration."""
    stored = json.loads(PATH.read_text()) if PATH.exists() else {}
    names = list(measured[0][0])
    stored[_name(config)] = {"counters": names, "programs": [program.hex() for program in programs],
                             "values": [[[row[name] for name in names] for row in rows] for rows in measured]}
    PATH.write_text(json.dumps(stored, separators=(",", ":")).replace('],[', '],\n[').replace('","', '",\n"') + "\n")


def check(config: Config, verilog: str | None = None) -> None:
    """Measure again: `Mismatch` names the first program and the counters that are not as recorded."""
    programs, expected = load(config)
    places = (*(f"with memory {options}" for options in _MEMORIES), "with a watchdog")
    for place, before, now in zip(places, expected, measure(config, programs, verilog), strict=True):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            different = [f"{name} {new[name]} instead of {old[name]}" for name in old if new[name] != old[name]]
            if different:
                raise Mismatch(f"program {number} {place}: {', '.join(different)}; if the change is meant, record it: "
                               "python -m macaw_sim.timing")


def _name(config):
    return next(name for name, known in CONFIGS.items() if known == config)


def main() -> None:
    """Record both configurations anew: the programs stay, unless there are none yet."""
    for name, number in _PROGRAMS.items():
        config = CONFIGS[name]
        known = PATH.exists() and name in json.loads(PATH.read_text())
        programs = load(config)[0] if known else draw(config, number)
        save(config, programs, measure(config, programs))
        print(f"{name}: {len(programs)} programs, {sum(len(instructions(one)) for one in programs)} instructions")


if __name__ == "__main__":
    main()
