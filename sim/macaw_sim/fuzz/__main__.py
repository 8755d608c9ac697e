"""``python -m macaw_sim.fuzz``: campaigns of random programs, and the replay of a failure."""

import argparse
import sys
import time
from pathlib import Path

from macaw_hw.config import CONFIGS, named_config

from ..tools import ToolError
from ..verilator.build import BuildError
from . import beats, campaign, moments
from .case import Case, listing
from .coverage import Coverage

_CHUNK = 200
"""Programs with one seed and one timing of the memory."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="macaw_sim.fuzz", description="Random programs on the RTL and the emulator.")
    parser.add_argument("--config", default="n4", choices=CONFIGS)
    parser.add_argument("--seed", type=int, default=1, help=f"of the first {_CHUNK} programs; the next have the next")
    parser.add_argument("--count", type=int, default=1000, help="legal programs")
    parser.add_argument("--illegal", type=int, help="programs that fault (default: COUNT / 4)")
    parser.add_argument("--moments", type=int, help="disturbed runs (default: COUNT / 4)")
    parser.add_argument("--beats", type=int, help="runs with an error in each beat in turn (default: COUNT / 4)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="repeat a saved failure")
    arguments = parser.parse_args()
    for name in ("count", "illegal", "moments", "beats"):
        value = getattr(arguments, name)
        if value is not None and value < 0:
            parser.error(f"--{name} must be at least 0, not {value}")
    if arguments.replay and not arguments.replay.is_file():
        parser.error(f"there is no file {arguments.replay}; failures are saved under build/fuzz")
    try:
        return _replay(arguments.replay) if arguments.replay else _campaigns(arguments)
    except (ToolError, BuildError) as error:
        print(f"macaw: error: {error}", file=sys.stderr)
        return 1


def _campaigns(arguments):
    config = named_config(arguments.config)
    coverage, begun = Coverage(config), time.monotonic()
    quarter = arguments.count // 4
    try:
        for name, count, work in (
                ("legal", arguments.count, lambda n, seed: campaign.legal(
                    config, programs=n, seed=seed, coverage=coverage)),
                ("illegal", quarter if arguments.illegal is None else arguments.illegal,
                 lambda n, seed: campaign.illegal(config, programs=n, seed=seed, coverage=coverage)),
                ("disturbed", quarter if arguments.moments is None else arguments.moments,
                 lambda n, seed: moments.campaign(config, runs=n, seed=seed, coverage=coverage)),
                ("beats", quarter if arguments.beats is None else arguments.beats,
                 lambda n, seed: beats.campaign(config, runs=n, seed=seed, coverage=coverage))):
            for number, done in enumerate(range(0, count, _CHUNK)):
                work(min(_CHUNK, count - done), arguments.seed + number)
                print(f"{arguments.config}: {name} {min(count, done + _CHUNK)} of {count}, seed "
                      f"{arguments.seed + number}, {time.monotonic() - begun:.0f} s", flush=True)
    except campaign.Failure as failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"no mismatch\n\n{coverage.report()}")
    return 0


def _replay(path):
    case, about = Case.load(path)
    print(f"{about['config']}, found as: {about['message']}\n{listing(bytes.fromhex(about['original']))}\n"
          f"shrunk:\n{listing(case.program)}")
    difference = campaign.replay(path)
    print(f"now: {difference or 'no mismatch'}")
    return int(difference is not None)


if __name__ == "__main__":
    sys.exit(main())
