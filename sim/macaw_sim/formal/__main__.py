"""``python -m macaw_sim.formal``: proves everything and prints a table."""

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from ..tools import ToolError
from . import PROOFS, engine


def main() -> int:
    parser = argparse.ArgumentParser(prog="macaw_sim.formal", description="Proofs about the units of the accelerator.")
    parser.add_argument("--only", metavar="NAME", nargs="+", help="these proofs (a part of the name is enough)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (default: 2)")
    arguments = parser.parse_args()
    proofs = [proof for name, proof in PROOFS.items()
              if arguments.only is None or any(part in name for part in arguments.only)]
    if not proofs:
        parser.error(f"--only must name one of {', '.join(PROOFS)}, not {' '.join(arguments.only)!r}")
    begun = time.monotonic()
    try:
        engine.yosys()
        with ThreadPoolExecutor(arguments.jobs) as pool:
            results = []
            # The table is in order; a row appears once it and those above it are done.
            for proof, result in zip(proofs, pool.map(engine.run, proofs), strict=True):
                print(row(proof, result), flush=True)
                results.append(result)
    except ToolError as error:
        print(f"macaw: error: {error}", file=sys.stderr)
        return 1
    bad = [result for result in results if not result.good]
    print(f"\n{len(results)} proofs, {sum(result.properties for result in results)} properties, "
          f"{sum(result.situations for result in results)} situations reached, {time.monotonic() - begun:.0f} s: "
          f"{'all hold' if not bad else f'{len(bad)} failed'}")
    for result in bad:
        print(f"{result.name}: {result.message}" + (f"; counterexample: {result.trace}" if result.trace else ""))
    return int(bool(bad))


def row(proof, result):
    """One line of the table: name, method, size, seconds, result, and what it is about."""
    return (f"{proof.name:<20} {proof.method:<10} {result.properties:>3} properties {result.registers:>5} registers "
            f"{result.seconds:>6.1f} s  {result.message}\n    {proof.what}")


if __name__ == "__main__":
    sys.exit(main())
