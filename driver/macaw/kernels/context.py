"""What all kernels share: the program, the caches, blocks of vector rows, and threads of work."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..memory import rows_cache, tiles_cache
from ..program import Program

__all__ = ["Batch", "Block", "Context", "Sums", "interleave"]


@dataclass(frozen=True)
class Block:
    """A float32 matrix in the vector memory: panels of N columns, one row of the memory for each of their rows.

    Attributes
    ----------
    start : int
        Row of the vector memory of the first row of the first panel.
    rows, panels : int
    pitch : int
        Vector rows from one panel to the next; 0 stands for the same panel each time.
    step : int
        Vector rows from one row to the next; 0 stands for the same row each time.
    """
    start: int
    rows: int
    panels: int = 1
    pitch: int = 0
    step: int = 1

    def part(self, first, count, rows=None):
        """``count`` panels from ``first`` on, or their rows from ``rows.start`` to ``rows.stop``."""
        rows = rows or range(self.rows)
        return replace(self, start=self.start + first * self.pitch + rows.start * self.step, rows=len(rows),
                       panels=count)

    def spread(self, rows=None, panels=None):
        """The only row repeated ``rows`` times, or the only panel ``panels`` times."""
        if rows is not None:
            return replace(self, rows=rows, step=0)
        return replace(self, panels=panels, pitch=0)


@dataclass(frozen=True)
class Batch:
    """The rows of one batch block.

    Attributes
    ----------
    index, start, rows : int
        Number of the block, its first sample, and its samples.
    tiles : int
        Tiles of N samples, the last one perhaps partial.
    pitch : int
        ``tiles * N``.
    """
    index: int
    start: int
    rows: int
    tiles: int
    pitch: int

    @staticmethod
    def blocks(samples, tiles, n):
        """The blocks of a batch of ``samples``, with so many tiles each."""
        blocks, start = [], 0
        for index, count in enumerate(tiles):
            blocks.append(Batch(index, start, min(count * n, samples - start), count, count * n))
            start += count * n
        return blocks


class Sums:
    """Rows in which the array accumulates a group of tiles of features, for one block of the batch.

    Tiles lie in two banks in turns: while the array works on one, the other is free for all other units.

    Attributes
    ----------
    parts : list of Block
        Part ``h`` of ``H`` holds the tiles ``h``, ``h + H``, ...
    """

    def __init__(self, parts):
        self.parts = parts

    def tile(self, index):
        """The rows of one tile."""
        return self.parts[index % len(self.parts)].part(index // len(self.parts), 1)


class Context:
    """A program under construction with its on-chip memory.

    The first half of the banks of the vector memory holds what the array accumulates, in turns, the second
    half all other rows.
    """

    def __init__(self, config):
        self.config, self.n = config, config.size
        self.program = Program(config)
        self.rows, self.tiles = rows_cache(self.program), tiles_cache(self.program)
        half = config.vector_banks // 2
        self.sums = range(half)
        self.others = range(half, config.vector_banks)
        self._turn = self._other_turn = 0

    def _place(self, count, choices, anyway=True, last=False):
        """Rows in the first of the ranges of banks that has room; else anywhere, at the cost of panels."""
        for banks in choices:
            start = self.rows.allocator.allocate(count, banks, last)
            if start is not None:
                return start
        return self.rows.allocate(count) if anyway else None

    def allocate_sums(self, count, last=False):
        """Rows in one bank for the array to accumulate in, in another bank than the last time if possible; the ``last``
        ones of that bank, so that they are the same each time."""
        self._turn += 1
        banks = [_bank(self.sums[(self._turn + i) % len(self.sums)]) for i in range(len(self.sums))]
        return self._place(count, [*banks, self.sums], last=last)

    def allocate_other(self, count, anyway=True):
        """Rows in one of the other banks, in another bank than the last time if possible. If there is no room, then
        at the cost of panels, or None unless ``anyway``."""
        self._other_turn += 1
        banks = [_bank(self.others[(self._other_turn + i) % len(self.others)]) for i in range(len(self.others))]
        return self._place(count, [*banks, self.others], anyway)

    def new_sums(self, rows, tiles, pitch):
        """New :class:`Sums`, to be given to :meth:`free`."""
        parts = min(2, tiles, len(self.sums))
        counts = [len(range(part, tiles, parts)) for part in range(parts)]
        return Sums([Block(self.allocate_sums(count * pitch), rows, count, pitch) for count in counts])

    def block(self, rows, panels, pitch):
        """A new :class:`Block`, to be given to :meth:`free`."""
        return Block(self._place(panels * pitch, [self.others]), rows, panels, pitch)

    def free(self, block):
        """Give a :class:`Block` or :class:`Sums` back."""
        for part in block.parts if isinstance(block, Sums) else [block]:
            self.rows.free(part.start, part.panels * part.pitch)

    @contextmanager
    def temporary(self, rows, panels, pitch):
        block = self.block(rows, panels, pitch)
        try:
            yield block
        finally:
            self.free(block)

    def op(self, op, d, a=None, b=None, scalar=0.0, shuffle=0, tile=None):
        """One VECTOR instruction over blocks of equal shape.

        Parameters
        ----------
        d : Block or None
            Result rows, if any.
        a, b : Block or None
        tile : (int, int), optional
            First result tile, and tiles from one panel to the next.
        """
        shape = next(block for block in (d, a, b) if block is not None)
        fields = {"inner": shape.rows, "outer": shape.panels, "shuffle": shuffle}
        for name, block in (("a", a), ("b", b), ("d", d)):
            if block is not None:
                assert (block.rows, block.panels) == (shape.rows, shape.panels), "blocks of unequal shape"
                fields |= {name: block.start, f"{name}_inner": block.step, f"{name}_outer": block.pitch}
        if d is not None:
            fields["to_vector"] = 1
        if tile is not None:
            fields |= {"to_tile": 1, "tile": tile[0], "tile_outer": tile[1]}
        return self.program.vector(op, scalar=scalar, **fields)


def _bank(index):
    return range(index, index + 1)


def interleave(*threads, spare=None):
    """Run generators to their ends so that the estimated times they yield stay level.

    Each yields the estimated cycle at which its latest instruction is done. Advancing the one that is behind emits
    instructions about in the order of their execution; among equals the first goes first. Whenever only one is left,
    the generator ``spare`` goes with it, but not on after its end.
    """
    times = dict.fromkeys(threads, 0)
    while times:
        if len(times) == 1 and spare is not None:
            times[spare], spare = 0, None
        thread = min(times, key=times.get)
        try:
            times[thread] = next(thread)
        except StopIteration:
            del times[thread]
            if thread in threads and not times.keys() & set(threads):
                return
