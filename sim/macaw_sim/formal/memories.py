"""Vector and tile memory: fixed priority at each bank, and what is read is what was written.

Fixed priority starves whoever is below for as long as those above ask for the same bank in every cycle.
What is proven bounds it: a port waits in a cycle only if a port above it transfers to that very bank, so
it waits for as many cycles as those make transfers, and each of their instructions makes finitely many. A port that
shares wires also waits while the other asks, which is until that transfers.
"""

from dataclasses import replace

from amaranth.hdl import Cat, Const, Mux, Signal
from macaw_hw import tile_memory, vector_memory
from macaw_hw.config import Config

from .bench import proof

__all__ = ["vector_arbitration", "vector_arbitration_8", "vector_data", "vector_data_8", "tile_arbitration",
           "tile_data"]

_SMALL = Config(size=4, vector_banks=2, vector_bank_rows=64, tile_banks=2, tile_bank_tiles=8, address_width=20)
_FOUR_BANKS = Config(size=4, vector_banks=4, vector_bank_rows=64, tile_banks=4, tile_bank_tiles=8, address_width=20)
_BIT = 5
"""The data bit that is followed; the others are stored in the same way."""


def _arbitration(bench, memory, names, address, rows, shared=()):
    """What holds between ports of one direction, highest priority first; banks have ``rows`` addresses.

    Of a port in ``shared`` and the one that it shares wires with, only the latter is served.
    """
    ports = [getattr(memory, name) for name in names]
    granted = [port.valid & port.ready for port in ports]
    where = [getattr(port, address) for port in ports]
    bank = [value // rows for value in where]
    bench.check(f"{names[0]} never waits", ports[0].ready)
    for i, name in enumerate(names):
        above = Cat(granted[j] & (bank[j] == bank[i]) for j in range(i))
        wires = Const(0)
        if name in shared:
            wires = ports[names.index(shared[name])].valid
            bench.check(f"{name} never goes along with {shared[name]}", ~granted[i] | ~wires)
        if i:
            bench.check(f"{name} waits only while one above it transfers to the same bank, or needs its wires",
                        ~ports[i].valid | ports[i].ready | above.any() | wires)
            bench.reach(f"{name} waits", ports[i].valid & ~ports[i].ready)
        for j in range(i):
            together = granted[i] & granted[j] & (bank[j] == bank[i])
            if (names[j], name) == ("a", "b"):
                bench.reach("a and b share a read", together)
                together &= where[j] != where[i]
            bench.check(f"{names[j]} and {name} never share a bank", ~together)
    different = sum(name not in shared for name in names)
    bench.reach("as many transfers as banks", sum(granted) >= min(4, different))


@proof("VectorMemory, 4 banks: one read and one write per bank, fixed priority, no needless wait", reach=2)
def vector_arbitration(bench):
    _vector_arbitration(bench, _FOUR_BANKS)


@proof("the same with 8 lanes, where `d` does not share the wires of `load`", reach=2)
def vector_arbitration_8(bench):
    _vector_arbitration(bench, replace(_FOUR_BANKS, size=8, bus_bytes=8))


def _vector_arbitration(bench, config):
    memory, shared = vector_memory.VectorMemory(config=config), vector_memory.shared_wires(config)
    bench.add("memory", memory)
    for names in (vector_memory._READS, vector_memory._WRITES):
        _arbitration(bench, memory, names, "row", config.vector_bank_rows,
                     {name: first for name, first in shared.items() if name in names})


@proof("TileMemory, 4 banks: one read and one write per bank, fixed priority, no needless wait", reach=2)
def tile_arbitration(bench):
    memory = tile_memory.TileMemory(config=_FOUR_BANKS)
    bench.add("memory", memory)
    for names in (tile_memory._READS, tile_memory._WRITES):
        _arbitration(bench, memory, names, "tile", _FOUR_BANKS.tile_bank_tiles)


def _returned(bench, name, port, read, written, known, value, data, cycles=1):
    """A read of the followed element, some cycles later; not if it was written in the same cycle."""
    due, expected = port.valid & port.ready & read & known & ~written, value
    for i in range(cycles):
        due, before = Signal(name=f"{name}_due{i}"), due
        expected, old = Signal(name=f"{name}_expected{i}"), expected
        bench.m.d.sync += [due.eq(before), expected.eq(old)]
    bench.check(f"{name} reads what was written last", ~due | (data == expected))
    bench.reach(f"{name} reads a 1", due & data)


@proof("VectorMemory, 2 banks: every port reads what any port wrote last", reach=6)
def vector_data(bench):
    _vector_data(bench, _SMALL)


@proof("the same with 8 lanes, where `d` has wires of its own", reach=6)
def vector_data_8(bench):
    _vector_data(bench, replace(_SMALL, size=8, bus_bytes=8))


def _vector_data(bench, config):
    memory = vector_memory.VectorMemory(config=config)
    bench.add("memory", memory)
    row = bench.constant(len(memory.load.row), "row")
    known, value, written = Signal(), Signal(), Signal()
    for name in vector_memory._WRITES:
        port = getattr(memory, name)
        with bench.m.If(port.valid & port.ready & (port.row == row)):
            bench.m.d.comb += written.eq(1)
            bench.m.d.sync += [known.eq(1), value.eq(port.data.as_value()[_BIT])]
    for name in vector_memory._READS:
        port = getattr(memory, name)
        _returned(bench, name, port, port.row == row, written, known, value, port.data.as_value()[_BIT])


@proof("TileMemory, 2 banks: rows and columns of any port are what any port wrote last", reach=6)
def tile_data(bench):
    memory = tile_memory.TileMemory(config=_SMALL)
    bench.add("memory", memory)
    tile = bench.constant(len(memory.load.tile), "tile")
    row, column = bench.constant(2, "row"), bench.constant(2, "column")
    known, value, written = Signal(), Signal(), Signal()
    for name in tile_memory._WRITES:
        port = getattr(memory, name)
        with bench.m.If(port.valid & port.ready & (port.tile == tile) & (port.line == row)):
            bench.m.d.comb += written.eq(1)
            bench.m.d.sync += [known.eq(1), value.eq(port.data.as_value().word_select(column, 8)[_BIT])]
    for name in tile_memory._READS:
        port = getattr(memory, name)
        line, element = Mux(port.transpose, column, row), Mux(port.transpose, row, column)
        _returned(bench, name, port, (port.tile == tile) & (port.line == line), written, known, value,
                  port.data.as_value().word_select(bench.past(bench.past(element)), 8)[_BIT], cycles=2)
