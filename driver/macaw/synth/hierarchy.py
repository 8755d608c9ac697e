"""What belongs to which module, by the names that cells keep when the hierarchy is flattened.

A cell is called ``path.of.module.signal_CELLTYPE_...``: Yosys names it after the nearest signal
that has a name. Registers, memories and multipliers are named after their own output; a LUT in
between may be named after what it drives or reads, so that logic at the border of two modules can
count for either.
"""

import re

__all__ = ["UNITS", "Hierarchy", "unit"]

UNITS = {"registers": ("control", "s_axi_", "irq"), "fetch": ("fetch",), "sequencer": ("sequencer",),
         "load": ("load",), "read arbiter": ("read_arbiter", "m_axi_ar", "m_axi_r"),
         "store": ("store", "m_axi_"), "array": ("matrix.array",),
         "accumulators": ("matrix.accumulator",), "matrix control": ("matrix",),
         "lanes": ("activation.lane",), "quantizer": ("activation.quantizer",),
         "activation control": ("activation",), "tile memory": ("tile_memory",),
         "vector memory": ("vector_memory",), "other": ("",)}
"""The units of an accelerator, and how the names of their cells begin; the first that fits counts."""

_MODULE = re.compile(r"^module \\?([^\s(]+)", re.MULTILINE)
_SUFFIX = re.compile(r"(_(TRELLIS_|LUT4|CCU2C|PFUMX|L6MUX21|DP16KD|MULT18X18D)|\.\d+\.\d+|\$).*")
_NUMBER = re.compile(r"\d+(?=\.|$)")


class Hierarchy:
    """The modules of a design, from its Verilog.

    Parameters
    ----------
    verilog : str
        As Amaranth writes it: a module is called by its path, ``top.unit.part``.
    top : str
        The top-level module.
    """

    def __init__(self, verilog, top):
        self._modules = {name.removeprefix(top + ".") for name in _MODULE.findall(verilog)} - {top}

    def module(self, cell):
        """The path of the module that a cell belongs to; ``""`` is the top level."""
        end = len(cell)
        while (end := cell.rfind(".", 0, end)) >= 0:
            if cell[:end] in self._modules:
                return cell[:end]
        return ""

    def group(self, cell):
        """The module with ``*`` for the numbers of its instances: lanes, rows and banks are alike."""
        return _NUMBER.sub("*", self.module(cell))

    def register(self, cell):
        """Module and signal: ``load.rows.part`` for a bit of that register."""
        module = self.module(cell)
        signal = _SUFFIX.sub("", cell[len(module):].lstrip("."))
        return ".".join(filter(None, (module, signal)))


def unit(cell):
    """The unit, of `UNITS`, that a cell of an accelerator belongs to."""
    return next(name for name, starts in UNITS.items() if cell.startswith(starts))
