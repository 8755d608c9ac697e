"""``python -m macaw_sim.arith``: the long version, unit by unit; with figures in a table."""

import argparse
import hashlib
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from fnmatch import fnmatch

from macaw_hw.config import CONFIGS, named_config

from .. import tools
from .campaign import Result, run, verilog_of
from .units import VECTORS, units


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="macaw_sim.arith", description="Arithmetic units in Verilator against NumPy.")
    parser.add_argument("--config", default="n16", choices=CONFIGS)
    parser.add_argument("--unit", action="append", metavar="NAME",
                        help="only these, for example add or 'lane.*'; may come more than once")
    parser.add_argument("--vectors", type=int,
                        help=f"of each unit (default: {VECTORS:,}, or all there are)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--resume", action="store_true",
                        help="do not repeat what build/arith has for the same Verilog and options")
    arguments = parser.parse_args()
    known = units(named_config(arguments.config))
    patterns = arguments.unit or ["*"]
    names = [name for name in known if any(fnmatch(name, pattern) for pattern in patterns)]
    missing = [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in known)]
    if missing:
        parser.error(f"there is no unit {missing[0]!r}; units are {', '.join(known)}")
    if arguments.vectors is not None and arguments.vectors < 1:
        parser.error(f"--vectors must be at least 1, not {arguments.vectors}")
    if arguments.jobs < 1:
        parser.error(f"--jobs must be at least 1, not {arguments.jobs}")
    return _campaign(arguments, names)


def _campaign(arguments, names):
    results, tasks = {}, []
    for name in names:
        task = arguments.config, name, arguments.vectors, arguments.seed
        found = _recorded(task) if arguments.resume else None
        if found:
            results[name] = found
        else:
            tasks.append(task)
    for result in _results(tasks, arguments.jobs):
        results[result.unit] = result
        print(_line(result), flush=True)
        for example in result.examples:
            print(f"    {example}", flush=True)
    about = units(named_config(arguments.config))
    print(f"\n| Unit ({arguments.config}) | Vectors | M vectors/s | Mismatches |\n"
          "| --- | --- | --- | --- |")
    for name in names:
        one = results[name]
        print(f"| {name}: {about[name].about} | {one.vectors:,} | {one.rate:.1f} "
              f"| {one.mismatches} |")
    failed = [name for name in names if results[name].mismatches]
    if failed:
        print(f"mismatch in {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _results(tasks, jobs):
    if jobs == 1:
        yield from map(_run, tasks)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(_run, tasks)


def _line(result):
    return (f"{result.unit:24} {result.vectors:13,} vectors {result.rate:6.1f} M/s "
            f"{result.mismatches} mismatches")


def _run(task):
    config, name, vectors, seed = task
    result = run(units(named_config(config))[name], vectors, seed)
    _path(task).write_text(json.dumps({"key": _key(task), **asdict(result)}))
    return result


def _recorded(task):
    """The `Result` of the same task on the same Verilog, if it was without mismatch."""
    path = _path(task)
    if not path.is_file():
        return None
    fields = json.loads(path.read_text())
    if fields.pop("key") != _key(task) or fields["mismatches"]:
        return None
    return Result(**fields)


def _path(task):
    return tools.output_directory("arith", task[0]) / f"{task[1]}.json"


def _key(task):
    config, name, vectors, seed = task
    unit = units(named_config(config))[name]
    what = verilog_of(unit), unit.vectors if vectors is None else vectors, seed
    return hashlib.sha256(repr(what).encode()).hexdigest()[:24]


if __name__ == "__main__":
    sys.exit(main())
