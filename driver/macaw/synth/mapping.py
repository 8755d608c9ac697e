"""What becomes of arithmetic on an ECP5: which multiplications get a DSP block, and how it and carry
chains are connected.

The rule for multiplications: each gets DSP blocks while there are any. Where there are too few, the
last of the small ones, of at most 8 x 8 signed bits, become 75 LUTs each (``multiply.v``); in an
accelerator these are whole rows at the end of the MAC array.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Multiplication", "finish", "multiplications", "without_block"]

_BLOCK = 18     # bits of both factors of a MULT18X18D
_BLOCK_CELL = "MULT18X18D"
_REGISTERED = {"REG_OUTPUT_CLK": "CLK0", "REG_OUTPUT_CE": "CE0", "REG_OUTPUT_RST": "RST0", "RESETMODE": "SYNC"}
_SMALL = 8      # bits of the factors in multiply.v, signed
_CELL = re.compile(r"^  cell \$mul (\S+)\n((?:    parameter .*\n)*)", re.MULTILINE)
_PARAMETER = re.compile(r"parameter (?:signed )?\\(\w+) (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Multiplication:
    """One ``*`` of the design: the name of its cell, the bits of its factors, and whether they have
    signs."""
    name: str
    bits: tuple[int, int]
    signed: bool

    @property
    def small(self) -> bool:
        """Whether ``multiply.v`` takes it."""
        return max(self.bits) + (not self.signed) <= _SMALL

    @property
    def blocks(self) -> int:
        """DSP blocks that it takes."""
        return -(-self.bits[0] // _BLOCK) * -(-self.bits[1] // _BLOCK)


def multiplications(dump: str) -> list[Multiplication]:
    """Those in the RTLIL of ``$mul`` cells, in the order of their names, numbers as numbers."""
    found = []
    for name, text in _CELL.findall(dump):
        value = {key: int(number) for key, number in _PARAMETER.findall(text)}
        bits = value["A_WIDTH"], value["B_WIDTH"]
        found.append(Multiplication(name, bits, bool(value["A_SIGNED"])))
    return sorted(found, key=lambda each: [int(part) if part.isdigit() else part
                                           for part in re.split(r"(\d+)", each.name)])


def without_block(found: list[Multiplication], blocks: int) -> list[str]:
    """Names of those that get no block of so many ``blocks``: as few small ones as possible."""
    missing = max(0, sum(each.blocks for each in found) - blocks)
    small = [each.name for each in found if each.small]
    return small[len(small) - min(missing, len(small)):]


def finish(netlist: Path) -> None:
    """What Yosys leaves undone, in place: unused ends of carry chains, registers of products."""
    design = json.loads(netlist.read_text())
    for module in design["modules"].values():
        _end_chains(module)
        _register_products(module)
    netlist.write_text(json.dumps(design))


def _readers(module):
    """For each bit the name and port of the cells that read it; no name for a port of the module."""
    readers = defaultdict(list)
    for name, cell in module["cells"].items():
        for port, bits in cell["connections"].items():
            if cell["port_directions"][port] == "input":
                for bit in bits:
                    readers[bit].append((name, port))
    for port in module["ports"].values():
        for bit in port["bits"]:
            readers[bit].append((None, None))
    return readers


def _end_chains(module):
    """Disconnect ends of carry chains that nothing needs.

    nextpnr spends a cell of two LUTs on each carry into a chain, also if the chain doesn't look at
    it (its first LUT is 0, as in ``add.v``), and on each carry out, also if nothing reads that.
    """
    readers = _readers(module)
    for cell in module["cells"].values():
        if cell["type"] != "CCU2C":
            continue
        pins = cell["connections"]
        if not readers[pins["COUT"][0]]:
            pins["COUT"] = ["x"]
        starts = (pins["D0"] == ["1"] and cell["parameters"]["INIT0"].startswith("0" * 8)
                  and not readers[pins["S0"][0]])
        if starts and isinstance(pins["CIN"][0], str):
            pins["CIN"] = ["x"]


def _register_products(module):
    """Let a DSP block keep its product, where nothing but registers reads that: a wire and a quarter
    of the multiplication less on the way, and no flip-flops. These must be of a kind that it has: one
    clock, always enabled, one synchronous reset to 0."""
    cells, readers = module["cells"], _readers(module)
    for cell in [each for each in cells.values() if each["type"] == _BLOCK_CELL]:
        pins = cell["connections"]
        read = {port: readers[bits[0]] for port, bits in pins.items()
                if port.startswith("P") and readers[bits[0]]}
        names = {port: users[0][0] for port, users in read.items() if len(users) == 1}
        flops = [cells[name] for name in names.values() if name and cells[name]["type"] == "TRELLIS_FF"]
        kinds = {_kind(flop) for flop in flops}
        if len(flops) != len(read) or len(kinds) != 1 or None in kinds:
            continue
        (clock, reset), = kinds
        for port, name in names.items():
            pins[port] = cells.pop(name)["connections"]["Q"]
        cell["parameters"] |= _REGISTERED
        for port, bit in (("CLK0", clock), ("CE0", "1"), ("RST0", reset)):
            pins[port], cell["port_directions"][port] = [bit], "input"


def _kind(flop):
    """Clock and reset of a flip-flop; None where a DSP block has none of its kind."""
    pins, parameters = flop["connections"], flop["parameters"]
    reset = pins.get("LSR", ["0"])[0]
    plain = (parameters["CLKMUX"] == "CLK" and parameters["CEMUX"].strip() == "1"
             and parameters["REGSET"] == "RESET"
             and (reset == "0" or parameters["SRMODE"] == "LSR_OVER_CE"))
    return (pins["CLK"][0], reset) if plain else None
