"""Each instruction of the emulator against an element-by-element reading of the instruction set."""

import itertools

import numpy as np
import pytest
from macaw_hw import isa
from macaw_hw.config import Config, named_config
from macaw_hw.isa import DataFormat, Fault, FaultUnit, Opcode, Queue, VectorOp
from macaw_sim import arithmetic
from macaw_sim.emulator import Emulator, describe

PROGRAM, DATA, DRAM = 0, 1 << 14, 1 << 18


def device(config, rng=None, **options):
    """An emulator whose memories hold random bytes, with the window open."""
    emulator = Emulator(config, np.zeros(DRAM, np.uint8), **options)
    state = emulator.state
    state.window = 0, DRAM
    if rng is not None:
        state.dram[DATA:] = rng.integers(0, 256, DRAM - DATA)
        state.vector[...] = rng.normal(scale=50, size=state.vector.shape)
        state.bits[:, 0] = rng.integers(0, 1 << 32, len(state.bits))
        state.mantissas[...] = rng.integers(-128, 128, state.mantissas.shape)
        state.exponents[...] = rng.integers(-20, 20, state.exponents.shape)
    return emulator


def run(emulator, *program):
    content = b"".join(program)
    emulator.state.dram[PROGRAM:PROGRAM + len(content)] = np.frombuffer(content, np.uint8)
    return emulator.run(PROGRAM, len(program))


class Reference:
    """The instruction set, one element at a time, on copies of an emulator's memories."""

    def __init__(self, emulator):
        state = emulator.state
        self.size = emulator.config.size
        self.bits, self.dram = state.bits.copy(), state.dram.copy()
        self.tiles, self.exponents = state.mantissas.copy(), state.exponents.copy()

    def agrees(self, emulator):
        state = emulator.state
        np.testing.assert_array_equal(state.bits, self.bits)
        np.testing.assert_array_equal(state.mantissas, self.tiles)
        np.testing.assert_array_equal(state.exponents, self.exponents)
        np.testing.assert_array_equal(state.dram, self.dram)

    def elements(self, f):
        """(byte address, local row or tile, lane) of each element of a transfer, in order."""
        size, record = self.size, self.size * (self.size + 1)
        width = {DataFormat.FLOAT32: 4, DataFormat.UINT8: 1, DataFormat.BFP8: record}[f["format"]]
        place, lane = f["local"], 0
        for i3, i2, i1, i0 in itertools.product(*(range(f[f"count{i}"]) for i in (3, 2, 1, 0))):
            loops = (i0, i1, i2, i3)
            start = f["address"] + sum(loops[i] * f[f"stride{i}"] for i in range(4))
            for e in range(f["run"]):
                yield start + e * width, place, lane
                lane += 1
                if f["format"] == DataFormat.BFP8 or lane == size:
                    place, lane = place + 1, 0
            if all(loops[i] == f[f"count{i}"] - 1 for i in range(f["pack"])) and lane:
                place, lane = place + 1, 0

    def load(self, f):
        size = self.size
        for address, place, lane in self.elements(f):
            if f["format"] == DataFormat.BFP8:
                record = self.dram[address:address + size * (size + 1)]
                exponent = int(record[0]) | int(record[1] & 1) << 8
                self.exponents[place] = exponent - 512 * (exponent >> 8)
                self.tiles[place] = record[size:].view(np.int8).reshape(size, size)
                continue
            if lane == 0:
                self.bits[place] = 0
            self.bits[place, lane] = (
                arithmetic.to_bits(np.float32(self.dram[address])) if f["format"] == DataFormat.UINT8
                else int.from_bytes(self.dram[address:address + 4].tobytes(), "little"))

    def store(self, f):
        size = self.size
        for address, place, lane in self.elements(f):
            if f["format"] == DataFormat.BFP8:
                record = int(self.exponents[place]).to_bytes(2, "little", signed=True) + bytes(size - 2)
                record += self.tiles[place].tobytes()
            elif f["format"] == DataFormat.UINT8:
                x = float(arithmetic.from_bits(self.bits[place, lane]))
                record = bytes([max(0, min(255, round(x)))])
            else:
                record = int(self.bits[place, lane]).to_bytes(4, "little")
            self.dram[address:address + len(record)] = np.frombuffer(record, np.uint8)

    def matrix(self, f):
        size = self.size
        for k in range(f["k_tiles"]):
            w = (f["w"] + k * f["w_k_stride"]) % 65536
            weights = self.tiles[w].astype(int)
            for r in range(f["rows"]):
                x = (f["x"] + r // size * f["x_row_stride"] + k * f["x_k_stride"]) % 65536
                y = (f["y"] + r * f["y_stride"]) % 65536
                tile = self.tiles[x].astype(int)
                line = tile[:, r % size] if f["x_transpose"] else tile[r % size]
                sums = line @ (weights.T if f["w_transpose"] else weights)
                term = arithmetic.int_to_float(sums, int(self.exponents[x]) + int(self.exponents[w]))
                old = arithmetic.from_bits(self.bits[y]) if k or f["accumulate"] else np.zeros(size, np.float32)
                self.bits[y] = arithmetic.to_bits(arithmetic.fadd(old, term))

    def vector(self, f):
        size = self.size
        for o in range(f["outer"]):
            rows = []
            for i in range(f["inner"]):
                at = {x: (f[x] + i * f[f"{x}_inner"] + o * f[f"{x}_outer"]) % 65536 for x in "abd"}
                reads = VectorOp(f["op"]).operands
                a = arithmetic.from_bits(self.bits[at["a"]]) if reads.a else np.zeros(size, np.float32)
                b = arithmetic.from_bits([self.bits[at["b"], lane ^ f["shuffle"]] for lane in range(size)]) \
                    if reads.b else None
                rows.append(arithmetic.vector_op(f["op"], a, b, np.uint32(f["scalar"])))
                if f["to_vector"]:
                    self.bits[at["d"]] = arithmetic.to_bits(rows[-1])
            for t in range(-(-f["inner"] // size) if f["to_tile"] else 0):
                tile = (f["tile"] + t * f["tile_inner"] + o * f["tile_outer"]) % 65536
                self.tiles[tile], self.exponents[tile] = arithmetic.quantize_tile(rows[t * size:(t + 1) * size])


def compare(emulator, opcode, **fields):
    """Run one instruction in both; the emulator must finish it and leave every memory as the reference does."""
    instruction = isa.encode(opcode, **fields)
    decoded = isa.decode(instruction)[1]
    emulator.state.dram[PROGRAM:PROGRAM + len(instruction)] = np.frombuffer(instruction, np.uint8)
    reference = Reference(emulator)
    getattr(reference, opcode.name.lower())(decoded)
    assert run(emulator, instruction).fault == Fault.NONE, describe(instruction)
    reference.agrees(emulator)


@pytest.mark.parametrize("opcode", [Opcode.LOAD, Opcode.STORE], ids=lambda o: o.name)
@pytest.mark.parametrize("format", DataFormat, ids=lambda f: f.name)
@pytest.mark.parametrize("size", [4, 8])
def test_transfer(opcode, format, size, rng):
    config = Config(size=size, vector_bank_rows=64)
    for _ in range(25):
        emulator = device(config, rng)
        if opcode == Opcode.STORE and format == DataFormat.UINT8:
            emulator.state.vector[...] = rng.choice([-1e-40, 0.5, 1.5, 254.5, 255.5, -3, 1e9, 7], (256, size))
        counts = rng.integers(1, 4, 4)
        compare(emulator, opcode, format=format, pack=0 if format == DataFormat.BFP8 else int(rng.integers(0, 4)),
                address=int(rng.integers(1 << 16, 1 << 17)), local=int(rng.integers(0, 8)),
                run=int(rng.integers(1, 3 if format == DataFormat.BFP8 else 10)) if counts.prod() > 8 else 3,
                **{f"count{i}": int(counts[i]) for i in range(4)},
                **{f"stride{i}": int(rng.integers(-3000, 3000)) for i in range(4)})


def test_overlapping_stores_happen_in_order(rng):
    emulator = device(Config(size=4), rng)
    for stride in (0, 4, -4, 1):
        compare(emulator, Opcode.STORE, address=DATA + 999, run=8, count0=5, stride0=stride, count1=2, stride1=-2)


@pytest.mark.parametrize("size", [4, 8])
def test_matrix(size, rng):
    config = Config(size=size, vector_bank_rows=64)
    for flags in itertools.product((0, 1), repeat=3):
        emulator = device(config, rng)
        for rows, k_tiles in ((1, 1), (size, 3), (2 * size + 1, 2)):
            compare(emulator, Opcode.MATRIX, accumulate=flags[0], x_transpose=flags[1], w_transpose=flags[2],
                    rows=rows, k_tiles=k_tiles, x=int(rng.integers(50, 99)), w=int(rng.integers(50, 99)),
                    x_row_stride=int(rng.integers(-9, 9)), x_k_stride=int(rng.integers(-9, 9)),
                    w_k_stride=int(rng.integers(-9, 9)), y=60, y_stride=int(rng.choice([-2, -1, 1, 3])))


def test_matrix_in_pieces(rng, monkeypatch):
    monkeypatch.setattr("macaw_sim.emulator.matrix._CHUNK", 100)
    compare(device(Config(size=4), rng), Opcode.MATRIX, rows=9, k_tiles=23, x_k_stride=1, x_row_stride=30, w=100,
            w_k_stride=1, y=5, y_stride=1)


@pytest.mark.parametrize(("opcode", "fields"), [
    (Opcode.LOAD, dict(address=DATA, local=255, run=5)),
    (Opcode.LOAD, dict(address=DATA, local=0xFFFF, run=5)),
    (Opcode.STORE, dict(address=DATA, format=DataFormat.UINT8, local=256, run=1)),
    (Opcode.LOAD, dict(address=DATA, format=DataFormat.BFP8, local=1023, run=2)),
    (Opcode.LOAD, dict(address=DATA, run=1, count0=4095, count1=4095, count2=4095, count3=4095)),
    (Opcode.MATRIX, dict(rows=5, k_tiles=1, y=3, y_stride=-1)),
    (Opcode.MATRIX, dict(rows=5, k_tiles=1, y_stride=1, x_row_stride=1024)),
    (Opcode.MATRIX, dict(rows=4, k_tiles=2, y_stride=1, x_k_stride=-1)),
    (Opcode.MATRIX, dict(rows=4, k_tiles=65535, y_stride=1, w_k_stride=32767)),
    (Opcode.MATRIX, dict(rows=4, k_tiles=1, y_stride=1, w=65535)),
    (Opcode.VECTOR, dict(op=VectorOp.MOVE, to_vector=1, a=4, a_inner=-1, inner=6, outer=1)),
    (Opcode.VECTOR, dict(op=VectorOp.ADD, to_vector=1, b=256, inner=1, outer=1)),
    (Opcode.VECTOR, dict(op=VectorOp.FILL, to_vector=1, d_inner=100, d_outer=57, inner=3, outer=2)),
    (Opcode.VECTOR, dict(op=VectorOp.FILL, to_tile=1, tile=1020, tile_inner=1, inner=20, outer=1)),
])
def test_local_addresses_are_checked(opcode, fields, rng):
    emulator = device(Config(size=4, vector_bank_rows=64), rng)
    before = Reference(emulator)
    good = isa.encode(Opcode.STORE, address=DATA, run=1)
    outcome = run(emulator, good, isa.encode(opcode, **fields), good)
    assert (outcome.fault, outcome.unit, outcome.instruction) == (Fault.LOCAL_ADDRESS, opcode - 1, 1)
    np.testing.assert_array_equal(emulator.state.bits, before.bits)
    np.testing.assert_array_equal(emulator.state.mantissas, before.tiles)


@pytest.mark.parametrize(("opcode", "fields"), [
    (Opcode.MATRIX, dict(rows=4, k_tiles=2, x=1023, x_row_stride=1, w=1023, y=252, y_stride=1)),
    (Opcode.VECTOR, dict(op=VectorOp.MOVE, to_tile=1, tile=1023, a=255, b=60000, d=60000, d_inner=1, inner=1, outer=1)),
    (Opcode.VECTOR, dict(op=VectorOp.FILL, to_vector=1, tile=60000, a=60000, d=255, inner=1, outer=1)),
    (Opcode.LOAD, dict(address=DATA, local=254, run=8)),
])
def test_last_rows_and_unused_operands_are_no_fault(opcode, fields, rng):
    compare(device(Config(size=4, vector_bank_rows=64), rng), opcode, **fields)


@pytest.mark.parametrize("op", VectorOp, ids=lambda op: op.name)
def test_vector(op, rng):
    for size in (4, 8):
        emulator = device(Config(size=size, vector_bank_rows=64), rng)
        emulator.state.vector[...] = rng.normal(scale=3, size=emulator.state.bits.shape)
        for inner, outer in ((1, 1), (size, 2), (size + 3, 3)):
            finite = op not in (VectorOp.RECIPROCAL_SEED, VectorOp.RSQRT_SEED, VectorOp.SCALE2)
            to_tile = int(rng.integers(0, 2)) if finite else 0
            compare(emulator, Opcode.VECTOR, op=op, inner=inner, outer=outer, shuffle=int(rng.integers(0, size)),
                    to_vector=1 if not to_tile else int(rng.integers(0, 2)), to_tile=to_tile,
                    a=60, b=70, d=190, tile=50,
                    **{f"{x}_{loop}": int(rng.integers(-4, 5)) for x in ("a", "b", "d", "tile")
                       for loop in ("inner", "outer")},
                    scalar=int(arithmetic.to_bits(np.float32(rng.normal()))))


def test_vector_operates_in_place_and_repeats_rows(rng):
    emulator = device(Config(size=4), rng)
    compare(emulator, Opcode.VECTOR, op=VectorOp.ADD, to_vector=1, a=7, a_inner=1, b=7, b_inner=1, shuffle=3, d=7,
            d_inner=1, inner=9, outer=1)
    compare(emulator, Opcode.VECTOR, op=VectorOp.MOVE, to_vector=1, to_tile=1, a=7, a_inner=1, d=90, inner=9, outer=1,
            tile=3)


def test_not_finite_values_fault_and_leave_the_device_usable(rng):
    emulator = device(Config(size=4))
    move = isa.encode(Opcode.VECTOR, op=VectorOp.MOVE, to_tile=1, inner=3, outer=1, a_inner=1)
    store = isa.encode(Opcode.STORE, format=DataFormat.UINT8, address=DATA, run=9)
    for bad in (np.inf, -np.inf, np.nan):
        emulator.state.vector[2, 0] = bad
        outcome = run(emulator, store, move)
        assert (outcome.fault, outcome.unit, outcome.instruction) == (Fault.NON_FINITE, FaultUnit.STORE, 0)
        outcome = run(emulator, move, store)
        assert (outcome.fault, outcome.unit, outcome.instruction) == (Fault.NON_FINITE, FaultUnit.VECTOR, 0)
    emulator.state.vector[2, 0] = 3
    emulator.state.vector[2, 1] = np.inf  # beyond the nine elements that are stored
    assert run(emulator, store).fault == Fault.NONE


def test_changed_programs_are_noticed():
    emulator = device(Config(size=4))
    for value in (1.0, 2.0, 1.0):
        run(emulator, isa.encode(Opcode.VECTOR, op=VectorOp.FILL, to_vector=1, d=5, inner=1, outer=1,
                                 scalar=int(arithmetic.to_bits(np.float32(value)))))
        assert (emulator.state.vector[5] == value).all()
    for x in range(200):  # more than it keeps
        run(emulator, isa.encode(Opcode.VECTOR, op=VectorOp.FILL, to_vector=1, d=x, inner=1, outer=1))
    assert len(emulator._programs) == 128


def test_product_through_all_queues(rng):
    """float32 in, bfp8 tiles, MAC array, float32 out."""
    emulator = device(named_config("n16"))
    x, w = rng.normal(size=(2, 16, 16)).astype(np.float32)
    emulator.state.dram[DATA:DATA + 2048] = np.concatenate([x, w]).view(np.uint8).ravel()
    L, M, V, S = (1 << queue for queue in Queue)
    outcome = run(
        emulator,
        isa.encode(Opcode.LOAD, address=DATA, run=512, post=V),
        isa.encode(Opcode.VECTOR, op=VectorOp.MOVE, a_inner=1, a_outer=16, inner=16, outer=2, to_tile=1, tile_outer=1,
                   wait=L, post=M),
        isa.encode(Opcode.MATRIX, rows=16, k_tiles=1, x=0, w=1, y=100, y_stride=1, wait=V, post=S),
        isa.encode(Opcode.STORE, address=DATA, local=100, run=256, wait=M))
    assert outcome == type(outcome)(Fault.NONE, FaultUnit.LOAD, 0, 4)
    product = emulator.state.dram[DATA:DATA + 1024].view(np.float32).reshape(16, 16)
    assert abs(product - x @ w).max() < 16 * 4 * 4 * 2 ** -6
    assert abs(product - x @ w).max() > 0
