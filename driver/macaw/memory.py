"""On-chip memory while a program is built: an allocator by banks, and a cache of panels on top of it.

Both decide at build time: addresses in the program are constants, and moving data is an instruction.
Reusing a place needs no care, because the program builder orders conflicting accesses.
"""

from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from macaw_hw.isa import DataFormat

from .errors import MacawError
from .footprint import element_bytes

__all__ = ["Allocator", "Cache", "OutOfMemory", "Panel", "rows_cache", "tiles_cache"]


class OutOfMemory(MacawError):
    """A kernel needs more vector rows or tiles at a time than the configuration has."""


class Allocator:
    """Contiguous places of one banked memory.

    What lives for short is searched on from the last place given, so that a place just freed is the last to be used
    again; what lives for ``long`` is put at the end of the range, so that it does not divide the rest.

    Parameters
    ----------
    what : str
        Name of a place, for messages.
    banks, depth : int
        Number of banks and places in each. Places in a bank are consecutive.
    """

    def __init__(self, what, banks, depth):
        self._what, self.banks, self.depth = what, banks, depth
        self._free = np.ones(banks * depth, dtype=bool)
        self._next = {}

    def allocate(self, count, banks, long=False):
        """First of ``count`` consecutive free places within the range of banks ``banks``, or None."""
        low, high = banks.start * self.depth, banks.stop * self.depth
        edges = np.flatnonzero(np.diff(np.concatenate([[0], self._free[low:high].astype(np.int8), [0]])))
        runs = [(low + a, low + b) for a, b in edges.reshape(-1, 2) if b - a >= count]
        if not runs:
            return None
        at = self._next.get(banks, low)
        if long:
            start = int(runs[-1][1]) - count
        else:
            fitting = [max(first, at) for first, last in runs if last - max(first, at) >= count]
            start = int(fitting[0] if fitting else runs[0][0])
            self._next[banks] = start + count
        self._free[start:start + count] = False
        return start

    def claim(self, start, count):
        """Allocate these places. Returns whether all were free."""
        if not self._free[start:start + count].all():
            return False
        self._free[start:start + count] = False
        return True

    def free(self, start, count):
        if self._free[start:start + count].any():
            raise ValueError(f"{self._what} {start} to {start + count - 1} are not all allocated")
        self._free[start:start + count] = True

    def available(self, banks):
        """Free places in the range of banks, contiguous or not."""
        return int(self._free[banks.start * self.depth:banks.stop * self.depth].sum())


@dataclass(frozen=True)
class Panel:
    """A group of rows or tiles with a home in memory.

    Attributes
    ----------
    name : tuple
        Unique in its cache.
    count : int
        Rows or tiles.
    address : int
        Byte address of its home, where it is contiguous.
    banks : range
        Banks that it may be in on chip.
    pieces : int
        Equal parts in which it is loaded, so that the first can be used while the others come.
    long : bool
        Small and long in use: it is put where it does not divide the room for others.
    make : callable, optional
        Emits what makes the panel, from :meth:`Cache.create` on; it has no home then, and is made again when it is
        needed again.
    """
    name: tuple
    count: int
    address: int
    banks: range
    pieces: int = 1
    long: bool = False
    make: object = None


@dataclass
class _Entry:
    panel: Panel
    start: int
    dirty: bool
    pins: int = 0
    loaded: bool = True
    later: int = 0

    @property
    def must_be_stored(self):
        return self.dirty and self.panel.make is None


class Cache:
    """Panels that are on chip at the present point of the program.

    Parameters
    ----------
    program : macaw.program.Program
        Receives the loads and stores that become necessary.
    allocator : Allocator
    format : DataFormat
        BFP8 for tiles, FLOAT32 for rows.
    unit : int
        Elements per place: 1 for tiles, N for rows.
    """

    def __init__(self, program, allocator, format, unit):
        self._program, self.allocator, self._format, self._unit = program, allocator, format, unit
        self._bytes = element_bytes(format, program.config) * unit
        self._entries = OrderedDict()
        self.all_banks = range(allocator.banks)

    def allocate(self, count, banks=None, long=False):
        """A temporary: ``count`` places, for which unused panels make room; to be given to :meth:`free`."""
        banks = banks or self.all_banks
        while (start := self.allocator.allocate(count, banks, long)) is None:
            self._evict(count, banks)
        return start

    def free(self, start, count):
        self.allocator.free(start, count)

    def _evict(self, count, banks):
        """Give up a panel: rather one that need not be stored, then the one that :meth:`later` says is needed last,
        then the one that was not used for longest."""
        low, high = banks.start * self.allocator.depth, banks.stop * self.allocator.depth
        unused = [(name, entry) for name, entry in self._entries.items()
                  if entry.pins == 0 and low <= entry.start < high]
        if unused:
            name, entry = min(unused, key=lambda item: (item[1].must_be_stored, -item[1].later))
            self._spill(entry)
            self._remove(name)
            return
        raise OutOfMemory(f"{count} {self.allocator._what}s are needed at once, but only "
                          f"{self.allocator.available(banks)} of {high - low} are free; "
                          "use a smaller batch or a configuration with more memory")

    def _spill(self, entry):
        if entry.must_be_stored:
            self._program.store(format=self._format, address=entry.panel.address, local=entry.start,
                                run=entry.panel.count * self._unit)
            entry.dirty = False

    def _remove(self, name):
        entry = self._entries.pop(name)
        self.allocator.free(entry.start, entry.panel.count)

    def resident(self, panel):
        return panel.name in self._entries

    def get(self, panel):
        """Where the panel is, loading or making it if necessary."""
        entry = self._entries.get(panel.name)
        if entry is None and panel.make is not None:
            panel.make()
            entry = self._entries[panel.name]
        if entry is None:
            start = self.allocate(panel.count, panel.banks, panel.long)
            entry = self._entries[panel.name] = _Entry(panel, start, dirty=False, loaded=False)
        if not entry.loaded:
            self._load(panel, entry.start)
            entry.loaded = True
        entry.later = 0
        self._entries.move_to_end(panel.name)
        return entry.start

    def reserve(self, panel, loaded):
        """Give the panel a place for the whole program: ``loaded`` already, by a program before, or loaded at its
        first use. What is reserved first in a program is at the same place in every program."""
        start = self.allocate(panel.count, panel.banks, panel.long)
        self._entries[panel.name] = _Entry(panel, start, dirty=False, pins=1, loaded=loaded)

    def _load(self, panel, start):
        part = panel.count // panel.pieces
        for i in range(panel.pieces):
            self._program.load(format=self._format, local=start + i * part, run=part * self._unit,
                               address=panel.address + i * part * self._bytes)

    def create(self, panel, dirty=True):
        """Where to write the whole panel anew; its old contents are lost. ``dirty`` says that its home has not
        these contents."""
        entry = self._entries.get(panel.name)
        if entry is None:
            start = self.allocate(panel.count, panel.banks, panel.long)
            entry = self._entries[panel.name] = _Entry(panel, start, dirty)
        entry.dirty, entry.loaded, entry.later = dirty, True, 0
        self._entries.move_to_end(panel.name)
        return entry.start

    @contextmanager
    def use(self, *panels):
        """Pin the panels while instructions that use them are emitted; gives their places."""
        for panel in panels:
            self.get(panel)
            self.pin(panel)
        try:
            yield [self._entries[panel.name].start for panel in panels]
        finally:
            for panel in panels:
                self.unpin(panel)

    def later(self, panel, turn):
        """Note that a resident panel is not used again before its ``turn``, 1 or more: among those with a turn the
        last one gives way first."""
        self._entries[panel.name].later = turn

    def touch(self, panel):
        """Note that a resident panel is changed in place, and its home with it out of date."""
        self._entries[panel.name].dirty = True

    def save(self, panel):
        """Store a resident panel that is newer than its home; it can give way at no cost then."""
        self._spill(self._entries[panel.name])

    def pin(self, panel):
        self._entries[panel.name].pins += 1

    def unpin(self, panel):
        self._entries[panel.name].pins -= 1

    def drop(self, panel):
        """Forget the panel: nobody reads it again."""
        if panel.name in self._entries:
            self._remove(panel.name)

    def flush(self):
        """Store all that is dirty."""
        for entry in self._entries.values():
            self._spill(entry)


def rows_cache(program):
    """The cache of the vector memory."""
    config = program.config
    return Cache(program, Allocator("vector row", config.vector_banks, config.vector_bank_rows),
                 DataFormat.FLOAT32, config.size)


def tiles_cache(program):
    """The cache of the tile memory."""
    config = program.config
    return Cache(program, Allocator("tile", config.tile_banks, config.tile_bank_tiles), DataFormat.BFP8, 1)
