"""Programs that reach one rule or one limit each: rules of the instruction set, token counters, high indices."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from macaw_hw import isa
from macaw_hw.isa import INSTRUCTION_BYTES, TOKEN_LIMIT, DataFormat, Opcode, Queue, VectorOp

from ..verilator.backend import VerilatorBackend
from .case import DATA, DATA_BYTES, Case, Local, Mismatch, run
from .generator import Generator
from .illegal import MAX_WORK, smallest, work
from .tokens import encode

__all__ = ["LONG", "far_copies", "long_case", "overflow_case", "rule_cases"]


def overflow_case(generator: Generator, source: Queue, target: Queue, extra: int) -> Case:
    """A queue posts ``TOKEN_LIMIT`` + ``extra`` tokens for another that takes none: TOKENS if ``extra`` > 0. If not,
    a few instructions follow, while the count stays at its limit."""
    local = Local.of(generator.state)
    legal = replace(generator.case(1), local=local)
    local.put(generator.state)
    format, fields = smallest(source, legal.dram.size - 4)
    posting, plain = encode([(format, fields | {"post": 1 << target})]), encode([(format, fields)])
    content = posting * (TOKEN_LIMIT + extra) + plain * (0 if extra else 3)
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
    """Programs anywhere in a large memory copy a few words from anywhere to anywhere. `Mismatch` if not."""
    length, words = 2 * INSTRUCTION_BYTES, 9
    for number in range(count):
        # Places that differ, each with a margin that must keep its values.
        where = 4096 + 64 * rng.choice((rtl.dram.size - 8192) // 4096, 3, replace=False).astype(np.int64) * 64
        source, target = (int(place) + int(rng.integers(64)) for place in where[:2])
        program = (isa.encode(Opcode.LOAD, address=source, local=number, run=words, post=1 << Queue.STORE)
                   + isa.encode(Opcode.STORE, address=target, local=number, run=words, wait=1 << Queue.LOAD))
        address, margin = int(where[2]), slice(target - 64, target + 4 * words + 64)
        rtl.dram[address:address + length] = np.frombuffer(program, np.uint8)
        rtl.dram[source:source + 4 * words] = rng.integers(0, 256, 4 * words)
        rtl.dram[margin] = rng.integers(0, 256, margin.stop - margin.start)
        expected = rtl.dram[margin].copy()
        expected[64:-64] = rtl.dram[source:source + 4 * words]
        registers = run(rtl, Case(program, np.zeros(1, np.uint8), address), max_cycles=20_000)
        if registers["fault_code"] or not np.array_equal(rtl.dram[margin], expected):
            raise Mismatch(f"a copy from {source:#x} to {target:#x} by a program at {address:#x}: {registers}")
