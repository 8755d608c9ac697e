"""Programs that fault: legal ones with one thing changed."""

from dataclasses import replace

import numpy as np
from macaw_hw import isa
from macaw_hw.isa import FORMATS, INSTRUCTION_BYTES, DataFormat, Opcode, Queue, VectorOp

from ..emulator.synchronization import SynchronizationError
from .case import DATA, DATA_BYTES, Case, Local, instructions
from .generator import Generator
from .judge import Model
from .tokens import encode

__all__ = ["KINDS", "MAX_WORK", "illegal_case", "smallest", "work"]

KINDS = ("bit", "field", "reserved", "zero_count", "own_token", "bad_code", "local", "window", "window_edge",
         "bus_read", "bus_write", "non_finite", "deadlock", "deadlock_depth", "fetch_window", "fetch_error", "beyond",
         "high", "twice")
"""How a program is changed."""
MAX_WORK = 20_000
"""Rows or bytes that one instruction may touch, so that a changed count does not run for long."""
_INF = 0x7F800000


def illegal_case(generator: Generator, kind: str, length: int) -> Case:
    """A program with a change of some kind, whose possible outcomes are known.

    Most of them fault; a changed bit may also leave a legal program.
    """
    while True:
        local = Local.of(generator.state)
        legal = replace(generator.case(length), local=local)
        for _ in range(8):
            case = _CHANGES.get(kind, _change)(generator, legal, kind)
            if case is not None and _sound(generator.config, case):
                local.put(generator.state)
                return case
        local.put(generator.state)


def _sound(config, case):
    """Whether the result is known: bounded, ordered by tokens, without stores into the program."""
    for one in instructions(case.program):
        try:
            format, fields = isa.decode(one)
        except ValueError:
            break
        if work(format, fields, config) > MAX_WORK:
            return False
    try:
        model = Model(config, case)
        order = model.expect().order
    except SynchronizationError:
        return False
    beyond = case.address + len(case.program)
    for index in order:
        if model.program.headers[index].queue == Queue.STORE:
            first, last = model.steps[index]._first, model.steps[index]._beyond
            if first < beyond and last > case.address:
                return False
    return True


def work(format, fields, config) -> int:
    """Rows or words that an instruction touches."""
    if format.opcode == Opcode.MATRIX:
        return fields["rows"] * fields["k_tiles"]
    if format.opcode == Opcode.VECTOR:
        return fields["inner"] * fields["outer"]
    runs = int(np.prod([fields[f"count{i}"] for i in range(isa.LOOPS)], dtype=object))
    unit = (4, 1, config.tile_bytes, 1)[fields["format"]]
    return runs * max(fields["run"] * unit // 4, 1)


def _change(generator, case, kind):
    """One instruction changed, in one of the ways that need nothing else."""
    rng = generator.rng
    decoded = [isa.decode(one) for one in instructions(case.program)]
    index = int(rng.integers(len(decoded)))
    format, fields = decoded[index]
    if kind == "bit":
        content = bytearray(case.program)
        content[index * INSTRUCTION_BYTES + int(rng.integers(INSTRUCTION_BYTES))] ^= 1 << int(rng.integers(8))
        return case.with_program(bytes(content))
    if kind == "reserved":
        top = sum(isa._shape(field.shape)[0] for field in format.fields)
        if top == 8 * INSTRUCTION_BYTES:
            return None
        bit = int(rng.integers(top, 8 * INSTRUCTION_BYTES))
        content = bytearray(case.program)
        content[index * INSTRUCTION_BYTES + bit // 8] |= 1 << bit % 8
        return case.with_program(bytes(content))
    if not _FIELD_CHANGES[kind](generator, format, fields):
        return None
    return case.with_program(encode(decoded))


def _field(generator, format, fields):
    """Another value in one field."""
    chosen = format.fields[int(generator.rng.integers(1, len(format.fields)))]
    width, signed = isa._shape(chosen.shape)
    low = -(1 << width - 1) if signed else 0
    fields[chosen.name] = int(generator.rng.integers(low, low + (1 << width)))
    return True


def _zero_count(generator, format, fields):
    names = isa._COUNTS[format.opcode]
    fields[names[int(generator.rng.integers(len(names)))]] = 0
    return True


def _own_token(generator, format, fields):
    fields[str(generator.rng.choice(["wait", "post"]))] |= 1 << format.queue
    return True


def _bad_code(generator, format, fields):
    rng = generator.rng
    if format.opcode == Opcode.VECTOR:
        choice = int(rng.integers(3))
        if choice == 0:
            fields["op"] = int(rng.integers(max(VectorOp) + 1, 64))
        elif choice == 1:
            fields["shuffle"] = int(rng.integers(generator.config.size, 32)) if generator.config.size < 32 else 0
        else:
            fields["to_vector"] = fields["to_tile"] = 0
    elif format.opcode == Opcode.MATRIX:
        fields["pad"] = 1
    elif rng.random() < 0.5:
        fields["format"] = 3
    else:
        fields["format"], fields["pack"] = int(DataFormat.BFP8), int(rng.integers(1, 4))
    return True


def _local(generator, format, fields):
    """A local address just beyond the end, or far."""
    rng, config = generator.rng, generator.config
    names = {Opcode.MATRIX: ("x", "w", "y"), Opcode.VECTOR: ("a", "b", "d", "tile")}.get(format.opcode, ("local",))
    name = names[int(rng.integers(len(names)))]
    tiles = name in ("x", "w", "tile") or name == "local" and fields["format"] == DataFormat.BFP8
    depth = config.tiles if tiles else config.vector_rows
    fields[name] = int(rng.choice([depth - 1, depth, depth + 1, 0, 0xFFFF, int(rng.integers(1 << 16))]))
    return True


def _window(generator, format, fields):
    """A memory address that is nowhere, or at an end of the address space."""
    if format.opcode not in (Opcode.LOAD, Opcode.STORE):
        return False
    rng, top = generator.rng, 1 << generator.config.address_width
    fields["address"] = int(rng.choice([0xFFFFFFFFFF, top - 1, top, top - 4, DATA + DATA_BYTES - 1,
                                        int(rng.integers(1 << 40)), generator.state.dram.size - 1]))
    return True


_FIELD_CHANGES = {"field": _field, "zero_count": _zero_count, "own_token": _own_token, "bad_code": _bad_code,
                  "local": _local, "window": _window}


def _twice(generator, case, kind):
    """One instruction with two changes: any, or a local address and a window that ends within its transfers."""
    rng = generator.rng
    decoded = [isa.decode(one) for one in instructions(case.program)]
    format, fields = decoded[index := int(rng.integers(len(decoded)))]
    transfer = format.opcode in (Opcode.LOAD, Opcode.STORE)
    names = ["local"] if transfer and rng.random() < 0.7 else rng.choice(list(_FIELD_CHANGES), 2, replace=False)
    if not all([_FIELD_CHANGES[name](generator, format, fields) for name in names]):
        return None
    changed = case.with_program(encode(decoded))
    if len(names) > 1:
        return changed
    step = Model(generator.config, changed).steps[index]
    end = int(rng.choice(step.starts)) + int(rng.integers(step._run_bytes + 1))
    return replace(changed, window=(0, end))


def _transfers(generator, case, opcode=None):
    """The (LOAD and STORE) instructions of a case with their first byte and first byte beyond."""
    model = Model(generator.config, case)
    for index, one in enumerate(instructions(case.program)):
        format, _ = isa.decode(one)
        if format.opcode in ((opcode,) if opcode else (Opcode.LOAD, Opcode.STORE)):
            yield index, model.steps[index]


def _window_edge(generator, case, kind):
    """The window ends exactly at, or one byte within, what an instruction touches."""
    found = list(_transfers(generator, case))
    if not found:
        return None
    _, step = found[int(generator.rng.integers(len(found)))]
    inside = int(generator.rng.integers(2))
    beyond_program = case.address + len(case.program)
    if generator.rng.random() < 0.5:
        # Base: the program has to be fetched, so it moves above the data.
        address = DATA + DATA_BYTES + case.address
        dram = case.dram.copy()
        dram[case.address:beyond_program] = 0
        moved = replace(case, dram=dram, address=address).with_program(case.program)
        return replace(moved, window=(step._first + inside, case.dram.size))
    return replace(case, window=(0, step._beyond - inside))


def _bus(generator, case, kind):
    opcode, on = (Opcode.LOAD, "read") if kind == "bus_read" else (Opcode.STORE, "write")
    found = list(_transfers(generator, case, opcode))
    if not found:
        return None
    rng = generator.rng
    _, step = found[int(rng.integers(len(found)))]
    at = int(rng.choice(step.starts)) + int(rng.integers(step._run_bytes))
    return replace(case, errors=((at, 1, on),))


def _non_finite(generator, case, kind):
    """A scalar or a stored row that is not finite."""
    rng = generator.rng
    decoded = [isa.decode(one) for one in instructions(case.program)]
    index = int(rng.integers(len(decoded)))
    format, fields = decoded[index]
    if format.opcode == Opcode.STORE and fields["format"] == DataFormat.FLOAT32:
        fields["format"] = int(DataFormat.UINT8)
    elif format.opcode == Opcode.VECTOR:
        scalar = _INF | int(rng.integers(2)) << 31 | int(rng.integers(2))
        fields |= {"op": int(VectorOp.FILL), "to_tile": 1, "scalar": scalar}
    else:
        return None
    return case.with_program(encode(decoded))


def _deadlock(generator, case, kind):
    """A wait more than there are posts."""
    rng = generator.rng
    decoded = [isa.decode(one) for one in instructions(case.program)]
    format, fields = decoded[int(rng.integers(len(decoded)))]
    free = [queue for queue in Queue if queue != format.queue and not fields["wait"] >> queue & 1]
    if not free:
        return None
    fields["wait"] |= 1 << int(rng.choice(free))
    return replace(case.with_program(encode(decoded)), watchdog=2_000)


def _deadlock_depth(generator, case, kind):
    """The token that a queue waits for is posted behind as many instructions as its queue holds, or one more."""
    rng, config = generator.rng, generator.config
    first, second = (int(queue) for queue in rng.permutation(len(Queue))[:2])
    fills = config.queue_depth + int(rng.integers(2))
    body = [smallest(first, DATA) for _ in range(fills)]
    body[0][1]["wait"] = 1 << second
    poster = smallest(second, DATA + DATA_BYTES // 2)
    poster[1]["post"] = 1 << first
    return replace(case.with_program(encode([*body, poster])), watchdog=2_000)


def smallest(queue, address):
    """An instruction of a queue that does little; each queue uses places of its own."""
    fields = {Queue.LOAD: {"address": address, "local": 0, "run": 1},
              Queue.MATRIX: {"rows": 1, "k_tiles": 1, "y": 1}, Queue.STORE: {"address": address, "local": 2, "run": 1},
              Queue.VECTOR: {"op": int(VectorOp.FILL), "to_vector": 1, "d": 3, "inner": 1, "outer": 1}}[queue]
    format = next(format for format in FORMATS.values() if format.queue == queue)
    return isa.decode(isa.encode(format.opcode, **fields))


def _fetch_window(generator, case, kind):
    """The window ends within the program; the data are below it."""
    rng = generator.rng
    address = DATA + DATA_BYTES + case.address
    dram = case.dram.copy()
    dram[case.address:case.address + len(case.program)] = 0
    moved = replace(case, dram=dram, address=address).with_program(case.program)
    end = address + int(rng.integers(-1, len(case.program) + 1))
    return replace(moved, window=(0, end))


def _fetch_error(generator, case, kind):
    at = case.address + int(generator.rng.integers(len(case.program)))
    return replace(case, errors=((at, 1, "read"),))


def _beyond(generator, case, kind):
    """The window reaches beyond the memory, where the bus answers with an error."""
    rng = generator.rng
    decoded = [isa.decode(one) for one in instructions(case.program)]
    candidates = [fields for format, fields in decoded if format.opcode in (Opcode.LOAD, Opcode.STORE)]
    if not candidates:
        return None
    fields = candidates[int(rng.integers(len(candidates)))]
    fields["address"] = case.dram.size - int(rng.integers(32)) + 16
    return replace(case.with_program(encode(decoded)), window=(0, 1 << generator.config.address_width))


def _high(generator, case, kind):
    """An address, of data or of the program, that differs by one or several high bits from one where memory is. The
    window ends there or one byte before, or is everything."""
    rng, width = generator.rng, generator.config.address_width
    lowest = (case.dram.size - 1).bit_length()
    offset = (1 << int(rng.integers(lowest, width)) if rng.random() < 0.5
              else int(rng.integers(1, 1 << width - lowest)) << lowest)
    inside = int(rng.integers(2))
    found = list(_transfers(generator, case))
    if rng.random() < 0.3 or not found:
        moved, beyond = replace(case, address=case.address + offset), case.address + len(case.program)
    else:
        index, step = found[int(rng.integers(len(found)))]
        decoded = [isa.decode(one) for one in instructions(case.program)]
        decoded[index][1]["address"] += offset
        moved, beyond = case.with_program(encode(decoded)), step._beyond
    return replace(moved, window=(0, 1 << width if rng.random() < 0.5 else beyond + offset - inside))


_CHANGES = {"window_edge": _window_edge, "bus_read": _bus, "bus_write": _bus, "non_finite": _non_finite,
            "deadlock": _deadlock, "deadlock_depth": _deadlock_depth, "fetch_window": _fetch_window,
            "fetch_error": _fetch_error, "beyond": _beyond, "high": _high, "twice": _twice}
