"""Functional coverage: named situations that a campaign must have been in, and which it was not."""

from collections import Counter
from itertools import product

import numpy as np
from macaw.footprint import chainable, footprint
from macaw_hw import isa
from macaw_hw.config import Config
from macaw_hw.isa import DataFormat, Fault, FaultUnit, Opcode, Queue, VectorOp

from .case import Case, instructions

__all__ = ["MOMENTS", "Coverage", "universe"]

MOMENTS = ("abort", "reset", "silence", "silence_reset", "silence_abort", "doorbell", "registers", "accesses",
           "overwrite", "self_overwrite", "bus_read", "bus_write")
"""What happens to a program while it runs; see `moments`."""
_BEATS = ("load_error", "fetch_error", "store_error")
_ENDS = {"doorbell": ("done",), "registers": ("done",), "accesses": ("done",), "bus_read": ("stopped",),
         "bus_write": ("stopped",), **{name: ("stopped",) for name in _BEATS}}
_STEPS = ("negative", "zero", "one", "more")
_GAPS = ("negative", "zero", "overlapping", "contiguous", "gap")
_LENGTHS = ("1", "2-16", "17-255", "256")
_COUNTED = (*(f"{queue.name.lower()}_wait_{cause}" for queue in Queue for cause in ("token", "memory", "other")),
            "fetch_blocked")
_FAULTS = {Fault.ILLEGAL_INSTRUCTION: (FaultUnit.SEQUENCER,), Fault.LOCAL_ADDRESS: tuple(FaultUnit)[:4],
           Fault.WINDOW: (FaultUnit.LOAD, FaultUnit.STORE, FaultUnit.SEQUENCER),
           Fault.BUS_READ: (FaultUnit.LOAD, FaultUnit.SEQUENCER), Fault.BUS_WRITE: (FaultUnit.STORE,),
           Fault.NON_FINITE: (FaultUnit.VECTOR, FaultUnit.STORE), Fault.WATCHDOG: (FaultUnit.SEQUENCER,),
           Fault.TOKENS: tuple(FaultUnit)[:4]}
_RUNS = 64
_PAGE = 4096
_MANY = 16


def universe(config: Config) -> dict[str, tuple[str, ...]]:
    """All bins of a configuration, by group."""
    def names(*parts):
        return tuple(".".join(map(str, part)) for part in product(*parts))

    operands = []
    for op in VectorOp:
        uses = op.operands
        operands += [f"{op.name}.{kind}" for kind, there in (
            ("a_plain", uses.a), ("a_broadcast", uses.a), ("b_plain", uses.b), ("b_broadcast", uses.b),
            ("b_shuffled", uses.b), ("same_row", uses.a and uses.b)) if there]
    transfers = ("LOAD", "STORE")
    return {
        "operation": names([op.name for op in VectorOp], ("vector", "tile", "both")),
        "operand": tuple(operands),
        "scalar": ("zero", "subnormal", "normal", "infinite", "nan"),
        "shuffle": names(range(1, config.size)),
        "stride": names([f"{operand}_{loop}" for operand in ("a", "b", "d", "tile") for loop in ("inner", "outer")]
                        + ["x_row_stride", "x_k_stride", "w_k_stride"], _STEPS)
        + names(["y_stride"], ("negative", "one", "more")),
        "memory_stride": names(transfers, range(isa.LOOPS), _GAPS),
        "chain": names(("vector", "both"), ("apart", "same rows", "other rows", "not chained")) + ("tile.apart",),
        "chain_rows": ("fewer", "as many", "more"),
        "partial_tile": names(("whole", "partial"), ("single", "several")),
        "transpose": names(("x", "xT"), ("w", "wT"), ("=", "+=")),
        "reduction": names(("1", "<N", "N", "whole tiles", "partial"), ("1", "2", "more")),
        "banks": names(("a-b", "a-d", "b-d", "x-w"), ("same", "different")),
        "bank_border": ("a", "b", "d", "y", "x", "w", "local"),
        "transfer": names(transfers, ("FLOAT32", "UINT8"), range(4)) + names(transfers, ("BFP8",), (0,)),
        "lanes": names(transfers, ("whole", "partial")),
        "burst": names(transfers, range(config.bus_bytes), _LENGTHS),
        "burst_end": names(transfers, range(config.bus_bytes)),
        "crossing": names(transfers, ("4 KiB",)),
        "token": tuple(f"{a.name}-{b.name}" for a in Queue for b in Queue if a != b),
        "token_depth": ("1", "2-15", "16 and more", "left over"),
        "extreme": ("vector rows", "matrix rows", "matrix tiles", "run", "count"),
        "length": ("1", "2-15", "16-99", "100 and more"),
        "counter": _COUNTED,
        "fault": tuple(f"{fault.name}.{unit.name}" for fault, units in _FAULTS.items() for unit in units),
        "fault_race": ("one", "several queues", "several causes"),
        "moment": tuple(f"{moment}.{end}" for moment in (*MOMENTS, *_BEATS)
                        for end in _ENDS.get(moment, ("done", "stopped"))),
    }


def _step(stride):
    return "negative" if stride < 0 else ("zero", "one")[stride] if stride < 2 else "more"


class Coverage:
    """Counts hits of the bins of `universe`.

    Attributes
    ----------
    hits : Counter of (group, name)
    """

    def __init__(self, config: Config):
        self.config = config
        self.hits: Counter = Counter()
        self._bins = {(group, name) for group, names in universe(config).items() for name in names}

    def hit(self, group: str, *name) -> None:
        """Count a bin. ``KeyError`` if there is no such bin."""
        key = group, ".".join(map(str, name))
        if key not in self._bins:
            raise KeyError(f"no bin {key}")
        self.hits[key] += 1

    def program(self, case: Case, counters: dict[str, int] | None = None) -> None:
        """A legal program that ran, and the device's counters after it."""
        decoded = [isa.decode(one) for one in instructions(case.program)]
        for format, f in decoded:
            {Opcode.VECTOR: self._vector, Opcode.MATRIX: self._matrix}.get(format.opcode, self._transfer)(f)
        vectors = [f for format, f in decoded if format.opcode == Opcode.VECTOR]
        for before, f in zip(vectors, vectors[1:], strict=False):
            self._chain(before, f)
        self._tokens(decoded)
        count = len(decoded)
        self.hit("length", "1" if count == 1 else "2-15" if count < 16 else "16-99" if count < 100 else "100 and more")
        for name in _COUNTED:
            if counters and counters[name]:
                self.hit("counter", name)

    def outcome(self, case: Case, registers: dict[str, int], expected) -> None:
        """The end of a program that may have faulted."""
        code = Fault(registers["fault_code"])
        if code == Fault.NONE:
            return self.program(case)
        self.hit("fault", f"{code.name}.{FaultUnit(registers['fault_unit']).name}")
        indices = {index for _, _, index in expected.reports}
        if len(expected.reports) == 1:
            self.hit("fault_race", "one")
        if len(indices) > 1:
            self.hit("fault_race", "several queues")
        if len(expected.reports) > len(indices):
            self.hit("fault_race", "several causes")

    def missing(self) -> dict[str, list[str]]:
        """Bins never hit, by group."""
        return {group: left for group, names in universe(self.config).items()
                if (left := [name for name in names if not self.hits[group, name]])}

    def report(self) -> str:
        """A line for each group, then what was never hit."""
        bins, lines = universe(self.config), []
        missing = self.missing()
        for group, names in bins.items():
            lines.append(f"{group:14} {len(names) - len(missing.get(group, ())):4} of {len(names):4}")
        total, left = sum(map(len, bins.values())), sum(map(len, missing.values()))
        lines.append(f"{'all':14} {total - left:4} of {total:4}  ({100 * (total - left) / total:.1f} %)")
        lines += [f"never: {group}: {', '.join(names)}" for group, names in missing.items()]
        return "\n".join(lines)

    # ---- bins of one instruction

    def _border(self, name, first, last, depth):
        if first // depth != last // depth:
            self.hit("bank_border", name)

    def _vector(self, f):
        op, config = VectorOp(f["op"]), self.config
        uses = op.operands
        self.hit("operation", op.name, ("vector", "tile", "both")[f["to_vector"] + 2 * f["to_tile"] - 1])
        exponent, fraction = f["scalar"] >> 23 & 0xFF, f["scalar"] & 0x7FFFFF
        self.hit("scalar", (("zero", "subnormal")[fraction != 0] if exponent == 0 else "normal" if exponent < 255
                            else ("infinite", "nan")[fraction != 0]))
        loops = {"inner": f["inner"], "outer": f["outer"]}
        used = {"a": uses.a, "b": uses.b, "d": f["to_vector"], "tile": f["to_tile"]}
        for operand, there in used.items():
            for loop, count in loops.items():
                if operand == "tile" and loop == "inner":
                    count = -(-count // config.size)
                if there and count > 1:
                    self.hit("stride", f"{operand}_{loop}", _step(f[f"{operand}_{loop}"]))
            if there and operand != "tile":
                last = f[operand] + sum((loops[loop] - 1) * f[f"{operand}_{loop}"] for loop in loops)
                self._border(operand, f[operand], last, config.vector_bank_rows)
        for operand in "ab":
            if used[operand]:
                repeats = any(loops[loop] > 1 and f[f"{operand}_{loop}"] == 0 for loop in loops)
                self.hit("operand", op.name, f"{operand}_{'broadcast' if repeats else 'plain'}")
        if uses.b and f["shuffle"]:
            self.hit("operand", op.name, "b_shuffled")
            self.hit("shuffle", f["shuffle"])
        if uses.a and uses.b and f["a"] == f["b"]:
            self.hit("operand", op.name, "same_row")
        bank = {operand: f[operand] // config.vector_bank_rows for operand in "abd" if used[operand]}
        for pair in ("a-b", "a-d", "b-d"):
            if pair[0] in bank and pair[2] in bank:
                self.hit("banks", pair, "same" if bank[pair[0]] == bank[pair[2]] else "different")
        if f["to_tile"]:
            self.hit("partial_tile", "partial" if f["inner"] % config.size else "whole",
                     "several" if f["inner"] > config.size else "single")
        if f["inner"] * f["outer"] >= 1000:
            self.hit("extreme", "vector rows")

    def _chain(self, before, f):
        """Two VECTOR in a row."""
        kind = ("vector", "tile", "both")[before["to_vector"] + 2 * before["to_tile"] - 1]
        uses = VectorOp(f["op"]).operands
        if not f["chain"]:
            if not chainable(before, f):
                self.hit("chain", kind, "not chained")
            return
        written = [before[name] for name in ("d", "d_inner", "d_outer", "inner", "outer")]
        reads = [[f[name] for name in (operand, f"{operand}_inner", f"{operand}_outer", "inner", "outer")]
                 for operand, used in (("a", uses.a), ("b", uses.b)) if used]
        rows = footprint(isa.VECTOR, before, self.config).rows_written
        shared = np.isin(footprint(isa.VECTOR, f, self.config).rows_read, rows).any()
        self.hit("chain", kind, "same rows" if shared and written in reads else "other rows" if shared else "apart")
        if shared:
            counts = [one["inner"] * one["outer"] for one in (before, f)]
            self.hit("chain_rows", "fewer" if counts[1] < counts[0] else "more" if counts[1] > counts[0] else "as many")

    def _matrix(self, f):
        n, config = self.config.size, self.config
        rows, tiles = f["rows"], f["k_tiles"]
        self.hit("transpose", "xT" if f["x_transpose"] else "x", "wT" if f["w_transpose"] else "w",
                 "+=" if f["accumulate"] else "=")
        kind = ("1" if rows == 1 else "<N" if rows < n else "N" if rows == n
                else "partial" if rows % n else "whole tiles")
        self.hit("reduction", kind, "1" if tiles == 1 else "2" if tiles == 2 else "more")
        row_tiles = -(-rows // n)
        for name, count in (("x_row_stride", row_tiles), ("x_k_stride", tiles), ("w_k_stride", tiles),
                            ("y_stride", rows)):
            if count > 1:
                self.hit("stride", name, _step(f[name]))
        self._border("y", f["y"], f["y"] + (rows - 1) * f["y_stride"], config.vector_bank_rows)
        self._border("x", f["x"], f["x"] + (row_tiles - 1) * f["x_row_stride"] + (tiles - 1) * f["x_k_stride"],
                     config.tile_bank_tiles)
        self._border("w", f["w"], f["w"] + (tiles - 1) * f["w_k_stride"], config.tile_bank_tiles)
        same = f["x"] // config.tile_bank_tiles == f["w"] // config.tile_bank_tiles
        self.hit("banks", "x-w", "same" if same else "different")
        if rows >= 100:
            self.hit("extreme", "matrix rows")
        if tiles >= 64:
            self.hit("extreme", "matrix tiles")

    def _transfer(self, f):
        config, name = self.config, Opcode(f["opcode"]).name
        format = DataFormat(f["format"])
        self.hit("transfer", name, format.name, f["pack"])
        tiles = format == DataFormat.BFP8
        run = f["run"] * {DataFormat.FLOAT32: 4, DataFormat.UINT8: 1, DataFormat.BFP8: config.tile_bytes}[format]
        counts = [f[f"count{i}"] for i in range(isa.LOOPS)]
        starts = np.array([f["address"]])
        for i, count in enumerate(counts):
            stride = f[f"stride{i}"]
            if count > 1:
                self.hit("memory_stride", name, i, "negative" if stride < 0 else "zero" if stride == 0 else
                         "overlapping" if stride < run else "contiguous" if stride == run else "gap")
                starts = (starts[:, None] + stride * np.arange(min(count, 8))).ravel()[:_RUNS]
        for first in starts.tolist():
            self._bursts(name, first, first + run)
        inside = f["run"] * int(np.prod(counts[:f["pack"]]))
        if not tiles:
            self.hit("lanes", name, "partial" if inside % config.size else "whole")
        places = (inside if tiles else -(-inside // config.size)) * int(np.prod(counts[f["pack"]:]))
        depth = config.tile_bank_tiles if tiles else config.vector_bank_rows
        self._border("local", f["local"], f["local"] + places - 1, depth)
        if f["run"] >= 1000:
            self.hit("extreme", "run")
        if max(counts) >= 1000:
            self.hit("extreme", "count")

    def _bursts(self, name, first, beyond):
        bus = self.config.bus_bytes
        piece = min(_PAGE, 256 * bus)
        if first // _PAGE != (beyond - 1) // _PAGE:
            self.hit("crossing", name, "4 KiB")
        self.hit("burst_end", name, beyond % bus)
        while first < beyond:
            end = min(beyond, first // piece * piece + piece)
            beats = -(-end // bus) - first // bus
            length = "1" if beats == 1 else "2-16" if beats <= 16 else "17-255" if beats < 256 else "256"
            self.hit("burst", name, first % bus, length)
            first = end

    def _tokens(self, decoded):
        waiting = np.zeros((len(Queue), len(Queue)), int)
        deepest = 0
        for format, f in decoded:
            for other in Queue:
                if f["wait"] >> other & 1:
                    self.hit("token", f"{other.name}-{format.queue.name}")
                    waiting[other, format.queue] -= 1
                if f["post"] >> other & 1:
                    waiting[format.queue, other] += 1
            deepest = max(deepest, waiting.max())
        if deepest:
            self.hit("token_depth", "1" if deepest == 1 else "2-15" if deepest < _MANY else "16 and more")
        if waiting.any():
            self.hit("token_depth", "left over")
