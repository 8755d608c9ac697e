"""Signatures between the units of the accelerator.

Directions are those of the side that starts the transfer: the sequencer of a unit, the unit of a
memory port, the master of a bus. A transfer happens in a cycle where ``valid`` and ``ready`` are set;
``valid`` and what comes with it then stay until the transfer and never wait for ``ready``.
"""

from amaranth.hdl import signed, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .isa import Fault

__all__ = ["EXPONENT", "lanes", "mantissas", "Unit", "VectorRead", "VectorWrite", "TileRead", "TileWrite",
           "AxiRead", "AxiWrite"]

EXPONENT = signed(9)
"""Exponent of a bfp8 tile."""


def lanes(config):
    """A vector row: N float32 bit patterns, lane 0 lowest."""
    return data.ArrayLayout(unsigned(32), config.size)


def mantissas(config):
    """A row or column of a tile: N int8, element 0 lowest."""
    return data.ArrayLayout(signed(8), config.size)


class Unit(wiring.Signature):
    """A unit as the sequencer sees it.

    Members
    -------
    instruction : stream of the format's layout
        Checked against `isa.violations` already. Units may accept several and overlap them.
    done : In(1)
        One pulse for each completed instruction, in order: all its writes have reached memory.
    fault : In(Fault)
        Not NONE: the oldest instruction that is not done has faulted. Held until reset.
    busy, wait_memory, wait_other : In(1)
        For the counters: an instruction is in execution; no progress for want of a memory bank;
        no progress for another reason.
    """
    def __init__(self, format):
        super().__init__({
            "instruction": Out(stream.Signature(format.layout)),
            "done": In(1), "fault": In(Fault),
            "busy": In(1), "wait_memory": In(1), "wait_other": In(1),
        })


class VectorRead(wiring.Signature):
    """Read port of the vector memory: ``data`` is valid in the cycle after the transfer, only then."""
    def __init__(self, config):
        super().__init__({
            "row": Out(ceil_log2(config.vector_rows)), "valid": Out(1), "ready": In(1),
            "data": In(lanes(config)),
        })


class VectorWrite(wiring.Signature):
    """Write port of the vector memory; a read granted in a later cycle sees the new row."""
    def __init__(self, config):
        super().__init__({
            "row": Out(ceil_log2(config.vector_rows)), "data": Out(lanes(config)),
            "valid": Out(1), "ready": In(1),
        })


class TileRead(wiring.Signature):
    """Read port of the tile memory: row ``line`` of a tile, or column ``line`` if ``transpose``.

    ``data`` and ``exponent`` are valid in the second cycle after the transfer, only then.
    """
    def __init__(self, config):
        super().__init__({
            "tile": Out(ceil_log2(config.tiles)), "line": Out(ceil_log2(config.size)), "transpose": Out(1),
            "valid": Out(1), "ready": In(1),
            "data": In(mantissas(config)), "exponent": In(EXPONENT),
        })


class TileWrite(wiring.Signature):
    """Write port of the tile memory: one row; the exponent comes with every row of the tile."""
    def __init__(self, config):
        super().__init__({
            "tile": Out(ceil_log2(config.tiles)), "line": Out(ceil_log2(config.size)),
            "data": Out(mantissas(config)), "exponent": Out(EXPONENT),
            "valid": Out(1), "ready": In(1),
        })


class AxiRead(wiring.Signature):
    """AR and R channel of an AXI4 master: full-width incrementing bursts.

    What is constant (``arsize``, ``arburst``, ...) and ``arid`` are added at the top level.
    """
    def __init__(self, config):
        super().__init__({
            "araddr": Out(config.address_width), "arlen": Out(8), "arvalid": Out(1), "arready": In(1),
            "rdata": In(8 * config.bus_bytes), "rresp": In(2), "rlast": In(1), "rvalid": In(1), "rready": Out(1),
        })


class AxiWrite(wiring.Signature):
    """AW, W and B channel of an AXI4 master: full-width incrementing bursts."""
    def __init__(self, config):
        super().__init__({
            "awaddr": Out(config.address_width), "awlen": Out(8), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(8 * config.bus_bytes), "wstrb": Out(config.bus_bytes), "wlast": Out(1),
            "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
        })
