"""``python -m macaw_sim.formal``: proves everything, shows that the proofs can fail, and prints a table."""

import argparse
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from ..tools import ToolError, output_directory
from . import PROOFS, engine
from .mutants import MUTANTS


def main() -> int:
    parser = argparse.ArgumentParser(prog="macaw_sim.formal", description="Proofs about the units of the accelerator.")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="these proofs (a part of the name is enough)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2)")
    parser.add_argument("--no-mutants", action="store_true", help="do not show that the proofs can fail")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {arguments.jobs}")
    names = [name for name in PROOFS
             if arguments.only is None or any(part in name for part in arguments.only)]
    if not names:
        parser.error(f"--only must name one of {', '.join(PROOFS)}, not {' '.join(arguments.only)!r}")
    mutants = [] if arguments.no_mutants else [i for i, mutant in enumerate(MUTANTS) if mutant.proof in names]
    begun = time.monotonic()
    try:
        engine.yosys()
        with ProcessPoolExecutor(arguments.jobs) as pool:
            # The table is in order; a row appears once it and those above it are done.
            results = [_proof_row(result) for result in pool.map(_prove, names)]
            caught = [_mutant_row(*outcome) for outcome in pool.map(_challenge, mutants)]
    except ToolError as error:
        print(f"macaw: error: {error}", file=sys.stderr)
        return 1
    print(f"{sum(results)} of {len(results)} proofs hold, {sum(caught)} of {len(caught)} mutants are caught, "
          f"{time.monotonic() - begun:.0f} s")
    return int(not all(results + caught))


def _prove(name):
    return engine.run(PROOFS[name])


def _challenge(number):
    """Index and result of a mutant's proof."""
    mutant = MUTANTS[number]
    with mutant.applied():
        return number, engine.run(PROOFS[mutant.proof], output_directory("formal", f"mutant{number}"), reach=False)


def _proof_row(result):
    proof = PROOFS[result.name]
    print(f"{proof.name:<27}{proof.method:<12}{result.properties:>3} properties{result.registers:>6} registers"
          f"{result.seconds:>7.1f} s  {result.message}\n    {proof.what}", flush=True)
    if result.trace:
        print(f"    counterexample: {result.trace}", flush=True)
    return result.good


def _mutant_row(number, result):
    mutant = MUTANTS[number]
    good = bool(result.failed) and mutant.violates in result.failed[0]
    print(f"{mutant.proof:<27}{'mutant':<12}{result.seconds:>30.1f} s  "
          f"{'caught' if good else f'NOT CAUGHT ({result.message})'}\n    {mutant.change}", flush=True)
    return good


if __name__ == "__main__":
    sys.exit(main())
