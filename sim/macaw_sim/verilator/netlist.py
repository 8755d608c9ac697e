"""Reads modules of the Verilog that Amaranth writes, as far as `lanes` understands them."""

import re
from dataclasses import dataclass, field

__all__ = ["Unsupported", "Signal", "Logic", "Instance", "Module", "TOKEN", "names", "instances",
           "modules", "parse"]

_IDENTIFIER = r"(?:\\\S+|[A-Za-z_][\w$]*)"
TOKEN = re.compile(rf"{_IDENTIFIER}|\$\w+|\d+'s?[bhd][0-9a-fA-F?xz_]+|\d+|\s+|.")
_MODULE = re.compile(rf"^module ({_IDENTIFIER})\s*\(.*?\);\n(.*?)^endmodule\n",
                     re.MULTILINE | re.DOTALL)
_DECLARATION = re.compile(
    rf"(input|output|wire|reg) (?:\[(\d+):0\] )?({_IDENTIFIER})\s*(?:= (\S+))?;$")
_INSTANCE = re.compile(
    rf"^  ({_IDENTIFIER})\s+({_IDENTIFIER})\s*\(\n((?:    \..*\n)+)  \);\n", re.MULTILINE)
_PORT = re.compile(rf"^    \.({_IDENTIFIER})\s*\((.*)\),?$", re.MULTILINE)
_ATTRIBUTE = re.compile(r"\s*\(\*.*\*\)$")
_KEYWORDS = {"begin", "end", "if", "else", "casez", "endcase", "default"}
_CLOCKED = "always @(posedge clk)\n"
_PROCESS = "always @* begin\n"


class Unsupported(Exception):
    """Something that is not among what these modules handle."""


@dataclass
class Signal:
    """Width in bits, whether it was declared with a range, and the initial value of a register."""
    width: int
    ranged: bool
    init: str | None = None


@dataclass
class Logic:
    """Combinational: an assignment ``left = right;``, or the inside of a process."""
    text: str
    reads: set
    writes: set
    process: bool = False


@dataclass
class Instance:
    """An instance of the module ``kind``; ``ports`` are expressions by name, ``text`` is all."""
    kind: str
    name: str
    ports: dict
    text: str


@dataclass
class Module:
    """A module; ``registers`` are pairs of a name and what it becomes at each edge of ``clk``."""
    name: str
    inputs: list = field(default_factory=list)
    outputs: list = field(default_factory=list)
    signals: dict = field(default_factory=dict)
    logic: list = field(default_factory=list)
    registers: list = field(default_factory=list)
    instances: list = field(default_factory=list)


def names(text):
    """The set of identifiers in an expression or statement."""
    return {token for token in TOKEN.findall(text)
            if (token[0].isalpha() or token[0] in "\\_") and token not in _KEYWORDS}


def modules(verilog):
    """Triples of the name of a module, its text and its body."""
    return [(found[1], found[0], found[2]) for found in _MODULE.finditer(verilog)]


def instances(text):
    """Each `Instance` in the text of a module."""
    return [Instance(found[1], found[2],
                     {port: value.strip() for port, value in _PORT.findall(found[3])}, found[0])
            for found in _INSTANCE.finditer(text)]


def parse(name, body):
    """The `Module`; raises `Unsupported` for one with memories or other unusual things."""
    module = Module(name, instances=instances(body))
    for statement in _statements(_INSTANCE.sub("", body)):
        declaration = _DECLARATION.match(statement)
        if declaration:
            _declare(module, *declaration.groups())
        elif statement.startswith("assign "):
            left, right = statement[len("assign "):-1].split(" = ", 1)
            module.logic.append(Logic(f"{left} = {right};", names(right), names(left)))
        elif statement.startswith(_CLOCKED):
            left, right = statement[len(_CLOCKED):-1].split(" <= ", 1)
            if left.strip() not in module.signals:
                raise Unsupported(statement)
            module.registers.append((left.strip(), right))
        elif statement.startswith(_PROCESS):
            module.logic.append(_process([line for line in statement.split("\n")[1:-1]
                                          if not line.endswith(" begin end")]))
        else:
            raise Unsupported(statement)
    return module


def _declare(module, kind, high, name, init):
    signal = module.signals.setdefault(name, Signal(1, False))
    if high is not None:
        signal.width, signal.ranged = int(high) + 1, True
    signal.init = init or signal.init
    if kind in ("input", "output"):
        (module.inputs if kind == "input" else module.outputs).append(name)


def _process(lines):
    reads, writes = set(), set()
    for line in lines:
        left, equals, right = line.partition(" = ")
        (writes if equals else reads).update(names(left))
        reads |= names(right)
    return Logic("\n".join(lines), reads - writes, writes, process=True)


def _statements(body):
    """The statements of a module without its attributes, each with all of its lines."""
    lines = [line for line in body.split("\n") if line.strip() and not _ATTRIBUTE.match(line)]
    statement = []
    for line in lines:
        statement.append(line)
        process = statement[0].startswith("  always") and statement[0].endswith("begin")
        if line == "  end" if process else line.endswith(";"):
            yield "\n".join([statement[0].strip(), *statement[1:]])
            statement = []
    if statement:
        raise Unsupported(statement[0])
