"""``python -m macaw_sim.mutate``: draws mutations of the RTL and looks which of them the checks catch."""

import argparse
import re
import sys
import time

from macaw_hw.config import CONFIGS, named_config

from ..tools import ToolError
from ..verilator.build import BuildError
from . import report
from .campaign import STAGES, Campaign
from .netlist import UNITS, generate

_GOAL = 0.95


def main() -> int:
    parser = argparse.ArgumentParser(prog="macaw_sim.mutate",
                                     description="Single mutations of the RTL, and whether the checks notice them. "
                                                 "A campaign that was stopped goes on where it was.")
    parser.add_argument("--config", default="n4", choices=CONFIGS)
    parser.add_argument("--count", type=int, default=400, help="mutations (default: 400)")
    parser.add_argument("--seed", type=int, default=1, help="of the mutations and of the programs")
    parser.add_argument("--unit", choices=UNITS, help="all of them in this unit")
    parser.add_argument("--stages", nargs="+", default=STAGES, choices=STAGES, help="only these")
    parser.add_argument("--part", default="1/1", metavar="K/N",
                        help="only every N-th mutation, from the K-th on; parts can run at the same time")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error(f"--count must be at least 1, not {arguments.count}")
    part = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", arguments.part)
    if part is None or int(part[1]) > int(part[2]):
        parser.error(f"--part must be a number of a part and how many there are, such as 1/2, not {arguments.part!r}")
    config, begun = named_config(arguments.config), time.monotonic()
    try:
        netlist = generate(config, count=arguments.count, seed=arguments.seed, unit=arguments.unit)
        campaign = Campaign(config, netlist, seed=arguments.seed, part=(int(part[1]), int(part[2])),
                            say=lambda text: print(f"{time.monotonic() - begun:6.0f} s  {text}", flush=True))
        campaign.run(arguments.stages)
        campaign = Campaign(config, netlist, seed=arguments.seed)
    except (ToolError, BuildError, ValueError) as error:
        print(f"macaw: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on", file=sys.stderr)
        return 130
    print(f"\n{report.table(netlist.mutations, campaign.verdicts)}\nall results: {campaign.path}")
    caught, possible = report.score(netlist.mutations, campaign.verdicts)
    return int(caught < _GOAL * possible)


if __name__ == "__main__":
    sys.exit(main())
