"""Activation unit against `macaw_sim.arithmetic`: operations, loops, stalls, rate, faults.

Parameters ``config``: fields of the `Config`; ``weights``: safetensors file of a network with a layer
``0.weight``; optional ``turns``, ``pairs`` and ``instructions``: how much is tested.
"""

import itertools

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.simtime import get_sim_time
from cocotb.triggers import RisingEdge
from macaw.footprint import chainable
from macaw_hw.activation import activation_latency
from macaw_hw.config import Config
from macaw_hw.isa import VECTOR, Fault, VectorOp, encode
from safetensors.numpy import load_file

from macaw_sim import arithmetic

from . import generator, parameters
from .local_memory import LocalMemory

__all__ = ["SPECIAL", "random_bits", "Expected", "Image", "Bench"]

_PERIOD = 10

SPECIAL = np.array([sign << 31 | exponent << 23 | mantissa for sign in (0, 1) for exponent, mantissa in (
    (0, 0), (0, 1), (0, 0x7FFFFF),                        # zero, subnormals
    (1, 0), (1, 0x7FFFFF), (24, 0x555555),                # tiny
    (64, 0x3FFFFF), (103, 1), (125, 0x7FFFFF), (126, 0), (126, 1),
    (127, 0), (127, 1), (127, 3), (127, 0x400000), (127, 0x7FFFFF), (128, 0x200000), (129, 0x100000),
    (134, 0x7FC000),
    (136, 0), (149, 0x7FFFFF), (150, 1), (151, 0), (190, 0x400001),
    (253, 0x7FFFFF), (254, 0), (254, 0x7FFFFF),           # huge
    (255, 0), (255, 1), (255, 0x400000))], np.uint32)     # infinity, NaN
"""A bit pattern of every class that an operation distinguishes, and halfway cases between them."""


def random_bits(rng, shape, finite=False):
    """float32 patterns: uniform bits, ordinary numbers, integers and halves, neighbours, special ones."""
    kind = rng.integers(0, 5, shape)
    ordinary = np.ldexp(rng.standard_normal(shape), rng.integers(-20, 20, shape)).astype(np.float32)
    halves = (rng.integers(-600, 600, shape) / 2).astype(np.float32)
    bits = rng.integers(0, 1 << 32, shape, dtype=np.uint32)
    bits = np.where(kind == 1, ordinary.view(np.uint32), bits)
    bits = np.where(kind == 2, halves.view(np.uint32), bits)
    bits = np.where(kind == 3, np.uint32(0x3F7FFFF0) + rng.integers(0, 32, shape).astype(np.uint32), bits)
    bits = np.where(kind == 4, rng.choice(SPECIAL, shape), bits).astype(np.uint32)
    if finite:
        bits = np.where(bits >> 23 & 0xFF == 0xFF, bits ^ np.uint32(0x40000000), bits).astype(np.uint32)
    return bits


class Expected:
    """What an instruction does to a `LocalMemory`, by the text of the instruction set.

    ``rows`` [(row, bits)] and ``tiles`` [(tile, mantissas, exponent)] are written, each in this order. With the
    ``fault`` LOCAL_ADDRESS the hardware may stop earlier.
    """

    def __init__(self, config, fields, memory):
        self.config, self.fields, self.memory = config, fields, memory
        self.op = VectorOp(fields["op"])
        self.fault, self.rows, self.tiles = Fault.NONE, [], []
        results, stopped = self._results()
        if stopped:
            self.fault = Fault.LOCAL_ADDRESS
        if fields["to_vector"]:
            self._write_rows(results)
        if fields["to_tile"]:
            self._write_tiles(results)

    def _results(self):
        """The results by (o, i), and whether an operand outside the memory ended them."""
        results = {}
        for o in range(self.fields["outer"]):
            for i in range(self.fields["inner"]):
                used = [name for name in "ab" if getattr(self.op.operands, name)]
                if any(self._at(name, i, o) >= self.config.vector_rows for name in used):
                    return results, True
                results[o, i] = self._result(i, o)
        return results, False

    def _write_rows(self, results):
        for (o, i), bits in results.items():
            row = self._at("d", i, o)
            if row >= self.config.vector_rows:
                self.fault = Fault.LOCAL_ADDRESS
                return
            self.rows.append((row, bits))

    def _write_tiles(self, results):
        size, inner = self.config.size, self.fields["inner"]
        poisoned = False
        for o in range(self.fields["outer"]):
            for first in range(0, inner, size):
                block = [results.get((o, i)) for i in range(first, min(first + size, inner))]
                if block[-1] is None:
                    return
                tile = self._at("tile", first // size, o)
                if tile >= self.config.tiles:
                    self.fault = Fault.LOCAL_ADDRESS
                    return
                try:
                    quantized = arithmetic.quantize_tile(arithmetic.from_bits(np.array(block)))
                except arithmetic.NonFiniteError:
                    poisoned = True
                if not poisoned:
                    self.tiles.append((tile, *quantized))
                elif self.fault == Fault.NONE:
                    self.fault = Fault.NON_FINITE

    def _at(self, name, i, o):
        f = self.fields
        return (f[name] + i * f[f"{name}_inner"] + o * f[f"{name}_outer"]) & 0xFFFF

    def _result(self, i, o):
        reads, rows = self.op.operands, self.memory.rows
        lanes = np.arange(self.config.size)
        a = rows[self._at("a", i, o)] if reads.a else np.zeros(self.config.size, np.uint32)
        b = rows[self._at("b", i, o)][lanes ^ self.fields["shuffle"]] if reads.b else None
        result = arithmetic.vector_op(self.op, arithmetic.from_bits(a), b if b is None else arithmetic.from_bits(b),
                                      np.uint32(self.fields["scalar"]))
        return arithmetic.to_bits(result)


class Bench:
    """Sequencer of the unit, and its memories."""

    def __init__(self, dut, salt):
        self.dut = dut
        self.config = Config(**parameters()["config"])
        self.rng = generator(salt)
        self.memory = LocalMemory(dut, self.config, self.rng)
        self.done = 0

    async def start(self):
        self.dut.control__instruction__valid.value = 0
        Clock(self.dut.clk, _PERIOD, unit="ns").start()
        cocotb.start_soon(self.memory.run())
        cocotb.start_soon(self._count())
        await self.reset()

    async def reset(self):
        self.dut.rst.value = 1
        for _ in range(2):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        for port in self.memory.ports:
            port.held = None

    async def _count(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.done += int(self.dut.control__done.value)

    async def send(self, fields):
        """Offer an instruction until it is accepted; returns when that was."""
        word = int.from_bytes(encode(VECTOR.opcode, **fields), "little")
        self.dut.control__instruction__payload.value = word & (1 << VECTOR.layout.size) - 1
        self.dut.control__instruction__valid.value = 1
        await RisingEdge(self.dut.clk)
        while not int(self.dut.control__instruction__ready.value):
            await RisingEdge(self.dut.clk)
        self.dut.control__instruction__valid.value = 0
        return get_sim_time("ns")

    async def ended(self, limit):
        """Wait for `done` or a fault; returns the fault."""
        before = self.done
        for _ in range(limit):
            await RisingEdge(self.dut.clk)
            fault = Fault(int(self.dut.control__fault.value))
            if fault != Fault.NONE:
                assert self.done == before, "done and fault"
                return fault
            if self.done != before:
                return Fault.NONE
        raise AssertionError(f"neither done nor fault after {limit} cycles")

    async def sequence(self, program):
        """Instructions that end without fault, each offered as soon as it is accepted; compares all of both memories
        and the order of the writes."""
        before, memory = self.done, self.memory
        image = Image(memory)
        expected = [image.run(self.config, fields) for fields in program]
        memory.forget_writes()
        for fields in program:
            self.accepted = await self.send(fields)
        limit = 1000 + 60 * sum((1 + fields["inner"]) * fields["outer"] for fields in program) * self.config.size
        for _ in range(limit):
            if self.done - before == len(program):
                break
            await RisingEdge(self.dut.clk)
        assert self.done - before == len(program), f"{self.done - before} of {len(program)} done: {program}"
        assert (image.rows == memory.rows).all(), program
        assert (image.mantissas == memory.mantissas).all() and (image.exponents == memory.exponents).all(), program
        assert memory.row_writes == [row for one in expected for row, _ in one.rows], program
        assert memory.tile_writes == [(tile, line, int(exponent)) for one in expected
                                      for tile, _, exponent in one.tiles for line in range(self.config.size)], program

    async def run(self, **fields):
        """One instruction; compares all of both memories and the order of the writes."""
        fields = complete(fields)
        memory = self.memory
        expected = Expected(self.config, fields, memory)
        rows, mantissas, exponents = (x.copy() for x in (memory.rows, memory.mantissas, memory.exponents))
        memory.forget_writes()
        self.accepted = await self.send(fields)
        fault = await self.ended(1000 + 60 * (1 + fields["inner"]) * fields["outer"] * self.config.size)
        assert fault == expected.fault, f"{fault!r}, not {expected.fault!r}: {fields}"
        for _ in range(20 if fault else 0):
            await RisingEdge(self.dut.clk)
        if fault == Fault.LOCAL_ADDRESS:
            del expected.rows[len(memory.row_writes):]
            del expected.tiles[len(memory.tile_writes) // self.config.size:]
        for row, bits in expected.rows:
            rows[row] = bits
        for tile, values, exponent in expected.tiles:
            mantissas[tile], exponents[tile] = values, exponent
        difference = np.argwhere(rows != memory.rows)
        for row, lane in difference[:5]:
            self.dut._log.error(f"row {row} lane {lane}: {memory.rows[row, lane]:08x}, not {rows[row, lane]:08x}")
        assert not len(difference), fields
        assert memory.row_writes == [row for row, _ in expected.rows], fields
        assert (mantissas == memory.mantissas).all() and (exponents == memory.exponents).all(), fields
        assert memory.tile_writes == [(tile, line, int(exponent)) for tile, _, exponent in expected.tiles
                                      for line in range(self.config.size)], fields
        return fault


class Image:
    """Contents of a `LocalMemory` on which instructions are executed one after the other."""

    def __init__(self, memory):
        self.rows, self.mantissas = memory.rows.copy(), memory.mantissas.copy()
        self.exponents = memory.exponents.copy()

    def run(self, config, fields):
        """Execute an instruction that does not fault; returns what was `Expected` of it."""
        expected = Expected(config, fields, self)
        assert expected.fault == Fault.NONE, fields
        for row, bits in expected.rows:
            self.rows[row] = bits
        for tile, values, exponent in expected.tiles:
            self.mantissas[tile], self.exponents[tile] = values, exponent
        return expected


def complete(fields):
    """All fields of a VECTOR instruction; those not given are 0, counts 1."""
    return {"inner": 1, "outer": 1} | {f.name: 0 for f in VECTOR.specific if f.name not in ("inner", "outer")} | fields


@cocotb.test()
async def operations(dut):
    """Every operation on every pair of special numbers, then on random ones."""
    bench = Bench(dut, 1)
    await bench.start()
    memory, size = bench.memory, bench.config.size
    pairs = np.array(list(itertools.product(SPECIAL, SPECIAL)), np.uint32)
    pairs = pairs[:parameters().get("pairs")]
    pairs = np.concatenate([pairs, np.zeros((-len(pairs) % size, 2), np.uint32)])
    count = len(pairs) // size
    assert 3 * count <= bench.config.vector_rows
    scalars, random_turns = parameters().get("turns", (5, 2))
    for op in VectorOp:
        scaled = "s" in op.operands.formula.split(" ")
        special = scalars if scaled else 1
        for turn in range(special + random_turns):
            a, b = pairs.T if turn < special else random_bits(bench.rng, (2, count * size))
            memory.rows[:count], memory.rows[count:2 * count] = a.reshape(-1, size), b.reshape(-1, size)
            memory.rows[2 * count:3 * count] = 0xDEADBEEF
            scalar = int(bench.rng.choice(SPECIAL) if turn % 2 else random_bits(bench.rng, 1)[0])
            await bench.run(op=op, a=0, b=count, d=2 * count, a_inner=1, b_inner=1, d_inner=1, inner=count,
                            scalar=scalar, to_vector=1)


def random_fields(rng, config):
    """A legal instruction that stays inside the memories."""
    op = VectorOp(rng.choice(list(VectorOp)))
    inner = int(rng.choice([1, 2, 3, config.size - 1, config.size, config.size + 1, 2 * config.size, 37]))
    outer = int(rng.choice([1, 1, 2, 3]))
    third = config.vector_rows // 3
    fields = {"op": op, "inner": inner, "outer": outer, "shuffle": int(rng.integers(config.size)),
              "to_vector": int(rng.integers(2)), "scalar": int(random_bits(rng, 1, finite=True)[0])}
    fields["to_tile"] = int(not fields["to_vector"] or rng.integers(2))
    for position, name in enumerate("abd"):
        strides = [int(rng.choice([-2, -1, 0, 1, 1, 2])), int(rng.choice([-40, -1, 0, 1, 40, 50]))]
        low = sum(min(0, s * (n - 1)) for s, n in zip(strides, (inner, outer), strict=True))
        high = sum(max(0, s * (n - 1)) for s, n in zip(strides, (inner, outer), strict=True))
        start = position * third - low + int(rng.integers(third - (high - low)))
        fields |= {name: start, f"{name}_inner": strides[0], f"{name}_outer": strides[1]}
    if rng.random() < 0.2:  # in place
        fields |= {"d": fields["a"], "d_inner": 1, "a_inner": 1, "d_outer": 40, "a_outer": 40}
        fields |= {"a": 5, "d": 5}
    if rng.random() < 0.2:  # one operand twice
        fields |= {f"b{rest}": fields[f"a{rest}"] for rest in ("", "_inner", "_outer")}
        fields["d"] = 2 * third + 200 if fields["d"] < third else fields["d"]
    per_row = -(-inner // config.size)
    tile_inner, tile_outer = int(rng.choice([1, 2])), int(rng.choice([0, 7]))
    last = tile_inner * (per_row - 1) + tile_outer * (outer - 1)
    return fields | {"tile": int(rng.integers(config.tiles - last)), "tile_inner": tile_inner,
                     "tile_outer": tile_outer}


@cocotb.test()
async def random_instructions(dut):
    """Loops, shuffles, both destinations and random stalls; some end with a fault."""
    bench = Bench(dut, 2)
    await bench.start()
    memory = bench.memory
    faults = dict.fromkeys(Fault, 0)
    for index in range(parameters().get("instructions", 150)):
        fields = random_fields(bench.rng, bench.config)
        finite = index % 8 != 7
        if not finite:
            fields |= {"op": VectorOp.MUL, "to_tile": 1}
        memory.rows[:] = random_bits(bench.rng, memory.rows.shape, finite)
        if finite and fields["to_tile"]:  # so that results are finite too
            memory.rows[:] = memory.rows & np.uint32(0x80FFFFFF) | np.uint32(0x3E000000)
            fields["scalar"] = fields["scalar"] & 0x80FFFFFF | 0x3E000000
        memory.stalls(float(bench.rng.choice([0, 0.3, 0.9])))
        fault = await bench.run(**fields)
        faults[fault] += 1
        if fault != Fault.NONE:
            await bench.reset()
    assert faults[Fault.NONE] and faults[Fault.NON_FINITE], faults


def random_chain(rng, config):
    """Instructions, most of which read what the one before writes; chained where that is legal, but for some."""
    program = []
    for _ in range(int(rng.integers(2, 7))):
        fields = complete(random_fields(rng, config) | {"op": VectorOp.MUL, "scalar": 0})
        if program and program[-1]["to_vector"] and rng.random() < 0.8:
            before = program[-1]
            shape = {name: before[name] for name in ("inner", "outer")}
            if rng.random() < 0.8:
                fields |= shape | {"to_vector": 1, "to_tile": int(rng.random() < 0.3)}
            shift = int(rng.choice([0, 0, 0, -1, 1])) * before["d_inner"]
            for operand in ("a", "b", "d") if fields["inner"] == before["inner"] else "":
                if rng.random() < 0.7:
                    fields |= {operand: before["d"] + (shift if operand != "d" else 0),
                               f"{operand}_inner": before["d_inner"], f"{operand}_outer": before["d_outer"]}
            if any(not 0 <= fields[operand] < config.vector_rows for operand in "abd"):
                continue
        fields["chain"] = int(bool(program) and chainable(program[-1], fields) and rng.random() < 0.9)
        program.append(fields)
    return program


@cocotb.test()
async def chains(dut):
    """Several instructions under way at a time, with random stalls, in all memories as one after the other."""
    bench = Bench(dut, 6)
    await bench.start()
    memory, tried = bench.memory, 0
    for _ in range(parameters().get("instructions", 150) // 2):
        # Products of powers of two that stay finite.
        memory.rows[:] = bench.rng.choice(np.array([0x3F800000, 0xBF800000, 0x3F000000], np.uint32), memory.rows.shape)
        program = random_chain(bench.rng, bench.config)
        if any(_outside(bench.config, fields) or _hazard(fields) for fields in program):
            continue
        memory.stalls(float(bench.rng.choice([0, 0.3, 0.9])))
        await bench.sequence(program)
        tried += sum(fields["chain"] for fields in program)
    assert tried > parameters().get("instructions", 150) // 4, tried


def _walk(fields, operand):
    return [fields[operand] + i * fields[f"{operand}_inner"] + o * fields[f"{operand}_outer"]
            for o in range(fields["outer"]) for i in range(fields["inner"])]


def _outside(config, fields):
    tiles = [fields["tile"] + i * fields["tile_inner"] + o * fields["tile_outer"]
             for o in range(fields["outer"]) for i in range(-(-fields["inner"] // config.size))]
    return (any(not 0 <= row < config.vector_rows for operand in "abd" for row in _walk(fields, operand))
            or any(not 0 <= tile < config.tiles for tile in tiles))


def _hazard(fields):
    """Whether an iteration reads what an earlier one has written."""
    written = set()
    for a, b, d in zip(*(_walk(fields, operand) for operand in "abd"), strict=True):
        if fields["to_vector"] and written & {a, b}:
            return True
        written.add(d)
    return False


def _cycles(begin, end):
    return round((end - begin) / _PERIOD)


@cocotb.test()
async def rate(dut):
    """The promised latency; one row per cycle to either destination and to both, over full tiles."""
    bench = Bench(dut, 3)
    await bench.start()
    memory, size = bench.memory, bench.config.size
    latency = activation_latency(bench.config)
    memory.rows[:] = random_bits(bench.rng, memory.rows.shape) & np.uint32(0x80FFFFFF) | np.uint32(0x3E000000)
    rows = 16 * size if 48 * size <= bench.config.vector_rows else 4 * size
    for destinations in ({"to_vector": 1}, {"to_tile": 1}, {"to_vector": 1, "to_tile": 1}):
        durations = []
        for count in (size, rows):
            await bench.run(op=VectorOp.MUL_ADD_SCALAR, a=0, b=rows, d=2 * rows, a_inner=1, b_inner=1, d_inner=1,
                            inner=count, tile_inner=1, scalar=0x3F800000, **destinations)
            durations.append(_cycles(bench.accepted, get_sim_time("ns")))
            if "to_vector" in destinations:
                assert _cycles(bench.accepted, memory.row_times[0]) == latency
                assert _cycles(memory.row_times[0], memory.row_times[-1]) == count - 1
            if "to_tile" in destinations:
                assert _cycles(memory.tile_times[0], memory.tile_times[-1]) == max(count, size) - 1
        dut._log.info(f"{destinations}: {durations} cycles for {size} and {rows} rows")
        assert durations[1] - durations[0] == rows - size, durations
    # In a chain over the same rows one cycle is lost between two instructions of enough rows; else each row waits for
    # the one that it reads.
    for count in (1, 2, 16, 4 * size):
        loop = {"inner": count, "a_inner": 1, "b_inner": 1, "d_inner": 1, "to_vector": 1}
        one = complete({"op": VectorOp.MUL, "a": 0, "b": 0, "d": 0, "chain": 1, **loop})
        await bench.sequence([one] * 4)
        between = np.diff(np.array(memory.row_times).reshape(4, count)[:, 0]) / _PERIOD
        assert set(between) == {max(count + 1, latency - 1)}, (count, between)


@cocotb.test()
async def real_weights(dut):
    """A trained layer: its update in place and quantized, and the ReLU of what it gives for a random input."""
    bench = Bench(dut, 5)
    await bench.start()
    memory, size = bench.memory, bench.config.size
    weight = load_file(parameters()["weights"])["0.weight"].T
    count = min(256, bench.config.vector_rows // 4)
    columns = bench.rng.choice(weight.shape[1] - size)
    rows = weight[200:200 + count, columns:columns + size]
    gradient = (bench.rng.standard_normal(rows.shape) / 256).astype(np.float32)
    memory.rows[:count], memory.rows[count:2 * count] = arithmetic.to_bits(rows), arithmetic.to_bits(gradient)
    memory.stalls(0.2)
    loop = {"a_inner": 1, "b_inner": 1, "d_inner": 1, "tile_inner": 1, "inner": count}
    await bench.run(op=VectorOp.SCALE_ADD, a=count, b=0, d=0, scalar=0xBDCCCCCD, to_vector=1,
                    to_tile=int(count <= size * bench.config.tiles), **loop)
    pre = (bench.rng.standard_normal(weight.shape[0]).astype(np.float32) @ weight)[:bench.config.size * 8]
    memory.rows[:8] = arithmetic.to_bits(pre.reshape(8, size))
    await bench.run(op=VectorOp.MAX_SCALAR, a=0, d=8, to_vector=1, to_tile=1, **loop | {"inner": 8})
    assert (memory.rows[8:16] == arithmetic.to_bits(np.maximum(pre, 0)).reshape(8, size)).all()


@cocotb.test()
async def faults(dut):
    """Each operand and destination outside its memory; infinity to a tile; reset makes the unit usable again."""
    bench = Bench(dut, 4)
    await bench.start()
    memory, config = bench.memory, bench.config
    size, rows, tiles = config.size, config.vector_rows, config.tiles
    base = {"op": VectorOp.ADD, "a": 0, "b": 100, "d": 200, "tile": 0, "a_inner": 1, "b_inner": 1, "d_inner": 1,
            "tile_inner": 1, "inner": 3 * size + 2, "outer": 2, "to_vector": 1, "to_tile": 1}
    outside = [{"a": rows}, {"b": rows - size}, {"d": rows - 1}, {"d": 2, "d_inner": -1, "a": 300}, {"tile": tiles - 1},
               {"a_outer": 4000, "a_inner": 2000}, {"tile": 0, "tile_outer": -1}, {"b": 65535, "b_inner": -1}]
    small = memory.rows & np.uint32(0x80FFFFFF) | np.uint32(0x3E000000)
    for stall in (0, 0.7):
        for change in outside:
            memory.rows[:] = small
            memory.stalls(stall)
            assert await bench.run(**base | change) == Fault.LOCAL_ADDRESS
            await bench.reset()
            # What the operation does not read or write is not checked.
            unused = {"op": VectorOp.FILL, "a": rows, "b": 60000, "d": 300, "inner": 3, "to_vector": 1, "tile": tiles}
            assert await bench.run(**unused) == Fault.NONE
        for position in (0, 2 * size, 3 * size + 1):
            for bits in (0x7F800000, 0xFF800000, 0x7FC00000):
                memory.rows[:] = small
                memory.rows[position, position % size] = bits
                assert await bench.run(**base) == Fault.NON_FINITE
                await bench.reset()
                assert await bench.run(**base | {"to_tile": 0}) == Fault.NONE
                # An address outside is the fault even though the infinity comes first.
                assert await bench.run(**base | {"d": rows - 3 * size - 2, "d_outer": 1}) == Fault.LOCAL_ADDRESS
                await bench.reset()
