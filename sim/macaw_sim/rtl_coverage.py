"""``python -m macaw_sim.rtl_coverage``: which lines and branches of the generated Verilog the fuzzer reaches.

Verilator counts how often each block of statements runs and how often each side of each condition (``if``, ``case``,
``?:``) is taken. The Verilog is that of `macaw_hw.verilog.generate`, with the lines of the sources it comes from.
"""

import argparse
import ctypes
import re
import sys
import tempfile
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from amaranth.back import verilog as backend
from amaranth.hdl import UnusedElaboratable
from macaw_hw.accelerator import Accelerator
from macaw_hw.config import CONFIGS, Config, named_config
from macaw_hw.memory_init import fold_memory_init

from .fuzz import campaign, moments
from .tools import ToolError
from .verilator import backend as simulation
from .verilator.build import BuildError, build_library

__all__ = ["Point", "collect", "instrumented", "report"]

_GOAL = 0.95
_SEEDS = 100
_WRITER = """
`systemc_header
#include <cstdio>
#include <string>
#include "verilated_cov.h"
extern "C" {
__attribute__((visibility("default"))) inline char macaw_coverage[1024] = "";
}
inline void macaw_write_coverage(VerilatedContext* context) {
    static int number = 0;
    if (macaw_coverage[0]) context->coveragep()->write(std::string(macaw_coverage) + std::to_string(number++));
}
`verilog
"""
_FINAL = "  final $c(\"macaw_write_coverage(vlSymsp->_vm_contextp__);\");\nendmodule"
_ENTRY = re.compile(r"^C '(.*)' (\d+)$", re.MULTILINE)
_MODULE = re.compile(r"^module \\?([^\s(]+)")
_SOURCE = re.compile(r'  \(\* src = "([^":|]*):(\d+)')
_DECLARED = re.compile(r"  (?:wire|reg) (?:\[\S+\] )?(\S+?)(?: =.*)?;$")
_ASSIGNED = re.compile(r"^\s*(?:assign )?(\\\S+|\w+) ?(?:\[[\d:]+\] )?(?:<=|=) ")
_ARTEFACT = re.compile(r"^if \(\\\$auto\$verilog_backend\S* \) begin end$|^final ")
"""What Yosys writes to start each ``always @*``: a condition that is never true, with nothing in it."""
_HOPS = 20
_INDEX = re.compile(r"(?<=[a-z])\d+")


@dataclass(frozen=True)
class Point:
    """A block or one side of a condition: module, place in the Verilog, kind, text of the line, and the signal that
    it is about, with its source line where Yosys has kept it."""
    module: str
    line: int
    column: int
    kind: str
    text: str
    signal: str


def instrumented(config: Config) -> str:
    """The Verilog of ``config`` with source lines, and with what writes the counts when a simulation ends."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        text = fold_memory_init(backend.convert(Accelerator(config=config), name="macaw", emit_src=True,
                                                strip_internal_attrs=True))
    before, start, rest = text.partition("module macaw(")
    inside, end, after = rest.partition("endmodule")
    ports, semicolon, body = inside.partition(");")
    return before + start + ports + semicolon + _WRITER + body + _FINAL + after


def collect(config: Config, *, legal: int, illegal: int, disturbed: int, seed: int = 1,
            say=lambda text: None) -> dict[Point, int]:
    """Run campaigns of the fuzzer; how often each point was reached."""
    text = instrumented(config)
    library = simulation._load(build_library(text, coverage=True))
    buffer = (ctypes.c_char * 1024).in_dll(library, "macaw_coverage")
    counts: dict[tuple, int] = defaultdict(int)
    with tempfile.TemporaryDirectory(prefix="macaw-coverage-") as folder:
        buffer.value = f"{folder}/".encode()
        try:
            for name, total, work in (("legal", legal, _legal), ("illegal", illegal, _illegal),
                                      ("disturbed", disturbed, _disturbed)):
                for number, done in enumerate(range(0, total, _SEEDS)):
                    options = campaign.timing(seed + number) | {"coverage": True}
                    work(config, min(_SEEDS, total - done), seed=seed + number, options=options, verilog=text)
                    say(f"{name}: {min(total, done + _SEEDS)} of {total}")
        finally:
            buffer.value = b""
        for path in Path(folder).iterdir():
            for entry, count in _ENTRY.findall(path.read_text()):
                counts[tuple(sorted(_fields(entry).items()))] += int(count)
    return _points(text, counts)


def _legal(config, count, **options):
    campaign.legal(config, programs=count, save=False, **options)


def _illegal(config, count, **options):
    campaign.illegal(config, programs=count, save=False, **options)


def _disturbed(config, count, **options):
    moments.campaign(config, runs=count, **options)


def _fields(entry):
    """Keys and values of an entry; the same module in several places is one."""
    pairs = [part.split("\2", 1) for part in entry.split("\1")[1:]]
    return {key: value for key, value in pairs if key in ("f", "l", "n", "page", "o")}


def _points(text, counts):
    lines, modules, declared, users = text.split("\n"), [""], {}, {}
    source = ""
    for line in lines:
        found = _MODULE.match(line)
        modules.append(found[1] if found else modules[-1])
        found = _SOURCE.match(line)
        source = f"{Path(found[1]).name}:{found[2]}" if found else source
        found = _DECLARED.match(line)
        if found:
            declared[modules[-1], found[1]], source = source, ""
        found = _ASSIGNED.search(line)
        for name in re.findall(r"\\\$\d+", line.partition("=")[2]) if found else ():
            users.setdefault((modules[-1], name), found[1])
    points: dict[Point, int] = defaultdict(int)
    for key, count in counts.items():
        entry = dict(key)
        number = int(entry["l"])
        line = lines[number - 1].strip()
        if not entry["f"].endswith("macaw.v") or _ARTEFACT.search(line):
            continue
        # A condition belongs to the signal that the next lines assign, or to the first with a name behind that.
        module = modules[number]
        found = next(filter(None, map(_ASSIGNED.search, lines[number - 1:number + 8])), None)
        target, hops = found[1] if found else "", 0
        while target.startswith("\\$") and hops < _HOPS:
            target, hops = users.get((module, target), ""), hops + 1
        where = " ".join(filter(None, (target, declared.get((module, target)))))
        points[Point(module, number, int(entry["n"]), entry.get("o", ""), line, where)] += count
    return dict(points)


def report(points: dict[Point, int]) -> str:
    """A line for each kind of module (the rows and lanes are of one kind), the sum, and what was never reached."""
    kinds: dict[str, list] = defaultdict(list)
    for point, count in points.items():
        kinds[_INDEX.sub("N", point.module)].append((point, count))
    width = max(map(len, kinds))
    lines = []
    for kind, found in sorted(kinds.items()):
        hit = sum(count > 0 for _, count in found)
        lines.append(f"{kind:{width}} {hit:5} of {len(found):5}  {100 * hit / len(found):5.1f} %")
    hit = sum(count > 0 for count in points.values())
    lines.append(f"{'all':{width}} {hit:5} of {len(points):5}  {100 * hit / len(points):5.1f} %")
    lines += [f"never: {point.module} line {point.line}, {point.kind}: {point.text}  ({point.signal or 'not named'})"
              for point, count in sorted(points.items(), key=lambda item: item[0].line) if not count]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="macaw_sim.rtl_coverage", description=__doc__.partition(":")[2])
    parser.add_argument("--config", default="n4", choices=CONFIGS)
    parser.add_argument("--seed", type=int, default=1, help=f"of the first {_SEEDS} programs; the next have the next")
    parser.add_argument("--count", type=int, default=400, help="legal programs; half as many of the other kinds")
    arguments = parser.parse_args()
    if arguments.count < 1:
        parser.error(f"--count must be at least 1, not {arguments.count}")
    try:
        points = collect(named_config(arguments.config), legal=arguments.count, illegal=arguments.count // 2,
                         disturbed=arguments.count // 2, seed=arguments.seed, say=lambda text: print(text, flush=True))
    except (ToolError, BuildError) as error:
        print(f"macaw: error: {error}", file=sys.stderr)
        return 1
    print(report(points))
    return int(sum(count > 0 for count in points.values()) < _GOAL * len(points))


if __name__ == "__main__":
    sys.exit(main())
