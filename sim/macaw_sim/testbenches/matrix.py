"""Matrix unit against `macaw_sim.arithmetic`, bit for bit, with the memories modelled here.

Parameters: ``config`` (name), ``instructions`` (per random program), ``npz`` (optional file with float arrays ``x``
of shape (rows, reduction) and ``w`` of shape (reduction, columns)).
"""

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from macaw_hw.accumulator import Accumulator
from macaw_hw.config import named_config
from macaw_hw.isa import MATRIX, Fault, Opcode, encode

from macaw_sim import arithmetic

from . import generator, parameters
from .mac_array import packed, random_mantissas

__all__ = ["LocalAddressError", "execute", "random_instruction", "random_rows", "random_tiles", "payload",
           "program_addresses", "tiles_of"]

_MASK = (1 << MATRIX.layout.size) - 1


def payload(fields):
    """Bits of an instruction as the unit's stream carries them."""
    return int.from_bytes(encode(Opcode.MATRIX, **fields), "little") & _MASK


class LocalAddressError(Exception):
    """An instruction reaches beyond a memory."""


def program_addresses(fields, size):
    """W tiles [K], X tiles [K, R] and Y rows [R] of an instruction, unchecked."""
    k, r = np.arange(fields["k_tiles"])[:, None], np.arange(fields["rows"])
    w = fields["w"] + k[:, 0] * fields["w_k_stride"]
    x = fields["x"] + r // size * fields["x_row_stride"] + k * fields["x_k_stride"]
    y = fields["y"] + r * fields["y_stride"]
    return w & 0xFFFF, x & 0xFFFF, y & 0xFFFF


def execute(fields, mantissas, exponents, vector):
    """Apply an instruction to the rows ``vector``, in place, as the instruction set describes it."""
    size = mantissas.shape[-1]
    w, x, y = program_addresses(fields, size)
    lines = np.arange(fields["rows"]) % size
    flip = [tiles.swapaxes(-1, -2) if transpose else tiles for tiles, transpose in (
        (mantissas, fields["x_transpose"]), (mantissas, fields["w_transpose"]))]
    legal = w.max() < len(mantissas) and x.max() < len(mantissas) and y.max() < len(vector)
    if legal and len(set(y)) == len(y):
        old = vector[y] if fields["accumulate"] else None
        vector[y] = arithmetic.matrix_product(flip[0][x, lines], exponents[x], flip[1][w], exponents[w], old)
        return
    for k in range(fields["k_tiles"]):
        for r in range(fields["rows"]):
            if w[k] >= len(mantissas) or x[k, r] >= len(mantissas) or y[r] >= len(vector):
                raise LocalAddressError
            old = vector[y[r]][None] if k or fields["accumulate"] else None
            vector[y[r]] = arithmetic.matrix_product(
                flip[0][x[k, r], lines[r]][None, None], exponents[x[k, r]][None, None],
                flip[1][w[k]][None], exponents[w[k]][None], old)[0]


def random_tiles(rng, tiles, size):
    """Mantissas with extremes, and exponents that often leave the range of float32."""
    mantissas = np.stack([random_mantissas(rng, (size, size)) for _ in range(tiles)])
    wide = rng.integers(-256, 256, tiles)
    return mantissas, np.where(rng.random(tiles) < 0.6, rng.integers(-70, 64, tiles), wide)


def random_rows(rng, rows, size):
    """float32 of all kinds: any bits, special values, and moderate numbers."""
    special = np.array([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 1, 0x807FFFFF, 0x7F7FFFFF],
                       np.uint32)
    kind = rng.integers(0, 4, (rows, size))
    bits = rng.integers(0, 1 << 32, (rows, size), dtype=np.uint32)
    moderate = (rng.standard_normal((rows, size)) * 1000).astype(np.float32).view(np.uint32)
    return np.where(kind == 0, bits, np.where(kind == 1, rng.choice(special, (rows, size)), moderate)).view(np.float32)


def _stride(rng, steps, start, depth, choices):
    """A stride that keeps ``start + i * stride`` in range; any stride where there is one step only."""
    if steps == 1:
        return int(rng.integers(-1 << 15, 1 << 15))
    fitting = [s for s in choices if 0 <= start + (steps - 1) * s < depth]
    return int(rng.choice(fitting or [0]))


def random_instruction(rng, config, *, rows=None, k_tiles=None, bases=(0, 8, 40), same_row=True):
    """A legal instruction. Its rows of Y begin at one of ``bases`` or end there, so that instructions meet."""
    size = config.size
    rows = int(rows or rng.integers(1, 3 * size + 1))
    k_tiles = int(k_tiles or rng.integers(1, 6))
    row_tiles = -(-rows // size)
    x, w = (int(rng.integers(0, config.tiles)) for _ in range(2))
    near = [*range(-7, 8), -size, size, 100, -100]
    fields = {
        "accumulate": int(rng.integers(0, 2)), "x_transpose": int(rng.integers(0, 2)),
        "w_transpose": int(rng.integers(0, 2)), "rows": rows, "k_tiles": k_tiles, "x": x, "w": w,
        "w_k_stride": _stride(rng, k_tiles, w, config.tiles, near),
        "x_row_stride": _stride(rng, row_tiles, x, config.tiles, near),
    }
    reach = x + (row_tiles - 1) * fields["x_row_stride"]
    fitting = [s for s in near if all(0 <= a + (k_tiles - 1) * s < config.tiles for a in (x, reach))]
    fields["x_k_stride"] = int(rng.choice(fitting or [0])) if k_tiles > 1 else int(rng.integers(-9000, 9000))
    y, stride = int(rng.choice(bases)), int(rng.choice([1, 1, 1, 2, 3, 16]))
    if rng.random() < 0.3:
        y, stride = y + (rows - 1) * stride, -stride
    if same_row and rng.random() < 0.1:
        stride = 0
    fields |= {"y": y, "y_stride": stride if rows > 1 else int(rng.integers(-1 << 15, 1 << 15))}
    return fields


def tiles_of(matrix, size):
    """bfp8 tiles [rows of tiles, columns of tiles] of a float matrix, padded with zeros."""
    height, width = (-(-n // size) for n in matrix.shape)
    padded = np.zeros((height * size, width * size), np.float32)
    padded[:matrix.shape[0], :matrix.shape[1]] = matrix
    return arithmetic.quantize_tile(padded.reshape(height, size, width, size).swapaxes(1, 2))


class TilePort:
    """A read port of the tile memory with random stalls; its data is garbage except when it is due."""

    def __init__(self, dut, name, rng, mantissas, exponents, stall):
        for member in ("tile", "line", "transpose", "valid", "ready", "data", "exponent"):
            setattr(self, member, getattr(dut, f"{name}__{member}"))
        self.rng, self.mantissas, self.exponents, self.stall = rng, mantissas, exponents, stall
        self.held = None
        self.answer = None, None
        self.issues = []
        self.ready.value = 0
        self.drive(None, None)

    def drive(self, data, exponent):
        size = self.mantissas.shape[-1]
        self.data.value = packed(data) if data is not None else packed(self.rng.integers(0, 256, size, np.uint8))
        self.exponent.value = int(exponent if exponent is not None else self.rng.integers(-256, 256)) & 0x1FF

    def step(self, cycle):
        """After a clock edge, with the values of the cycle before it."""
        answer, data, exponent = self.answer, None, None
        if self.valid.value:
            request = int(self.tile.value), int(self.line.value), int(self.transpose.value)
            assert self.held in (None, request), "a request changed before it was accepted"
            self.held = request
            if self.ready.value:
                tile, line, transpose = request
                data = self.mantissas[tile][:, line] if transpose else self.mantissas[tile][line]
                exponent = self.exponents[tile]
                self.held = None
                self.issues.append((cycle, tile, line))
        else:
            assert self.held is None, "a request was withdrawn before it was accepted"
        self.answer = data, exponent
        self.drive(*answer)
        self.ready.value = int(self.rng.random() >= self.stall)


class Bench:
    """Feeder of instructions and the two memories around the unit."""

    def __init__(self, dut, rng, config, *, stall=0.0, tiles=None):
        self.dut, self.rng, self.config, self.stall = dut, rng, config, stall
        self.mantissas, self.exponents = tiles or random_tiles(rng, config.tiles, config.size)
        self.vector = random_rows(rng, config.vector_rows, config.size)
        self.accepted, self.done, self.writes = [], [], 0
        self.at_fault = None
        self.cycle = 0

    async def start(self):
        dut = self.dut
        dut.control__instruction__valid.value = 0
        dut.acc_read__ready.value = dut.acc_write__ready.value = 1
        self.x, self.w = (TilePort(dut, name, self.rng, self.mantissas, self.exponents, stall)
                          for name, stall in (("x", 0), ("w", self.stall)))
        Clock(dut.clk, 10, unit="ns").start()
        dut.rst.value = 1
        for _ in range(2):
            await RisingEdge(dut.clk)
        dut.rst.value = 0

    async def step(self):
        dut, size = self.dut, self.config.size
        await RisingEdge(dut.clk)
        self.x.step(self.cycle)
        self.w.step(self.cycle)
        read = int(dut.acc_read__row.value) if dut.acc_read__valid.value else None
        data = packed(self.rng.integers(0, 1 << 32, size, np.uint32)) if read is None else packed(self.vector[read])
        dut.acc_read__data.value = data
        if dut.acc_write__valid.value:
            row = int(dut.acc_write__row.value)
            assert row != read, f"row {row} is read while it is written"
            bits = int(dut.acc_write__data.value)
            self.vector[row] = np.frombuffer(bits.to_bytes(4 * size, "little"), np.float32)
            self.writes += 1
        if dut.control__done.value:
            self.done.append(self.cycle)
        self._check_counters()
        self.cycle += 1

    def _check_counters(self):
        """A busy cycle moves a row of X or waits for something, for one reason."""
        dut = self.dut
        moves = bool(dut.x__valid.value) and self.x.issues[-1:] and self.x.issues[-1][0] == self.cycle
        reasons = [moves, dut.control__wait_memory.value, dut.control__wait_other.value]
        assert sum(map(bool, reasons)) == int(dut.control__busy.value)

    async def run(self, program):
        """Feed a program as fast as the unit takes it; until it is done or a fault is reported."""
        dut, queue = self.dut, list(program)
        steps = sum((fields["rows"] + 2 * self.config.size) * fields["k_tiles"] for fields in program)
        faulted, limit = 0, self.cycle + 20_000 + 2 * steps
        goal = len(self.done) + len(program)
        while len(self.done) < goal and faulted < 100:
            dut.control__instruction__valid.value = int(bool(queue))
            if queue:
                dut.control__instruction__payload.value = payload(queue[0])
            await self.step()
            if queue and dut.control__instruction__valid.value and dut.control__instruction__ready.value:
                queue.pop(0)
                self.accepted.append(self.cycle - 1)
            if int(dut.control__fault.value) != Fault.NONE:
                self.at_fault = self.at_fault or (len(self.done), self.writes)
                faulted += 1
            assert self.cycle < limit, "the unit does not finish"
        dut.control__instruction__valid.value = 0

    def expect(self, program):
        """What memory holds after the program."""
        vector = self.vector.copy()
        for fields in program:
            execute(fields, self.mantissas, self.exponents, vector)
        return vector


def assert_equal(bench, expected):
    """Memory is the expected one, bit for bit; untouched rows are untouched."""
    wrong = np.argwhere(bench.vector.view(np.uint32) != expected.view(np.uint32))
    assert not len(wrong), (f"{len(wrong)} lanes differ, first at row {wrong[0][0]} lane {wrong[0][1]}: "
                            f"{bench.vector[tuple(wrong[0])]!r} instead of {expected[tuple(wrong[0])]!r}")


def _setup():
    options = parameters()
    return named_config(options["config"]), options.get("instructions", 30)


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.3, 0.8])
async def runs_random_programs(dut, stall):
    """Back to back, with transposes, strides, accumulation onto each other's rows, stalls of W."""
    config, count = _setup()
    rng = generator(int(10 * stall))
    bench = Bench(dut, rng, config, stall=stall)
    await bench.start()
    program = [random_instruction(rng, config, rows=rng.choice([None, 1, 2])) for _ in range(count)]
    expected = bench.expect(program)
    await bench.run(program)
    assert_equal(bench, expected)
    await bench.step()
    assert dut.control__busy.value == 0 and dut.control__fault.value == Fault.NONE
    assert bench.writes == sum(i["rows"] * i["k_tiles"] for i in program)


@cocotb.test()
async def runs_every_shape(dut):
    """Rows 1 to 3 N and reductions of 1 to 5 tiles, each accumulating onto the rows of the one before."""
    config, _ = _setup()
    rng = generator(1)
    bench = Bench(dut, rng, config)
    await bench.start()
    shapes = [(rows, 1 + (rows + step) % 5) for step in range(2) for rows in range(1, 3 * config.size + 1)]
    program = [random_instruction(rng, config, rows=rows, k_tiles=k, bases=[0], same_row=False) for rows, k in shapes]
    expected = bench.expect(program)
    await bench.run(program)
    assert_equal(bench, expected)


@cocotb.test()
async def keeps_its_cycle_counts(dut):
    """A step of the reduction takes max(rows, N, loop) cycles; streams of N or more rows have no gaps."""
    config, _ = _setup()
    rng, size = generator(2), config.size
    bench = Bench(dut, rng, config)
    await bench.start()
    drain = size + 4 + Accumulator.latency
    for rows in (1, 2, size - 1, size, size + 1, 2 * size + 3):
        for k_tiles in (1, 4):
            bench.x.issues.clear()
            fields = random_instruction(rng, config, rows=rows, k_tiles=k_tiles, same_row=False)
            for _ in range(drain):
                await bench.step()
            bench.x.ready.value = bench.w.ready.value = 1
            await bench.run([fields])
            period = max(rows, size, Accumulator.loop)
            starts = [cycle for cycle, _, _ in bench.x.issues][::rows]
            assert starts == [bench.accepted[-1] + size + 2 + k * period for k in range(k_tiles)]
            assert bench.done[-1] == bench.x.issues[-1][0] + drain
    # One row after another, and streams, back to back.
    for rows in (1, max(size, Accumulator.loop)):
        bench.x.issues.clear()
        program = [random_instruction(rng, config, rows=rows, same_row=False) | {"accumulate": 0} for _ in range(8)]
        await bench.run(program)
        starts = np.array([cycle for cycle, _, _ in bench.x.issues])[::rows]
        assert set(np.diff(starts)) <= set(range(size, max(size, Accumulator.loop) + 1))
        if rows >= size:
            assert set(np.diff([cycle for cycle, _, _ in bench.x.issues])) == {1}


@cocotb.test()
@cocotb.parametrize(stall=[0.0, 0.4])
async def reports_addresses_out_of_range(dut, stall):
    """Each address at each limit: what is before it is computed, nothing after it, and reset heals."""
    config, _ = _setup()
    rng = generator(3, int(10 * stall))
    tiles, rows, size = config.tiles, config.vector_rows, config.size
    legal = {"rows": size + 2, "k_tiles": 3, "x": 0, "x_row_stride": 1, "x_k_stride": 2, "w": 0, "w_k_stride": 1,
             "y": 0, "y_stride": 1}
    bad = [{"x": tiles}, {"x": 0xFFFF}, {"x": tiles - 4}, {"x": 1, "x_row_stride": -2}, {"x": tiles - 1},
           {"x_k_stride": -1}, {"w": tiles}, {"w": tiles - 2}, {"w": 1, "w_k_stride": -1},
           {"y": rows}, {"y": rows - size - 1}, {"y": size, "y_stride": -1}, {"y_stride": -1 << 15}]
    for change in bad:
        bench = Bench(dut, rng, config, stall=stall)
        await bench.start()
        before = [random_instruction(rng, config, bases=[200]) for _ in range(int(rng.integers(0, 4)))]
        faulty = {**dict.fromkeys(("accumulate", "x_transpose", "w_transpose"), 0), **legal, **change}
        expected = bench.expect(before)
        try:
            execute(faulty, bench.mantissas, bench.exponents, expected)
        except LocalAddressError:
            pass
        else:
            raise AssertionError(f"{change} is no fault")
        await bench.run([*before, faulty, *before])
        assert dut.control__fault.value == Fault.LOCAL_ADDRESS, change
        assert bench.at_fault == (len(before), bench.writes), change
        assert len(bench.done) == len(before), change
        assert_equal(bench, expected)
    bench = Bench(dut, rng, config, stall=stall)
    await bench.start()
    program = [legal | {"accumulate": 0, "x_transpose": 0, "w_transpose": 1,
                        "x": tiles - 2 * 2 - 1 - 1, "w": tiles - 3, "y": rows - size - 2}]
    expected = bench.expect(program)
    await bench.run(program)
    assert_equal(bench, expected)
    assert dut.control__fault.value == Fault.NONE


@cocotb.test()
async def multiplies_matrices(dut):
    """Whole matrices, for example the weights of a layer: y = x w and y = x (w^T)^T, tile column by tile column."""
    config, _ = _setup()
    rng, size = generator(4), config.size
    if parameters().get("npz"):
        with np.load(parameters()["npz"]) as file:
            x, w = file["x"].astype(np.float32), file["w"].astype(np.float32)
    else:
        x, w = (rng.standard_normal(shape).astype(np.float32) for shape in ((size + 3, 3 * size), (3 * size, size + 1)))
    (x_tiles, x_exponents), (w_tiles, w_exponents) = tiles_of(x, size), tiles_of(w, size)
    (row_tiles, k_tiles), columns = x_tiles.shape[:2], w_tiles.shape[1]
    assert w_tiles.shape[0] == k_tiles, "x and w do not fit together"
    mantissas = np.zeros((config.tiles, size, size), np.int8)
    exponents = np.zeros(config.tiles, np.int64)
    for transpose in (0, 1):
        # Both operands have to fit: the bench takes as many rows of x and columns of w as do.
        row_tiles = min(row_tiles, config.tiles // 2 // k_tiles)
        used = min(columns, config.tiles // 2 // k_tiles, config.vector_rows // (row_tiles * size))
        x_count, w_base = row_tiles * k_tiles, config.tiles // 2
        assert x_count and used, f"a reduction of {k_tiles} tiles does not fit"
        stored = w_tiles.swapaxes(-1, -2) if transpose else w_tiles
        mantissas[:x_count] = x_tiles[:row_tiles].reshape(-1, size, size)
        exponents[:x_count] = x_exponents[:row_tiles].reshape(-1)
        for column in range(used):
            mantissas[w_base + column * k_tiles:][:k_tiles] = stored[:, column]
            exponents[w_base + column * k_tiles:][:k_tiles] = w_exponents[:, column]
        rows = min(len(x), row_tiles * size)
        program = [{"accumulate": 0, "x_transpose": 0, "w_transpose": transpose, "rows": rows, "k_tiles": k_tiles,
                    "x": 0, "x_row_stride": k_tiles, "x_k_stride": 1, "w": w_base + column * k_tiles,
                    "w_k_stride": 1, "y": column * rows, "y_stride": 1} for column in range(used)]
        bench = Bench(dut, rng, config, tiles=(mantissas, exponents), stall=0.1 * transpose)
        await bench.start()
        expected = bench.expect(program)
        await bench.run(program)
        assert_equal(bench, expected)
        got = bench.vector[:used * rows].reshape(used, rows, size).swapaxes(0, 1).reshape(rows, -1)
        exact = (x[:rows].astype(float) @ w.astype(float))[:, :used * size]
        error = np.abs(got[:, :exact.shape[1]] - exact).max() / np.abs(exact).max()
        dut._log.info(f"largest error {error:.2e} of the largest result, {len(x)} x {w.shape}")
        assert error < 0.05
