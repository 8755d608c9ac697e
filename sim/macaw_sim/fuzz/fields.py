"""Random fields of single instructions."""

import numpy as np
from macaw_hw import isa
from macaw_hw.config import Config
from macaw_hw.isa import DataFormat, VectorOp

from .case import DATA, DATA_BYTES

__all__ = ["Fields", "hostile_floats"]

_ROWS, _TILES = 20, 6
_MARGIN = 64
_HOSTILE = (0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x00800000, 0x80800000, 0x3F800000, 0xBF800000,
            0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x3F000000,
            0x4B000000, 0x4B000001, 0x33800000, 0x5F000000, 0x1F800000, 0x42FE0000, 0xC2AEAC50)


def hostile_floats(rng, count):
    """Bits of float32: moderate numbers, any bits, special values, and neighbours of special values."""
    kind = rng.integers(0, 10, count)
    moderate = (rng.standard_normal(count) * 2.0 ** rng.integers(-6, 7, count)).astype(np.float32)
    special = rng.choice(np.array(_HOSTILE, np.uint32), count)
    bits = moderate.view(np.uint32).copy()
    bits[kind == 7] = rng.integers(0, 1 << 32, count, dtype=np.uint32)[kind == 7]
    bits[kind == 8] = special[kind == 8]
    bits[kind == 9] = special[kind == 9] + rng.integers(-2, 3, count)[kind == 9].astype(np.uint32)
    return bits


class Fields:
    """Draws the fields of one instruction: most around the boundaries of the banks of the local memories.

    Parameters
    ----------
    config : Config
    rng : numpy Generator
    wide : bool
        Now and then also places all over the local memories, long strides and extreme counts.
    """

    def __init__(self, config: Config, rng, *, wide: bool):
        self.config, self.rng, self.wide = config, rng, wide
        self.regions = {"row": self._around(config.vector_banks, config.vector_bank_rows, _ROWS),
                        "tile": self._around(config.tile_banks, config.tile_bank_tiles, _TILES)}
        self._whole = {"row": [(0, config.vector_rows)], "tile": [(0, config.tiles)]}
        self._far = self._extreme = False

    @staticmethod
    def _around(banks, depth, reach):
        """Ranges (first, last + 1) around the boundaries of the banks, and at both ends."""
        edges = [bank * depth for bank in range(banks + 1)]
        return [(max(0, edge - reach), min(banks * depth, edge + reach)) for edge in edges]

    def draw(self, opcode) -> dict | None:
        """Fields of an instruction, or None when the draw does not fit."""
        self._far = self.wide and self.rng.random() < 0.15
        self._extreme = self._far and self.rng.random() < 0.03
        return getattr(self, "_" + opcode.name.lower())()

    def _place(self, kind, extents):
        """A first place such that all of ``extents`` (offsets) stay within one region, or None."""
        low, high = min(extents), max(extents)
        regions = (self._whole if self._far else self.regions)[kind]
        first, last = regions[self.rng.integers(len(regions))]
        if high - low >= last - first:
            return None
        return int(self.rng.integers(first - low, last - high))

    def _loops(self, kind, *counts):
        """Strides for loops of ``counts``, and a first place: (first, *strides), or None."""
        strides = [int(s) for s in self.rng.integers(-3, 4, len(counts))]
        if self._far:
            depth = self._whole[kind][0][1]
            strides = [int(self.rng.integers(-reach, reach + 1))
                       for reach in (min(4095, depth // (len(counts) * max(1, count - 1))) for count in counts)]
        offsets = [0]
        for count, stride in zip(counts, strides, strict=True):
            offsets += [o + (count - 1) * stride for o in offsets]
        first = self._place(kind, offsets)
        return None if first is None else (first, *strides)

    def _count(self, most):
        return int(min(self.rng.geometric(0.25), most))

    def _matrix(self):
        rng, n = self.rng, self.config.size
        rows = int(rng.choice([1, 2, n - 1, n, n + 1, int(rng.integers(1, 3 * n))]))
        k_tiles = self._count(4)
        if self._extreme:
            rows, k_tiles = ((int(rng.integers(100, self.config.vector_rows // 2)), 2) if rng.random() < 0.5
                             else (self._count(3), int(rng.integers(64, 1500))))
        x = self._loops("tile", -(-rows // n), k_tiles)
        w = self._loops("tile", k_tiles)
        y = self._loops("row", rows)
        if None in (x, w, y):
            return None
        return {"accumulate": int(rng.integers(2)), "x_transpose": int(rng.integers(2)),
                "w_transpose": int(rng.integers(2)), "rows": rows, "k_tiles": k_tiles,
                "x": x[0], "x_row_stride": x[1], "x_k_stride": x[2], "w": w[0], "w_k_stride": w[1],
                "y": y[0], "y_stride": y[1]}

    def _vector(self):
        rng, n = self.rng, self.config.size
        inner = int(rng.choice([1, n, n + 1, self._count(2 * n)]))
        outer = self._count(4)
        if self._extreme:
            inner, outer = (int(rng.integers(1000, 4096)), 1) if rng.random() < 0.5 else (1, 4095)
        fields = {"op": int(rng.integers(len(VectorOp))), "inner": inner, "outer": outer,
                  "shuffle": int(rng.integers(n)) if rng.random() < 0.4 else 0,
                  "scalar": int(hostile_floats(rng, 1)[0])}
        destination = int(rng.integers(1, 4))
        fields |= {"to_vector": destination & 1, "to_tile": destination >> 1}
        for operand in "abd":
            place = self._loops("row", inner, outer)
            if place is None:
                return None
            fields |= dict(zip((operand, f"{operand}_inner", f"{operand}_outer"), place, strict=True))
        if rng.random() < 0.3:
            fields |= {"b": fields["a"], "b_inner": fields["a_inner"], "b_outer": fields["a_outer"]}
        tile = self._loops("tile", -(-inner // n), outer)
        if tile is None:
            return None
        return fields | dict(zip(("tile", "tile_inner", "tile_outer"), tile, strict=True))

    def follow(self, before) -> dict | None:
        """Fields of a VECTOR that reads rows that the VECTOR ``before`` writes: the same in the same order, most often,
        or some iterations earlier or later."""
        rng, fields = self.rng, self._vector()
        if fields is None or not before["to_vector"]:
            return fields
        if rng.random() < 0.8:
            fields |= {"inner": before["inner"], "outer": before["outer"]}
        shift = int(rng.choice([0, 0, 0, 0, -1, 1, int(rng.integers(-20, 20))])) * before["d_inner"]
        for operand in ("a", "b", "d"):
            if rng.random() < 0.6:
                source = before["d"] + (shift if operand != "d" else 0)
                fields |= {operand: source, f"{operand}_inner": before["d_inner"],
                           f"{operand}_outer": before["d_outer"]}
            if not self._within("row", operand, fields, fields["inner"]):
                return None
        if not self._within("tile", "tile", fields, -(-fields["inner"] // self.config.size)):
            return None
        if rng.random() < 0.1:
            fields["chain"] = 0
        return fields

    def _within(self, kind, operand, fields, inner):
        """Whether all places of an operand are where this generator may go."""
        reach = [(inner - 1) * fields[f"{operand}_inner"], (fields["outer"] - 1) * fields[f"{operand}_outer"]]
        low = fields[operand] + sum(min(r, 0) for r in reach)
        high = fields[operand] + sum(max(r, 0) for r in reach)
        places = self._whole if self.wide else self.regions
        return any(first <= low and high < beyond for first, beyond in places[kind])

    def _transfer(self):
        rng, config = self.rng, self.config
        format = DataFormat(int(rng.integers(3)))
        unit = {DataFormat.FLOAT32: 4, DataFormat.UINT8: 1, DataFormat.BFP8: config.tile_bytes}[format]
        tiles = format == DataFormat.BFP8
        pack = 0 if tiles else int(rng.choice([0, 0, 1, 2, 3]))
        run = self._count(3) if tiles else int(rng.integers(1, 4 * config.size))
        counts = [self._count(3) if rng.random() < 0.4 else 1 for _ in range(isa.LOOPS)]
        if self._far:
            most = DATA_BYTES // 4 // unit - 2 * _MARGIN // unit - 1
            run = int(rng.integers(1, most)) if rng.random() < 0.8 else most - int(rng.integers(most // 8 + 1))
            counts = [1] * isa.LOOPS
        if self._extreme and not tiles and rng.random() < 0.5:
            counts, run, pack = [int(rng.integers(1000, 4096)), 1, 1, 1], 1, int(rng.integers(1, 4))
            counts = [counts[0], *(int(c) for c in rng.permutation(counts[1:]))]
        inside = run * int(np.prod(counts[:pack]))
        places = (inside if tiles else -(-inside // config.size)) * int(np.prod(counts[pack:]))
        local = self._place("tile" if tiles else "row", [0, places - 1])
        if local is None:
            return None
        reach = max(1, min(2 * run * unit, DATA_BYTES // 16 // max(counts)))
        strides = [int(rng.integers(-reach, reach + 1)) for _ in counts]
        if rng.random() < 0.3:
            strides[int(rng.integers(len(strides)))] = int(rng.choice([0, run * unit]))
        low = sum(min(0, (c - 1) * s) for c, s in zip(counts, strides, strict=True))
        high = sum(max(0, (c - 1) * s) for c, s in zip(counts, strides, strict=True)) + run * unit
        quarter = DATA_BYTES // 4
        part = 3 if tiles else int(rng.integers(2)) if format == DataFormat.FLOAT32 else 2
        first, last = DATA + part * quarter + _MARGIN - low, DATA + (part + 1) * quarter - _MARGIN - high
        if first >= last:
            return None
        address = int(rng.integers(first, last))
        if tiles:
            address = DATA + 3 * quarter + (address - DATA - 3 * quarter) // unit * unit
        elif self._far and rng.random() < 0.3:
            # Any lane of the first beat of a longest burst.
            piece = min(4096, 256 * config.bus_bytes)
            aligned = -(-address // piece) * piece + int(rng.integers(config.bus_bytes))
            address = aligned if aligned < last else address
        elif format == DataFormat.FLOAT32 and rng.random() < 0.7:
            address &= -4
            strides = [s & -4 for s in strides]
            low = address + sum(min(0, (c - 1) * s) for c, s in zip(counts, strides, strict=True))
            if low < DATA + part * quarter:
                return None  # it would read the program
        return {"format": int(format), "pack": pack, "address": address, "local": local, "run": run,
                **{f"count{i}": c for i, c in enumerate(counts)},
                **{f"stride{i}": s for i, s in enumerate(strides)}}

    _load = _store = _transfer
