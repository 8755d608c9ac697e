"""Random legal programs, run on two backends whose memories must then be equal, bit for bit.

``python -m macaw_sim.fuzz --config n4 --programs 100 --seed 1`` compares the RTL with the emulator. A
generator executes every instruction that it draws on a state of its own: what faults or depends on
timing is drawn again. Local memories are used around the boundaries of their banks, on a persistent
device, and are compared as a whole at the end.
"""

import argparse
import random
import struct
from dataclasses import dataclass

import numpy as np
from macaw.program import Program
from macaw_hw import isa
from macaw_hw.config import Config, named_config
from macaw_hw.isa import INSTRUCTION_BYTES, DataFormat, Opcode, VectorOp
from macaw_hw.registers import REGISTERS

from .backend import Backend, create_backend
from .emulator.program import Program as Decoded
from .emulator.state import DeviceFault, State

__all__ = ["Case", "Generator", "Mismatch", "compare", "main"]

_PROGRAM, _DATA, _DATA_BYTES = 0x0_0000, 0x1_0000, 0x1_0000
_DUMP = 0x4_0000
_ROWS, _TILES = 20, 6
_MARGIN = 64
_HOSTILE = (0x00000000, 0x80000000, 0x00000001, 0x807FFFFF, 0x00800000, 0x80800000, 0x3F800000, 0xBF800000,
            0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x3F000000,
            0x4B000000, 0x4B000001, 0x33800000, 0x5F000000, 0x1F800000, 0x42FE0000, 0xC2AEAC50)


class Mismatch(AssertionError):
    """Two backends disagree."""


@dataclass(frozen=True)
class Case:
    """A program and the memory it starts from."""
    program: bytes
    dram: np.ndarray


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


class Generator:
    """Draws programs for one device; follows the state of its memories from program to program.

    Parameters
    ----------
    config : Config
    seed : int
    dram_bytes : int
        At least 1 MiB.
    """

    def __init__(self, config: Config, seed: int, dram_bytes: int = 1 << 20):
        self.config = config
        self.rng = np.random.default_rng(seed)
        self.state = State(config, np.zeros(dram_bytes, np.uint8))
        self.state.window = (0, dram_bytes)
        self._regions = {
            "row": self._around(config.vector_banks, config.vector_bank_rows, _ROWS),
            "tile": self._around(config.tile_banks, config.tile_bank_tiles, _TILES)}

    @staticmethod
    def _around(banks, depth, reach):
        """Ranges (first, last + 1) around the boundaries of the banks, and at both ends."""
        edges = [bank * depth for bank in range(banks + 1)]
        return [(max(0, edge - reach), min(banks * depth, edge + reach)) for edge in edges]

    def case(self, length: int) -> Case:
        """A program of ``length`` instructions."""
        rng, dram = self.rng, self.state.dram
        self._fill(dram)
        start = dram.copy()
        program = Program(self.config)
        while len(program) < length:
            opcode = Opcode(int(rng.choice(4, p=(0.25, 0.2, 0.35, 0.2))) + 1)
            fields = getattr(self, "_" + opcode.name.lower())()
            if fields is None:
                continue
            one = Decoded(isa.encode(opcode, **fields), self.config)
            if one.illegal or self._hazard(opcode, one, fields):
                continue
            try:
                one.steps[0].run(self.state)
            except DeviceFault:
                continue
            self._append(program, opcode, fields)
        content = program.to_bytes()
        start[_PROGRAM:_PROGRAM + len(content)] = np.frombuffer(content, np.uint8)
        dram[_PROGRAM:_PROGRAM + len(content)] = start[_PROGRAM:_PROGRAM + len(content)]
        return Case(content, start)

    def dump(self) -> Case:
        """A program that stores all of both local memories."""
        config, program = self.config, Program(self.config)
        rows_at, step = _DUMP, 1024
        for row in range(0, config.vector_rows, step):
            count = min(step, config.vector_rows - row)
            program.store(format=DataFormat.FLOAT32, address=rows_at, local=row, run=count * config.size)
            rows_at += count * config.row_bytes
        for tile in range(0, config.tiles, step):
            count = min(step, config.tiles - tile)
            program.store(format=DataFormat.BFP8, address=rows_at, local=tile, run=count)
            rows_at += count * config.tile_bytes
        start = np.zeros(max(1 << 20, rows_at), np.uint8)
        content = program.to_bytes()
        start[_PROGRAM:_PROGRAM + len(content)] = np.frombuffer(content, np.uint8)
        return Case(content, start)

    def _fill(self, dram):
        """New data: hostile floats, moderate floats, bytes, and bfp8 records with sensible exponents."""
        rng = self.rng
        dram[:] = 0
        data = dram[_DATA:_DATA + _DATA_BYTES]
        quarter = _DATA_BYTES // 4
        data[:quarter] = hostile_floats(rng, quarter // 4).view(np.uint8)
        data[quarter:2 * quarter] = rng.standard_normal(quarter // 4).astype(np.float32).view(np.uint8)
        data[2 * quarter:] = rng.integers(0, 256, 2 * quarter, dtype=np.uint8)
        size = self.config.tile_bytes
        for at in range(3 * quarter, _DATA_BYTES - size, size):
            exponent = int(rng.integers(-12, 4) if rng.random() < 0.9 else rng.integers(-256, 256))
            data[at:at + self.config.size] = 0
            data[at:at + 2] = np.frombuffer(struct.pack("<h", exponent), np.uint8)

    @staticmethod
    def _append(program, opcode, fields):
        if opcode == Opcode.VECTOR:
            scalar = struct.unpack("<f", struct.pack("<I", fields["scalar"]))[0]
            rest = {name: value for name, value in fields.items() if name not in ("op", "scalar")}
            # A signalling NaN becomes a quiet one here; the device does not tell them apart.
            program.vector(fields["op"], scalar=scalar, **rest)
        else:
            getattr(program, opcode.name.lower())(**fields)

    def _hazard(self, opcode, one, fields):
        """Whether a row is read after an earlier iteration wrote it, or written twice in one pass."""
        if opcode == Opcode.MATRIX:
            return fields["rows"] > 1 and fields["y_stride"] == 0
        if opcode != Opcode.VECTOR or not fields["to_vector"]:
            return False
        outer, inner = np.ogrid[:fields["outer"], :fields["inner"]]
        rows = {operand: (fields[operand] + inner * fields[f"{operand}_inner"]
                          + outer * fields[f"{operand}_outer"]).ravel() for operand in "abd"}
        uses = VectorOp(fields["op"]).operands
        for operand, used in (("a", uses.a), ("b", uses.b)):
            if used and np.tril(rows[operand][:, None] == rows["d"][None, :], -1).any():
                return True
        return False

    # ---- fields of one instruction; None when the draw does not fit

    def _place(self, kind, extents):
        """A first place such that all of ``extents`` (offsets) stay within one region, or None."""
        low, high = min(extents), max(extents)
        first, last = self._regions[kind][self.rng.integers(len(self._regions[kind]))]
        if high - low >= last - first:
            return None
        return int(self.rng.integers(first - low, last - high))

    def _loops(self, kind, *counts):
        """Strides for loops of ``counts``, and a first place: (first, *strides), or None."""
        strides = [int(s) for s in self.rng.integers(-3, 4, len(counts))]
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

    def _transfer(self):
        rng, config = self.rng, self.config
        format = DataFormat(int(rng.integers(3)))
        unit = {DataFormat.FLOAT32: 4, DataFormat.UINT8: 1, DataFormat.BFP8: config.tile_bytes}[format]
        tiles = format == DataFormat.BFP8
        pack = 0 if tiles else int(rng.choice([0, 0, 1, 2, 3]))
        run = self._count(3) if tiles else int(rng.integers(1, 4 * config.size))
        counts = [self._count(3) if rng.random() < 0.4 else 1 for _ in range(isa.LOOPS)]
        inside = run * int(np.prod(counts[:pack]))
        places = (inside if tiles else -(-inside // config.size)) * int(np.prod(counts[pack:]))
        local = self._place("tile" if tiles else "row", [0, places - 1])
        if local is None:
            return None
        strides = [int(rng.integers(-2 * run * unit, 2 * run * unit + 1)) for _ in counts]
        low = sum(min(0, (c - 1) * s) for c, s in zip(counts, strides, strict=True))
        high = sum(max(0, (c - 1) * s) for c, s in zip(counts, strides, strict=True)) + run * unit
        quarter = _DATA_BYTES // 4
        part = 3 if tiles else int(rng.integers(2)) if format == DataFormat.FLOAT32 else 2
        first, last = _DATA + part * quarter + _MARGIN - low, _DATA + (part + 1) * quarter - _MARGIN - high
        if first >= last:
            return None
        address = int(rng.integers(first, last))
        if tiles:
            address = _DATA + 3 * quarter + (address - _DATA - 3 * quarter) // unit * unit
        elif format == DataFormat.FLOAT32 and rng.random() < 0.7:
            address &= -4
            strides = [s & -4 for s in strides]
        return {"format": int(format), "pack": pack, "address": address, "local": local, "run": run,
                **{f"count{i}": c for i, c in enumerate(counts)},
                **{f"stride{i}": s for i, s in enumerate(strides)}}

    _load = _store = _transfer


def run(backend: Backend, case: Case, max_cycles: int = 2_000_000) -> dict[str, int]:
    """Run a case on a backend; status and fault registers. ``backend.dram`` holds the memory after it."""
    if case.dram.size > backend.dram.size:
        raise ValueError(f"the case needs {case.dram.size} bytes of memory, the backend has {backend.dram.size}")
    backend.dram[:case.dram.size] = case.dram

    def write(name, value):
        for low in range(0, REGISTERS[name].width, 32):
            backend.write_register(REGISTERS[name].offset + low // 8, value >> low & 0xFFFFFFFF)
    write("irq_status", 7)
    write("irq_enable", 7)
    write("program_address", _PROGRAM)
    write("program_length", len(case.program) // INSTRUCTION_BYTES)
    write("window_base", 0)
    write("window_limit", backend.dram.size)
    write("control", 1)
    if not backend.wait_interrupt(max_cycles):
        raise Mismatch(f"no interrupt within {max_cycles} cycles")
    running = REGISTERS["status"].bits[0].mask
    while backend.read_register(REGISTERS["status"].offset) & running:
        pass
    return {name: backend.read_register(REGISTERS[name].offset)
            for name in ("status", "fault_code", "fault_unit", "fault_instruction", "instructions")}


def compare(first: Backend, second: Backend, case: Case) -> None:
    """Run a case on both; `Mismatch` says where registers or memory differ."""
    registers = run(first, case), run(second, case)
    if registers[0] != registers[1]:
        raise Mismatch(f"registers differ: {registers[0]} and {registers[1]}")
    different = np.flatnonzero(first.dram != second.dram)
    if different.size:
        at = int(different[0])
        raise Mismatch(f"{different.size} bytes of memory differ, the first at {at:#x}: "
                       f"{first.dram[at]:#04x} and {second.dram[at]:#04x}")


def campaign(config, *, programs, length, seed, options, progress=lambda done: None):
    """Compare ``programs`` random programs on the RTL, with random memory timing, and the emulator."""
    generator = Generator(config, seed)
    with_dump = generator.dump()
    size = max(1 << 20, -(-with_dump.dram.size // 4096) * 4096)
    rtl = create_backend("verilator", config, dram_bytes=size, seed=seed, **options)
    emulator = create_backend("emulator", config, dram_bytes=size)
    try:
        for number in range(programs):
            case = generator.case(length)
            try:
                compare(rtl, emulator, case)
            except Mismatch as error:
                raise Mismatch(f"program {number} of seed {seed}: {error}") from None
            progress(number + 1)
        compare(rtl, emulator, with_dump)
    finally:
        rtl.close()
        emulator.close()


def timing(seed):
    """Options of the memory model, drawn from a seed."""
    draw = random.Random(seed)
    return {"read_latency": draw.choice([1, 2, 7, 40, 150]), "write_latency": draw.choice([1, 5, 20, 100]),
            "read_bandwidth": draw.choice([1.0, 1.0, 0.5, 0.11]), "write_bandwidth": draw.choice([1.0, 1.0, 0.6]),
            "stalls": draw.choice([0.0, 0.1, 0.4]), "outstanding": draw.choice([1, 2, 16]),
            "reorder": draw.random() < 0.5, "interleave": draw.random() < 0.5}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--config", default="n4")
    parser.add_argument("--programs", type=int, default=100, help="programs for each seed")
    parser.add_argument("--length", type=int, default=40, help="instructions in each")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        options = timing(seed)
        print(f"seed {seed}: {arguments.programs} programs on {arguments.config}, {options}", flush=True)
        campaign(named_config(arguments.config), programs=arguments.programs, length=arguments.length,
                 seed=seed, options=options)
    print("no mismatch")


if __name__ == "__main__":
    main()
