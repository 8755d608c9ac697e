"""Proofs that a mutation changes nothing that can be seen at the ports of a unit.

The unit with and without the mutation get the same inputs, from reset on and for ever; outputs that differ are looked
for by the engines of `macaw_sim.formal` (``scorr`` merges registers that are always equal, ``pdr`` proves the rest).
Memories are cut out: their data are inputs, what they get are outputs. A unit knows nothing of the others here: what
only their behaviour rules out is not found to be equivalent.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from .netlist import Mutation, run_yosys

__all__ = ["contexts", "prove"]

_BOX = """module memory_box(RD_EN, RD_ADDR, RD_DATA, WR_EN, WR_ADDR, WR_DATA);
  parameter ABITS = 1, WIDTH = 1, READS = 1, WRITES = 1;
  input [READS-1:0] RD_EN;
  input [READS*ABITS-1:0] RD_ADDR;
  output [READS*WIDTH-1:0] RD_DATA;
  input [WRITES*WIDTH-1:0] WR_EN, WR_DATA;
  input [WRITES*ABITS-1:0] WR_ADDR;
  assign RD_DATA = 0;
endmodule
"""
_MAP = """(* techmap_celltype = "$mem_v2" *)
module boxed(RD_CLK, RD_EN, RD_ARST, RD_SRST, RD_ADDR, RD_DATA, WR_CLK, WR_EN, WR_ADDR, WR_DATA);
  parameter MEMID = "", INIT = 0, ABITS = 1, WIDTH = 1, SIZE = 1, OFFSET = 0, RD_PORTS = 1, WR_PORTS = 1;
  parameter RD_CLK_ENABLE = 0, RD_CLK_POLARITY = 0, RD_TRANSPARENCY_MASK = 0, RD_COLLISION_X_MASK = 0;
  parameter RD_WIDE_CONTINUATION = 0, RD_CE_OVER_SRST = 0, RD_ARST_VALUE = 0, RD_SRST_VALUE = 0, RD_INIT_VALUE = 0;
  parameter WR_CLK_ENABLE = 0, WR_CLK_POLARITY = 0, WR_PRIORITY_MASK = 0, WR_WIDE_CONTINUATION = 0;
  input [RD_PORTS-1:0] RD_CLK, RD_EN, RD_ARST, RD_SRST;
  input [RD_PORTS*ABITS-1:0] RD_ADDR;
  output [RD_PORTS*WIDTH-1:0] RD_DATA;
  input [WR_PORTS-1:0] WR_CLK;
  input [WR_PORTS*WIDTH-1:0] WR_EN, WR_DATA;
  input [WR_PORTS*ABITS-1:0] WR_ADDR;
  memory_box #(.ABITS(ABITS), .WIDTH(WIDTH), .READS(RD_PORTS), .WRITES(WR_PORTS)) _TECHMAP_REPLACE_ (
    .RD_EN(RD_EN), .RD_ADDR(RD_ADDR), .RD_DATA(RD_DATA), .WR_EN(WR_EN), .WR_ADDR(WR_ADDR), .WR_DATA(WR_DATA));
endmodule
"""
# A register that a mutation changes loses the initial value of a bit.
_OUT = """setundef -init -zero
{cut}flatten
opt_clean
memory_collect
read_verilog box.v
techmap -map map.v
hierarchy -top {top}
expose -evert t:*memory_box* {cells}
opt_clean
rename {top} {name}
design -stash {name}
"""
_GRAPH = """design -load all
hierarchy -top {top}
design -save unit
{gold}design -load unit
{command}
{gate}design -reset
design -copy-from gold -as gold gold
design -copy-from gate -as gate gate
miter -equiv -flatten gold gate bench
hierarchy -top bench
opt -fast
opt_merge -share_all
opt -fast
setundef -zero -undriven
async2sync
dffunmap
simplemap
techmap
opt -fast -nodffe -nosdff
opt_merge -share_all
opt_clean
aigmap
opt_clean
write_aiger -zinit {number}.aig
"""
_DECIDING = {"activation": ("operands*", "results", "tile", "quantizer", "quantizer.tiles"),
             "matrix": ("delay", "loader", "streamer")}
"""Parts of a unit that decide what happens when; the others compute."""
_NEIGHBOURS = {"control": "fetch", "fetch": "control", "matrix": "tile_memory"}
_MERGING = 40
"""Seconds."""
_GATE = ".model netlist\n.inputs ys__n0 ys__n1\n.outputs ys__n2\n.names ys__n0 ys__n1 ys__n2\n11 1\n.end\n"


def contexts(module: str) -> list[str]:
    """Where a mutation of a module may change nothing: in the module and in those that it is part of, in these without
    others of their parts, and in the accelerator without most of its units.

    ``macaw.a.b``, ``macaw.a``, ``macaw.a only b``, ``macaw only a.b c``: the other parts are cut out like memories, so
    they give out anything.
    """
    parts = module.split(".")
    around = [".".join(parts[:count]) for count in range(len(parts), 1, -1)]
    unit, inside = (parts[1] if len(parts) > 1 else ""), ".".join(parts[2:])
    deciding = _DECIDING.get(unit, ())
    if not unit or deciding and inside and not any(fnmatch(inside, name) for name in deciding):
        return around or ["macaw only"]
    # The whole unit comes last where it is large.
    whole = [around.pop()] if deciding else []
    if deciding and inside:
        around.append(f"macaw.{unit} only {parts[2]}*")
    if deciding:
        around.append(f"macaw.{unit} only {' '.join(deciding)}")
    if unit in _NEIGHBOURS:
        own = [f"{unit}.{name}" for name in deciding or "*"]
        around.append(f"macaw only {unit} {' '.join(own)} {_NEIGHBOURS[unit]}*")
    return around + whole


def _parts(context, modules):
    """The top module of a context, and the modules that are cut out of it."""
    top, only, names = context.partition(" only")
    inside = {module: module.removeprefix(f"{top}.") for module in modules if module.startswith(f"{top}.")}
    return top, [module for module, name in inside.items()
                 if only and not any(fnmatch(name, kept) for kept in names.split())]


def prove(prepared: Path, questions: Iterable[tuple[Mutation, str]], folder: Path, *,
          limit: int = 20) -> dict[int, str]:
    """For each mutation and module around it: ``equivalent``, ``different`` or ``unknown``, by number.

    Parameters
    ----------
    prepared : Path
        As in `Netlist`.
    folder : Path
        For what the tools write.
    limit : int
        Seconds for each proof.
    """
    questions = list(questions)
    folder.mkdir(parents=True, exist_ok=True)
    for old in (*folder.glob("*.left"), *folder.glob("*.status")):
        old.unlink()
    (folder / "prepared.il").write_bytes(prepared.read_bytes())
    (folder / "gate.blif").write_text(_GATE)
    (folder / "box.v").write_text(_BOX)
    (folder / "map.v").write_text(_MAP)
    (folder / "gate.v").write_text("module gate(input a, b, output y); assign y = a & b; endmodule\n")
    script = ["read_rtlil prepared.il\ndesign -save all\n"]
    modules = re.findall(r"^module \\(\S+)$", prepared.read_text(), re.MULTILINE)
    for mutation, context in questions:
        top, cut = _parts(context, modules)
        gold, gate = (_OUT.format(top=top, name=name, cut="".join(f"blackbox {unit}\n" for unit in cut),
                                  cells=" ".join(f"t:{unit}" for unit in cut)) for name in ("gold", "gate"))
        script.append(_GRAPH.format(top=top, gold=gold, gate=gate, command=mutation.command,
                                    number=mutation.number))
    run_yosys(folder, "graphs", "".join(script))
    for mutation, _ in questions:
        _merge_and_prove(folder, mutation.number, limit)
    # What has no registers any more is for another engine.
    combinational = [m.number for m, _ in questions if _registers(folder / f"{m.number}.left") == 0]
    _abc(folder, [f"&read,{number}.left;&put;iprove;write_status,{number}.status" for number in combinational])
    return {mutation.number: _verdict(folder / f"{mutation.number}.status") for mutation, _ in questions}


def _merge_and_prove(folder, number, limit):
    # The engine that merges knows no limit.
    with suppress(TimeoutError):
        _abc(folder, [f"&read,{number}.aig;&put;scorr;write_aiger,{number}.left;pdr,-T,{limit};"
                      f"write_status,{number}.status"], timeout=_MERGING + limit)


def _abc(folder, steps, timeout=None):
    if steps:
        steps = [*steps, "read_blif,gate.blif;strash;map"]
        run_yosys(folder, "prove", "design -reset\nread_verilog gate.v\nproc\nsimplemap\n"
                  f"abc -script +{';'.join(steps)}\n", timeout)


def _registers(path):
    if not path.exists():
        return None
    with path.open("rb") as file:
        return int(file.readline().split()[3])


def _verdict(path):
    found = re.match(r"snl_(\w+)", path.read_text() if path.exists() else "")
    return {"UNSAT": "equivalent", "SAT": "different"}.get(found[1] if found else "", "unknown")
