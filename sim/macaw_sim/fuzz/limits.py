"""Programs that tell single bits apart: of windows, addresses, counts and operands."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from macaw.program import Program
from macaw_hw import isa
from macaw_hw.isa import INSTRUCTION_BYTES, DataFormat, Opcode, Queue, VectorOp

from .case import DATA, DATA_BYTES, Case
from .generator import Generator
from .illegal import smallest
from .tokens import append, encode

__all__ = ["limit_cases"]

_EDGES = 8
"""Draws of each kind of window."""
_WIDE = (0, 0x3F80_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0x7F7F_FFFF, 0x8080_0000, 0xBFC0_0000)
"""Operands that each exponent meets: zero, one, infinities, NaN, the largest, the smallest, -1.5."""


def limit_cases(generator: Generator) -> Iterator[tuple[str, Case]]:
    """Name and program. Nothing depends on what the local memories hold."""
    for cases in (_edges, _far, _local, _tiles, _partial, _products, _operations):
        yield from cases(generator)


def _empty(generator, program, **options):
    size = generator.state.dram.size
    return replace(Case(b"", np.zeros(size, np.uint8), window=(0, size)), **options).with_program(program)


def _one(generator, queue, **changes):
    """The smallest instruction of a queue with some changes, and what sets the row that a STORE reads."""
    format, fields = smallest(queue, DATA)
    if queue != Queue.STORE:
        return encode([(format, fields | changes)])
    fill = isa.encode(Opcode.VECTOR, op=int(VectorOp.FILL), to_vector=1, d=fields["local"], d_inner=1, inner=1,
                      outer=1, scalar=0x3F80_0000, post=1 << Queue.STORE)
    return fill + encode([(format, fields | changes | {"wait": 1 << Queue.VECTOR})])


def _edges(generator):
    """A window that ends exactly at what is accessed, at either end, or within it: anywhere."""
    rng, width, size = generator.rng, generator.config.address_width, generator.state.dram.size
    for number in range(_EDGES):
        for queue in (Queue.LOAD, Queue.STORE):
            for inside in (0, 1):
                near = int(rng.integers(4096, size - 8192))
                low, high = _one(generator, queue, address=near), _one(generator, queue, address=near)
                at = size - 4096
                yield (f"{queue.name}: window from {near + inside:#x}",
                       _empty(generator, low, address=at, window=(near + inside, size)))
                yield (f"{queue.name}: window to {near + 4 - inside:#x}",
                       _empty(generator, high, window=(0, near + 4 - inside)))
                far = int(rng.integers(size, (1 << width) - 4))
                yield (f"{queue.name}: window to {far + 4 - inside:#x}",
                       _empty(generator, _one(generator, queue, address=far), window=(0, far + 4 - inside)))
        program = _one(generator, Queue.LOAD)
        for inside in (0, int(rng.integers(1, INSTRUCTION_BYTES))):
            at = 32 * int(rng.integers(DATA // 32, size // 32 - 1))
            if number % 2:
                moved = at + (int(rng.integers(1, 1 << width - 20)) << 20)
            else:
                moved = at
            case = replace(_empty(generator, program, address=at), address=moved)
            end = moved + len(program)
            yield f"program from {moved:#x}: window from {moved + inside:#x}", replace(
                case, window=(moved + inside, 1 << width))
            yield f"program to {end:#x}: window to {end - inside:#x}", replace(case, window=(0, end - inside))
    for bit in range(20, width):
        yield f"program at bit {bit} of the address", replace(
            _empty(generator, _one(generator, Queue.MATRIX)), address=1 << bit, window=(0, 1 << width))


def _far(generator):
    """A single bit of an address beyond memory."""
    width = generator.config.address_width
    for queue in (Queue.LOAD, Queue.STORE):
        for bit in range(20, 40):
            yield f"{queue.name}: bit {bit} of the address", _empty(
                generator, _one(generator, queue, address=1 << bit), window=(0, 1 << width))


def _local(generator):
    """A single bit of a local address, or of a stride to it, beyond the local memory."""
    for queue, changes in _far_places(generator.config):
        yield f"{queue.name}: {changes}", _empty(generator, _one(generator, queue, **changes))


def _far_places(config):
    rows, tiles = config.vector_rows, config.tiles
    vector = {"op": int(VectorOp.ADD), "inner": 2, "outer": 2}
    to_tile = {"op": int(VectorOp.FILL), "to_vector": 0, "to_tile": 1, "inner": 1, "outer": 2}
    product = {"rows": config.size + 1, "k_tiles": 2}
    for value in (1 << bit for bit in range(16)):
        stride = value if value < 1 << 15 else -value
        if value >= rows:
            yield from ((Queue.VECTOR, vector | {name: value}) for name in "abd")
            yield from ((Queue.MATRIX, {"y": value}), (Queue.MATRIX, product | {"y_stride": stride}))
            yield from ((queue, {"local": value}) for queue in (Queue.LOAD, Queue.STORE))
        if value >= tiles:
            yield from ((Queue.MATRIX, {name: value}) for name in "xw")
            yield from ((Queue.MATRIX, product | {name: stride})
                        for name in ("x_row_stride", "x_k_stride", "w_k_stride"))
            yield Queue.VECTOR, to_tile | {"tile": value}
            yield from ((queue, {"local": value, "format": int(DataFormat.BFP8)})
                        for queue in (Queue.LOAD, Queue.STORE))
    for name, fields, depth in (("a", vector, rows), ("b", vector, rows), ("d", vector, rows),
                                ("tile", to_tile, tiles)):
        for stride in (-1, *(1 << bit for bit in range(12) if 1 << bit >= depth)):
            yield from ((Queue.VECTOR, fields | {f"{name}_{loop}": stride}) for loop in ("inner", "outer"))


def _tiles(generator):
    """Runs of more tiles than there are, just longer than a power of two of bytes."""
    config = generator.config
    for bit in range(12, 24):
        run = (1 << bit) // config.tile_bytes + 1
        if config.tiles < run and DATA + run * config.tile_bytes <= generator.state.dram.size:
            for queue in (Queue.LOAD, Queue.STORE):
                yield f"{queue.name}: {run} tiles", _empty(
                    generator, _one(generator, queue, format=int(DataFormat.BFP8), run=run))


def _partial(generator):
    """Many tiles with fewer rows than N, one behind the other."""
    config, rng = generator.config, generator.rng
    for inner in (1, 2, config.size - 1, config.size):
        outer = 2 * config.tiles // 5 // (1 + (inner == 1))
        dram = np.zeros(generator.state.dram.size, np.uint8)
        values = rng.standard_normal(DATA_BYTES // 4) * 2.0 ** rng.integers(-9, 9, DATA_BYTES // 4)
        dram[DATA:DATA + DATA_BYTES] = values.astype(np.float32).view(np.uint8)
        rows = min(inner * outer, DATA_BYTES // config.row_bytes)
        program = Program(config)
        program.load(address=DATA, local=0, run=rows * config.size)
        program.vector(int(VectorOp.MOVE), to_tile=1, a_inner=1, a_outer=1, tile=5, tile_inner=1, tile_outer=1,
                       inner=inner, outer=rows // inner)
        program.store(format=int(DataFormat.BFP8), address=DATA + DATA_BYTES, local=5, run=rows // inner)
        yield f"{rows // inner} tiles of {inner} rows", replace(_empty(generator, b""), dram=dram).with_program(
            program.to_bytes())


def _data(generator):
    """Memory with tiles of any mantissas and one exponent."""
    config, dram = generator.config, np.zeros(generator.state.dram.size, np.uint8)
    records = DATA_BYTES // config.tile_bytes
    tiles = generator.rng.integers(0, 256, (records, config.tile_bytes), dtype=np.uint8)
    tiles[:, :config.size] = 0
    dram[DATA:DATA + tiles.size] = tiles.reshape(-1)
    return dram, records


def _products(generator):
    """Products with a single bit set in the number of rows or of steps."""
    config = generator.config
    dram, records = _data(generator)
    records = min(records, config.tiles)

    def product(rows, k_tiles, y, accumulate):
        program = Program(config)
        program.load(format=int(DataFormat.BFP8), address=DATA, local=0, run=records)
        program.vector(int(VectorOp.FILL), scalar=1.0, to_vector=1, d=y, d_inner=1, inner=rows, outer=1)
        spread = int(k_tiles <= records // 2)
        append(program, Opcode.MATRIX, {
            "rows": rows, "k_tiles": k_tiles, "x": 1, "x_row_stride": int(rows <= records), "x_k_stride": spread,
            "w": records // 2, "w_k_stride": spread, "y": y, "y_stride": 1, "accumulate": accumulate})
        program.store(address=DATA + DATA_BYTES, local=y, run=rows * config.size)
        return replace(_empty(generator, b""), dram=dram).with_program(program.to_bytes())

    for bit in range(13):
        rows = 1 << bit
        if rows <= config.vector_rows // 2:
            yield f"product of {rows} rows", product(rows, 1 + bit % 2, 3 * bit, bit & 1)
        yield f"product of {rows} steps", product(1 + bit % 3, rows, 64 + bit, bit & 1)


def _operations(generator):
    """Each operation with every exponent, in every lane, and special values; the scalar is one of those in turns."""
    config, rng = generator.config, generator.rng
    size, exponents, out = config.size, 256, DATA + DATA_BYTES
    pairs = len(_WIDE) // 2
    for number, op in enumerate((*VectorOp, *VectorOp)):
        bits = np.repeat(np.arange(exponents, dtype=np.uint32) << 23, size).reshape(exponents, size)
        bits |= rng.integers(0, 2, bits.shape, dtype=np.uint32) << 31
        mantissas = rng.integers(0, 1 << 23, bits.shape, dtype=np.uint32)
        kind = rng.integers(0, 8, bits.shape)
        bits |= np.where(kind == 0, 0, np.where(kind == 1, 0x7FFFFF, mantissas)).astype(np.uint32)
        special = np.array(_WIDE, np.uint32)[pairs * (number // len(VectorOp)):][:pairs]
        dram = np.zeros(generator.state.dram.size, np.uint8)
        dram[DATA:DATA + bits.size * 4] = bits.view(np.uint8).reshape(-1)
        dram[out - pairs * 4 * size:out] = np.repeat(special, size).view(np.uint8)
        program = Program(config)
        program.load(address=DATA, local=0, run=bits.size)
        program.load(address=out - pairs * 4 * size, local=exponents, run=pairs * size)
        scalar = int(special[number % pairs]) if number % 3 else int(bits[number, 0])
        append(program, Opcode.VECTOR, {
            "op": int(op), "to_vector": 1, "a": 0, "a_inner": 1, "a_outer": 0, "b": exponents, "b_inner": 0,
            "b_outer": 1, "d": exponents + pairs, "d_inner": 1, "d_outer": exponents, "inner": exponents,
            "outer": pairs, "scalar": scalar})
        program.store(address=out, local=exponents + pairs, run=exponents * pairs * size)
        yield f"{op.name} with {scalar:#x}", replace(_empty(generator, b""), dram=dram).with_program(
            program.to_bytes())
