"""What all kernels share: the program, the caches, blocks of vector rows, and threads of work."""

from contextlib import contextmanager
from dataclasses import dataclass, replace

from ..memory import rows_cache, tiles_cache
from ..program import Program

__all__ = ["Batch", "Block", "Context", "interleave"]


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
    def blocks(samples, size, n):
        """The blocks of a batch, ``size`` samples each (a multiple of ``n``) but the last."""
        return [Batch(i, start, min(size, samples - start), -(-min(size, samples - start) // n),
                      -(-min(size, samples - start) // n) * n)
                for i, start in enumerate(range(0, samples, size))]


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
        self._turn = 0

    def allocate_sums(self, count):
        """Rows in one bank for the array to accumulate in, in another bank than the last time if possible."""
        for attempt in range(len(self.sums)):
            bank = self.sums[(self._turn + attempt) % len(self.sums)]
            start = self.rows.allocator.allocate(count, range(bank, bank + 1))
            if start is not None:
                self._turn = bank + 1
                return start
        start = self.rows.allocator.allocate(count, self.sums)
        return self.rows.allocate(count) if start is None else start

    def block(self, rows, panels, pitch):
        """A new :class:`Block`, to be given to :meth:`free`."""
        return Block(self.rows.allocate(panels * pitch, self.others), rows, panels, pitch)

    def free(self, block):
        self.rows.free(block.start, block.panels * block.pitch)

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


def interleave(*threads):
    """Run generators to their ends so that the estimated times they yield stay level.

    Each yields the estimated cycle at which its latest instruction is done. Advancing the one that is behind emits
    instructions about in the order of their execution; among equals the first goes first.
    """
    times = dict.fromkeys(threads, 0)
    while times:
        thread = min(times, key=times.get)
        try:
            times[thread] = next(thread)
        except StopIteration:
            del times[thread]
