"""Which multiplications get a DSP block of an ECP5: each, while there are any.

Where there are too few, the last of the small ones, of at most 8 x 8 signed bits, become 75 LUTs each
(``multiply.v``); in an accelerator these are whole rows at the end of the MAC array.
"""

import re
from dataclasses import dataclass

__all__ = ["Multiplication", "multiplications", "without_block"]

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
