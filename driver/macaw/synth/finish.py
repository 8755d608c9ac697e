"""What Yosys leaves undone in a netlist for an ECP5: carry chains take in the logic in front of them
and lose ends that nothing needs, DSP blocks keep their products."""

import json
from collections import defaultdict
from itertools import permutations, product
from pathlib import Path

__all__ = ["finish"]

_REGISTERED = {"REG_OUTPUT_CLK": "CLK0", "REG_OUTPUT_CE": "CE0", "REG_OUTPUT_RST": "RST0",
               "RESETMODE": "SYNC"}


def finish(netlist: Path) -> None:
    """Work on a netlist that Yosys has written as JSON, in place."""
    design = json.loads(netlist.read_text())
    for module in design["modules"].values():
        _fill_chains(module)
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


def _fill_chains(module):
    """Each half of a CCU2C has a LUT of its own, in which an addition uses but two of four inputs: a
    LUT of few inputs that nothing else reads goes into it."""
    cells, readers = module["cells"], _readers(module)
    luts = {cell["connections"]["Z"][0]: name for name, cell in cells.items()
            if cell["type"] == "LUT4" and len(readers[cell["connections"]["Z"][0]]) == 1}
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
    for cell in [each for each in cells.values() if each["type"] == "MULT18X18D"]:
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
