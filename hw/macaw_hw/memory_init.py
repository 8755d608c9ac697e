"""How memories appear in Verilog."""

import re

__all__ = ["NO_COLLISION_CHECK", "BLOCK", "fold_memory_init"]

NO_COLLISION_CHECK = {"no_rw_check": 1}
"""Attributes of a memory that may return anything for a row that is written in the cycle in which it is read.

Without this, Yosys adds comparators and a second output register to block memories that return the new row.
"""

BLOCK = {**NO_COLLISION_CHECK, "ram_style": "block"}
"""The same for a memory that is wide and shallow, and belongs into block RAM nevertheless."""

_INITIAL = re.compile(r"^  initial begin\n((?:    ([^\[\n]+)\[\d+\] = (\d+'h0+);\n)+)  end\n", re.MULTILINE)


def fold_memory_init(text):
    """Verilog ``text`` with each initial block that clears a memory row by row written as a loop.

    Amaranth describes the contents of every memory in full. For the tile memory of n16 that is a quarter of a
    million lines, with which Verilator and Yosys are busy for minutes. Synthesis does not see the loop: no program may
    depend on what was never written, and Yosys is as slow with a loop. Other initial blocks stay as they are.
    """
    return _INITIAL.sub(_loop, text)


def _loop(match):
    lines, memory, zero = match.groups()
    rows = lines.count("\n")
    if lines != "".join(f"    {memory}[{row}] = {zero};\n" for row in range(rows)):
        return match[0]
    escaped, name = memory.startswith("\\"), memory.strip("\\ ")
    index = f"\\{name}_index " if escaped else f"{name}_index"
    return (f"`ifndef SYNTHESIS\n"
            f"  integer {index};\n"
            f"  initial for ({index} = 0; {index} < {rows}; {index} = {index} + 1) {memory}[{index}] = {zero};\n"
            f"`endif\n")
