"""What an instruction touches: rows of the vector memory, tiles of the tile memory, bytes of memory."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from macaw_hw.isa import LOOPS, DataFormat, Opcode, VectorOp

__all__ = ["element_bytes", "Footprint", "chainable", "dma_size", "footprint", "intervals"]

_NOTHING = np.empty(0, dtype=np.int64)
_MOST_INTERVALS = 256


@dataclass(frozen=True)
class Footprint:
    """Index arrays of local memory (with repetitions) and half-open byte intervals of memory."""
    rows_read: np.ndarray = field(default_factory=lambda: _NOTHING)
    rows_written: np.ndarray = field(default_factory=lambda: _NOTHING)
    tiles_read: np.ndarray = field(default_factory=lambda: _NOTHING)
    tiles_written: np.ndarray = field(default_factory=lambda: _NOTHING)
    memory_read: tuple = ()
    memory_written: tuple = ()


def element_bytes(format, config):
    """Bytes in memory of one element of a :class:`DataFormat`."""
    return {DataFormat.FLOAT32: 4, DataFormat.UINT8: 1, DataFormat.BFP8: config.tile_bytes}[DataFormat(format)]


def _grid(first, *loops):
    """``first`` plus all sums of index * stride over (count, stride) loops, the last one innermost."""
    result = np.array([first], dtype=np.int64)
    for count, stride in loops:
        result = (result[:, None] + stride * np.arange(count)).ravel()
    return result


def dma_size(fields, config):
    """Rows (or tiles for BFP8) of local memory that a LOAD or STORE covers."""
    counts = [fields[f"count{i}"] for i in range(LOOPS)]
    if fields["format"] == DataFormat.BFP8:
        return fields["run"] * int(np.prod(counts))
    inside = fields["run"] * int(np.prod(counts[:fields["pack"]]))
    return -(-inside // config.size) * int(np.prod(counts[fields["pack"]:]))


def intervals(fields, config):
    """Byte intervals of memory that a LOAD or STORE touches.

    Neighbouring runs are joined. A pattern of very many separate runs is covered by one interval.
    """
    length = fields["run"] * element_bytes(fields["format"], config)
    loops = [(fields[f"count{i}"], fields[f"stride{i}"]) for i in range(LOOPS) if fields[f"count{i}"] > 1]
    while loops and loops[0][1] == length:
        length *= loops.pop(0)[0]
    if np.prod([count for count, _ in loops]) > _MOST_INTERVALS:
        reach = [stride * (count - 1) for count, stride in loops]
        low = fields["address"] + sum(min(r, 0) for r in reach)
        return ((low, fields["address"] + sum(max(r, 0) for r in reach) + length),)
    return tuple((int(first), int(first) + length) for first in _grid(fields["address"], *loops[::-1]))


def footprint(format, fields, config):
    """The :class:`Footprint` of an instruction given as in :func:`macaw_hw.isa.decode`."""
    f = fields
    if format.opcode == Opcode.MATRIX:
        return Footprint(
            rows_written=_grid(f["y"], (f["rows"], f["y_stride"])),
            tiles_read=np.concatenate([
                _grid(f["x"], (-(-f["rows"] // config.size), f["x_row_stride"]), (f["k_tiles"], f["x_k_stride"])),
                _grid(f["w"], (f["k_tiles"], f["w_k_stride"]))]))
    if format.opcode == Opcode.VECTOR:
        uses = VectorOp(f["op"]).operands
        loops = {operand: ((f["outer"], f[f"{operand}_outer"]), (f["inner"], f[f"{operand}_inner"]))
                 for operand in "abd"}
        read = [_grid(f[operand], *loops[operand]) for operand, used in (("a", uses.a), ("b", uses.b)) if used]
        tiles = (f["outer"], f["tile_outer"]), (-(-f["inner"] // config.size), f["tile_inner"])
        return Footprint(
            rows_read=np.concatenate(read) if read else _NOTHING,
            rows_written=_grid(f["d"], *loops["d"]) if f["to_vector"] else _NOTHING,
            tiles_written=_grid(f["tile"], *tiles) if f["to_tile"] else _NOTHING)
    local = np.arange(f["local"], f["local"] + dma_size(f, config))
    kind = "tiles" if f["format"] == DataFormat.BFP8 else "rows"
    if format.opcode == Opcode.LOAD:
        return Footprint(**{f"{kind}_written": local}, memory_read=intervals(f, config))
    return Footprint(**{f"{kind}_read": local}, memory_written=intervals(f, config))


def chainable(before, fields):
    """Whether a VECTOR instruction may be chained to the VECTOR instruction ``before`` it, both as
    :func:`macaw_hw.isa.decode` gives them: no iteration reads a row that ``before`` writes in a later one."""
    if not before["to_vector"]:
        return True
    written = tuple(before[name] for name in ("outer", "d_outer", "inner", "d_inner"))
    uses = VectorOp(fields["op"]).operands
    return all(_in_step(written, fields[operand] - before["d"], fields["outer"], fields[f"{operand}_outer"],
                        fields["inner"], fields[f"{operand}_inner"])
               for operand, used in (("a", uses.a), ("b", uses.b)) if used)


@lru_cache(maxsize=1 << 12)
def _in_step(written, first, outer, outer_stride, inner, inner_stride):
    """Whether iteration k reads, from row ``first`` on, no row that is written, from row 0 on, after iteration k."""
    count, stride, *rest = written
    written = _grid(0, (count, stride), tuple(rest))
    read = _grid(first, (outer, outer_stride), (inner, inner_stride))
    low = min(written.min(), read.min())
    last = np.full(max(written.max(), read.max()) - low + 1, -1)
    last[written - low] = np.arange(written.size)
    return bool((last[read - low] <= np.arange(read.size)).all())
