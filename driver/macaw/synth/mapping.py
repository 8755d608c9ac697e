"""What becomes of arithmetic on an ECP5: which multiplications get a DSP block, and carry chains.

The rule for multiplications: each gets DSP blocks while there are any. Where there are too few, the
last of the small ones, of at most 8 x 8 signed bits, become 75 LUTs each (``multiply.v``); in an
accelerator these are whole rows at the end of the MAC array.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from itertools import permutations, product
from pathlib import Path

__all__ = ["Multiplication", "finish_chains", "multiplications", "without_block"]

_BLOCK = 18     # bits of both factors of a MULT18X18D
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


def finish_chains(netlist: Path) -> None:
    """Spare LUTs in front of carry chains and at their ends, in a netlist, in place.

    Each half of a CCU2C has a LUT of its own, in which an addition uses but two of four inputs: a
    LUT of few inputs that nothing else reads goes into it. nextpnr spends a cell of two LUTs on
    each carry into a chain, also if the chain doesn't look at it (its first LUT is 0, as in
    ``add.v``), and on each carry out, also if nothing reads that.
    """
    design = json.loads(netlist.read_text())
    for module in design["modules"].values():
        cells = module["cells"]
        readers = Counter(bit for cell in cells.values() for port, bits in cell["connections"].items()
                          if cell["port_directions"][port] == "input" for bit in bits)
        readers.update(bit for port in module["ports"].values() for bit in port["bits"])
        _fill_chains(cells, readers)
        _end_chains(cells, readers)
    netlist.write_text(json.dumps(design))


def _fill_chains(cells, readers):
    luts = {cell["connections"]["Z"][0]: name for name, cell in cells.items()
            if cell["type"] == "LUT4" and readers[cell["connections"]["Z"][0]] == 1}
    for cell in [each for each in cells.values() if each["type"] == "CCU2C"]:
        for half, pin in product("01", "ABC"):
            bit = cell["connections"][pin + half][0]
            if bit in luts and _absorbed(cell, half, bit, cells[luts[bit]]):
                del cells[luts[bit]]


def _absorbed(cell, half, bit, lut):
    """Whether the ``half`` of a CCU2C could take in the LUT that drives its input ``bit``.

    The half passes its carry on where its LUT is 1. Else the carry is what the lowest four bits of
    the table have for A and B, so that with 1 at D both functions are free, but this one has no C.
    """
    pins = cell["connections"]
    table, inner = (_table(each) for each in (cell["parameters"]["INIT" + half],
                                              lut["parameters"]["INIT"]))
    before = [pins[pin + half][0] for pin in "ABC"]
    inputs = [lut["connections"][pin][0] for pin in "ABCD"]
    variables = [each for each in dict.fromkeys([*before, *inputs])
                 if not isinstance(each, str) and each != bit]
    if pins["D" + half] != ["1"] or len(variables) > 3:
        return False
    for order in permutations([*variables, "0", "0", "0"][:3]):
        new = [None] * 4 + [False] * 12
        fits = True
        for values in product((False, True), repeat=3):
            known = dict(zip(order, values, strict=True)) | {"0": False, "1": True, "x": False}
            known[bit] = inner[_index(known[each] for each in inputs)]
            carry = _index(known[each] for each in before[:2])
            passes = table[_index(known[each] for each in before) + 8]
            new[_index(values) + 8] = passes
            if not passes:
                place = _index(values[:2])
                fits &= new[place] in (None, table[carry])
                new[place] = table[carry]
        if fits:
            for pin, each in zip("ABC", order, strict=True):
                pins[pin + half] = [each]
            cell["parameters"]["INIT" + half] = "".join(str(int(bool(each))) for each in new[::-1])
            return True
    return False


def _table(init):
    return [digit == "1" for digit in reversed(init)]


def _index(values):
    return sum(value << place for place, value in enumerate(values))


def _end_chains(cells, readers):
    for cell in cells.values():
        if cell["type"] != "CCU2C":
            continue
        pins = cell["connections"]
        if not readers[pins["COUT"][0]]:
            pins["COUT"] = ["x"]
        starts = (pins["D0"] == ["1"] and cell["parameters"]["INIT0"].startswith("0" * 8)
                  and not readers[pins["S0"][0]])
        if starts and isinstance(pins["CIN"][0], str):
            pins["CIN"] = ["x"]
