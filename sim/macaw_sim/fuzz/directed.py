"""Programs that reach one rule or one limit each: rules of the instruction set, token counters, high indices, sums and
copies of every size, four instructions done at a time."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from macaw_hw import isa
from macaw_hw.config import Config
from macaw_hw.events import EVENTS
from macaw_hw.isa import INSTRUCTION_BYTES, TOKEN_LIMIT, DataFormat, Fault, Opcode, Queue, VectorOp

from ..verilator.backend import VerilatorBackend
from .case import DATA, DATA_BYTES, Case, Local, Mismatch, image_bytes, run
from .generator import Generator
from .illegal import MAX_WORK, smallest, work
from .tokens import encode

__all__ = ["LONG", "STEADY", "done_together", "far_copies", "long_case", "overflow_case", "rule_cases",
           "sums_into_one_row", "tiles_before_fault"]

STEADY: dict = {"read_latency": 5, "write_latency": 5}
"""Options of a memory without pauses."""


def overflow_case(generator: Generator, source: Queue, target: Queue, extra: int) -> Case:
    """A queue posts ``TOKEN_LIMIT`` + ``extra`` tokens for another.

    If ``extra`` is 0, they are taken one by one once all are there. If not, the first instruction of the other queue
    waits for one of them and for one that never comes, and the fault is TOKENS.
    """
    local = Local.of(generator.state)
    legal = replace(generator.case(1), local=local)
    local.put(generator.state)
    third = next(queue for queue in Queue if queue not in (source, target))
    posts, waits, between = ([smallest(queue, legal.dram.size - 4)] for queue in (source, target, third))

    def changed(instruction, **tokens):
        (format, fields), = instruction
        return encode([(format, fields | tokens)])

    posting = changed(posts, post=1 << target)
    if extra:
        content = changed(waits, wait=1 << source | 1 << third) + posting * (TOKEN_LIMIT + extra)
    else:
        content = (posting * (TOKEN_LIMIT - 1) + changed(posts, post=1 << target | 1 << third)
                   + changed(between, wait=1 << source, post=1 << target) + changed(waits, wait=1 << third)
                   + changed(waits, wait=1 << source) * TOKEN_LIMIT)
    return replace(legal, address=0, window=None, dram=np.zeros_like(legal.dram)).with_program(content)


def rule_cases(generator: Generator) -> Iterator[tuple[str, Case]]:
    """Programs of one instruction, with what is special about it: each breaks one rule of the instruction set in one
    way, all of them; or has a count with a single bit set, which breaks none. Nothing depends on what the local
    memories hold."""
    size, config = generator.state.dram.size, generator.config
    dram = np.zeros(size, np.uint8)
    dram[DATA:DATA + DATA_BYTES] = np.arange(1, DATA_BYTES // 4 + 1, dtype=np.float32).view(np.uint8)

    def case(content):
        return Case(b"", dram, window=(0, size)).with_program(content)

    def counted(format, fields, name, count):
        """With what it needs: a fill of what a STORE reads, a STORE of what others write."""
        strides = {f"stride{name[-1]}": 4} if name.startswith("count") else {}
        rows = min(-(-count // config.size) if name == "run" else count, config.vector_rows - 4)
        target = {"address": DATA + DATA_BYTES, **strides}
        if format.opcode == Opcode.MATRIX:
            return encode([(format, fields | {"y_stride": 1, name: count})])
        if format.opcode == Opcode.STORE:
            fill = isa.encode(Opcode.VECTOR, op=int(VectorOp.FILL), to_vector=1, d=fields["local"], d_inner=1,
                              inner=min(rows, 4095), outer=1, scalar=0x3F800000, post=1 << Queue.STORE)
            return fill + encode([(format, fields | target | {name: count, "wait": 1 << Queue.VECTOR})])
        changed = fields | strides | {name: count, "post": 1 << Queue.STORE}
        if format.opcode == Opcode.LOAD:
            changed |= {"address": DATA}
        else:
            changed |= {f"d_{name}": 1, "scalar": 0x3F800000}
        place = fields["d" if format.opcode == Opcode.VECTOR else "local"]
        return encode([(format, changed)]) + isa.encode(Opcode.STORE, address=DATA + DATA_BYTES, local=place,
                                                        run=rows * config.size, wait=1 << format.queue)

    for opcode in range(16):
        if opcode not in iter(Opcode):
            yield f"opcode {opcode}", case(bytes([opcode]) + bytes(INSTRUCTION_BYTES - 1))
    for queue in Queue:
        format, fields = smallest(queue, size - 4)
        name, plain = format.opcode.name, int.from_bytes(encode([(format, fields)]), "little")
        for bit in range(sum(isa._shape(field.shape)[0] for field in format.fields), 8 * INSTRUCTION_BYTES):
            yield f"{name}: reserved bit {bit}", case((plain | 1 << bit).to_bytes(INSTRUCTION_BYTES, "little"))
        changes = [{"wait": 1 << queue}, {"post": 1 << queue}]
        for count in isa._COUNTS[format.opcode]:
            width = next(isa._shape(field.shape)[0] for field in format.fields if field.name == count)
            changes += [{count: 0}]
            for value in (1 << bit for bit in range(width)):
                if work(format, fields | {count: value}, config) <= MAX_WORK:
                    yield f"{name}: {count} {value}", case(counted(format, fields, count, value))
        if queue in (Queue.LOAD, Queue.STORE):
            changes += [{"format": 3}, *({"format": int(DataFormat.BFP8), "pack": pack} for pack in (1, 2, 3))]
        if queue == Queue.MATRIX:
            pad = next(isa._shape(field.shape)[0] for field in format.fields if field.name == "pad")
            changes += [{"pad": 1 << bit} for bit in range(pad)]
        if queue == Queue.VECTOR:
            changes += [{"op": op} for op in range(max(VectorOp) + 1, 64)]
            changes += [{"shuffle": mask} for mask in range(config.size, 32)]
            changes += [{"to_vector": 0, "to_tile": 0}]
        for change in changes:
            yield f"{name}: {change}", case(encode([(format, fields | change)]))


LONG = ((Queue.LOAD, "local", 0x5555), (Queue.MATRIX, "local", 0x2AAA), (Queue.VECTOR, "local", 0x5555),
        (Queue.STORE, "local", 0x2AAA), (Queue.LOAD, "wait", 0x2AAA), (Queue.MATRIX, "wait", 0x5555),
        (Queue.VECTOR, "illegal", 0x2AAA), (Queue.STORE, "illegal", 0x5555))
"""Queue, end and number of instructions of the programs of `long_case` that fit into 1 MiB."""


def long_case(generator: Generator, queue: Queue, end: str, number: int) -> Case:
    """``number`` small instructions of a queue, and one behind them that faults: the report names a high index.

    ``end`` is what the last one does: ``local`` leaves the local memory, ``wait`` is for a token that never comes,
    ``illegal`` is no instruction.
    """
    local, size = Local.of(generator.state), generator.state.dram.size
    format, fields = smallest(queue, size - 4)
    last = dict(fields)
    if end == "local":
        last[{Queue.MATRIX: "y", Queue.VECTOR: "d"}.get(queue, "local")] = (1 << 16) - 1
    elif end == "wait":
        last["wait"] = 1 << (queue + 1) % len(Queue)
    wrong = bytes(INSTRUCTION_BYTES) if end == "illegal" else encode([(format, last)])
    program = encode([(format, fields)]) * number + wrong
    if len(program) > size - 4:
        raise ValueError(f"{number} instructions do not fit into {size} bytes of memory")
    return Case(b"", np.zeros(size, np.uint8), watchdog=2_000, local=local).with_program(program)


def far_copies(rtl: VerilatorBackend, rng: np.random.Generator, count: int) -> None:
    """Programs anywhere in a large memory copy words, or blocks of words, from anywhere to anywhere. `Mismatch` if
    not."""
    length = 2 * INSTRUCTION_BYTES
    for number in range(count):
        # Places that differ, each with a margin that must keep its values; every other copy crosses 4 KiB.
        where = 4096 + 16384 * rng.choice(rtl.dram.size // 16384 - 2, 3, replace=False).astype(np.int64)
        shape = {"run": 9} if number % 2 else {"run": 900, "count0": 3, "stride0": 3600}
        words = shape["run"] * shape.get("count0", 1)
        source, target = (int(place) + int(rng.integers(64)) for place in where[:2])
        program = (isa.encode(Opcode.LOAD, address=source, local=number, **shape, post=1 << Queue.STORE)
                   + isa.encode(Opcode.STORE, address=target, local=number, **shape, wait=1 << Queue.LOAD))
        address, margin = int(where[2]), slice(target - 64, target + 4 * words + 64)
        rtl.dram[address:address + length] = np.frombuffer(program, np.uint8)
        rtl.dram[source:source + 4 * words] = rng.integers(0, 256, 4 * words)
        rtl.dram[margin] = rng.integers(0, 256, margin.stop - margin.start)
        expected = rtl.dram[margin].copy()
        expected[64:-64] = rtl.dram[source:source + 4 * words]
        registers = run(rtl, Case(program, np.zeros(1, np.uint8), address), max_cycles=60_000)
        if registers["fault_code"] or not np.array_equal(rtl.dram[margin], expected):
            raise Mismatch(f"a copy from {source:#x} to {target:#x} by a program at {address:#x}: {registers}")


def sums_into_one_row(rtl: VerilatorBackend, rng: np.random.Generator) -> None:
    """Products of 1, 2, 4, ... rows that are all added to one row; `Mismatch` unless it is their sum, one by one.

    The emulator takes several rows at a time and refuses these, with an error that names the row.
    """
    config = rtl.config
    size = config.size
    for bit in range(15):
        rows, y = 1 << bit, int(rng.integers(config.vector_rows))
        tiles = rng.integers(-128, 128, (2, size, size), dtype=np.int8)
        records = np.concatenate([np.zeros((2, 1, size), np.int8), tiles], axis=1)
        rtl.dram[DATA:DATA + records.size] = records.view(np.uint8).reshape(-1)
        load = isa.encode(Opcode.LOAD, format=int(DataFormat.BFP8), address=DATA, local=0, run=2,
                          post=1 << Queue.MATRIX)
        fill = isa.encode(Opcode.VECTOR, op=int(VectorOp.FILL), to_vector=1, d=y, inner=1, outer=1,
                          scalar=0x3F80_0000, post=1 << Queue.MATRIX)
        add = isa.encode(Opcode.MATRIX, rows=rows, k_tiles=1, x=0, w=1, y=y, accumulate=1,
                         wait=1 << Queue.LOAD | 1 << Queue.VECTOR, post=1 << Queue.STORE)
        store = isa.encode(Opcode.STORE, address=DATA + 4096, local=y, run=size, wait=1 << Queue.MATRIX)
        program = load + fill + add + store
        sums = np.ones(size, np.float32)
        products = (tiles[0].astype(np.int32) @ tiles[1].astype(np.int32)).astype(np.float32)
        for row in range(rows):
            sums += products[row % size]
        dram = rtl.dram[:DATA + 4096].copy()
        registers = run(rtl, Case(b"", dram).with_program(program))
        found = rtl.dram[DATA + 4096:DATA + 4096 + 4 * size].view(np.float32)
        if registers["fault_code"] or not np.array_equal(found, sums):
            raise Mismatch(f"{rows} rows added to row {y}: {found}, not {sums}; {registers}")


def tiles_before_fault(rtl: VerilatorBackend) -> None:
    """A VECTOR writes a tile and then reads a row that there is not: the tile is there when it has faulted, be it of
    one row or of several. `Mismatch` if not."""
    config = rtl.config
    size = config.size
    for rows in range(1, size + 1):
        content = np.full(config.tile_bytes, 0x55, np.uint8)
        dram = np.zeros(DATA + 2 * DATA_BYTES, np.uint8)
        dram[DATA:DATA + content.size] = content
        first = config.vector_rows - rows
        setting = (isa.encode(Opcode.LOAD, format=int(DataFormat.BFP8), address=DATA, local=rows, run=1)
                   + isa.encode(Opcode.VECTOR, op=int(VectorOp.FILL), to_vector=1, d=first, d_inner=1, inner=rows,
                                outer=1, scalar=0x3F80_0000))
        outside = isa.encode(Opcode.VECTOR, op=int(VectorOp.MOVE), to_tile=1, a=first, a_inner=1, a_outer=1, tile=rows,
                             tile_outer=1, inner=rows, outer=2)
        storing = isa.encode(Opcode.STORE, format=int(DataFormat.BFP8), address=DATA + DATA_BYTES, local=rows, run=1)
        ends = [run(rtl, Case(b"", dram).with_program(one))["fault_code"] for one in (setting, outside, storing)]
        # 1 is 64 * 2^-6.
        expected = np.zeros((size + 1, size), np.int8)
        expected[0].view(np.int16)[0], expected[1:rows + 1] = -6, 64
        found = rtl.dram[DATA + DATA_BYTES:][:config.tile_bytes].view(np.int8).reshape(size + 1, size)
        if ends != [Fault.NONE, Fault.LOCAL_ADDRESS, Fault.NONE] or not np.array_equal(found, expected):
            raise Mismatch(f"a tile of {rows} rows before a fault: {found.tolist()}; the programs end with {ends}")


def done_together(config: Config) -> Case:
    """A program of an instruction for each unit, all four done in the same cycle of a device with `STEADY` memory.

    `ValueError` if it is not found.
    """
    lengths = dict.fromkeys(Queue, 400) | {Queue.VECTOR: 800}
    device = VerilatorBackend(config, dram_bytes=image_bytes(config), observe=True, **STEADY)
    names = [f"{queue.name.lower()}_done" for queue in Queue]
    try:
        for _ in range(20):
            case = _lengths(config, lengths)
            device.take_events()
            run(device, case)
            cycles, bits = device.take_events()
            done = [int(cycles[np.flatnonzero(bits >> list(EVENTS).index(name) & 1)[0]]) for name in names]
            if len(set(done)) == 1:
                return case
            for queue, at in zip(Queue, done, strict=True):
                lengths[queue] += max(done) - at
    finally:
        device.close()
    raise ValueError(f"the units are done in cycles {done}")


def _lengths(config, lengths):
    """Instructions of so many beats or rows.

    VECTOR writes tiles, and MATRIX to another bank than LOAD, since units that wait for each other's writes may have no
    end in common: all are as long as VECTOR, which waits for none.
    """
    words = config.bus_bytes // 4
    program = (isa.encode(Opcode.LOAD, address=DATA, local=0, run=words * lengths[Queue.LOAD])
               + isa.encode(Opcode.STORE, address=DATA + DATA_BYTES, local=config.vector_rows // 4,
                            run=words * lengths[Queue.STORE])
               + isa.encode(Opcode.MATRIX, rows=lengths[Queue.MATRIX], k_tiles=1, y=config.vector_rows // 2)
               + isa.encode(Opcode.VECTOR, op=int(VectorOp.FILL), to_tile=1, tile=config.tiles // 2,
                            inner=lengths[Queue.VECTOR], outer=1))
    return Case(b"", np.zeros(image_bytes(config), np.uint8)).with_program(program)
