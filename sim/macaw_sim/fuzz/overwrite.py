"""Programs that change while they run: overwritten by the host, or by their own stores."""

from dataclasses import replace

import numpy as np
from macaw.footprint import footprint
from macaw_hw import isa
from macaw_hw.isa import INSTRUCTION_BYTES, DataFormat, Fault, FaultUnit, Opcode, Queue
from macaw_hw.registers import REGISTERS

from ..emulator.program import Program
from ..emulator.synchronization import SynchronizationError
from .case import DATA, DATA_BYTES, Case, Mismatch, instructions, settle, start, write
from .generator import Generator
from .illegal import MAX_WORK, work
from .judge import Model, conclude
from .tokens import encode

__all__ = ["by_host", "by_itself", "changed"]

_PATIENCE = 100_000
_CARRIED = 8
_ABORT = REGISTERS["control"].bits[1].mask
_DONE, _FAULT, _ABORTED = (bits.mask for bits in REGISTERS["status"].bits[1:])
_EXCHANGED = {Opcode.VECTOR: ("op", "scalar", "shuffle", "a", "b"), Opcode.LOAD: ("address",),
              Opcode.MATRIX: ("accumulate", "x_transpose", "x", "w"), Opcode.STORE: ("local",)}


def changed(generator: Generator, case: Case) -> bytes:
    """Another program of the same length: one that does other things, one with a hole, or rubbish."""
    rng, content = generator.rng, bytearray(case.program)
    first = INSTRUCTION_BYTES * int(rng.integers(len(content) // INSTRUCTION_BYTES))
    kind = int(rng.integers(5))
    if kind == 0:
        return _other_values(generator, case)
    if kind == 1:
        content[first:] = bytes(len(content) - first)
    elif kind == 2:
        content[first:first + INSTRUCTION_BYTES] = rng.bytes(INSTRUCTION_BYTES)
    elif kind == 3:
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
    else:
        # The same instructions in another order.
        parts = instructions(case.program)
        content = bytearray(b"".join(parts[i] for i in rng.permutation(len(parts))))
    return bytes(content)


def _other_values(generator, case):
    """Every instruction keeps its kind and its tokens, and gets some fields of a new one."""
    decoded = [isa.decode(one) for one in instructions(case.program)]
    for format, fields in decoded:
        other = generator.fields.draw(format.opcode) or {}
        names = [name for name in _EXCHANGED[Opcode(format.opcode)] if name in other]
        if names:
            name = str(generator.rng.choice(names))
            fields[name] = other[name]
    return encode(decoded)


def by_host(rtl, generator: Generator, case: Case) -> str:
    """The host overwrites the program at some time: "done", or "stopped" by a fault or, if what came out of it would
    run for very long, by an abort."""
    start(rtl, case, rtl.watch)
    # About as long as the fetch takes where nothing holds it up.
    lines = len(case.program) // INSTRUCTION_BYTES
    rtl.wait_interrupt(int(generator.rng.integers(1, lines * (4 + INSTRUCTION_BYTES // generator.config.bus_bytes))))
    program = changed(generator, case)
    case = case.with_program(program)
    rtl.dram[case.address:case.address + len(program)] = np.frombuffer(program, np.uint8)
    return _end(rtl, case, generator.fields.regions)


def by_itself(rtl, generator: Generator, case: Case) -> str:
    """Two instructions are put before a program; they overwrite some of it. Results as of `by_host`."""
    rng, config = generator.rng, generator.config
    lines = len(case.program) // INSTRUCTION_BYTES
    count = int(rng.integers(1, min(lines, _CARRIED) + 1))
    place, row = DATA + DATA_BYTES, config.vector_bank_rows // 2  # which nothing else uses
    target = case.address + INSTRUCTION_BYTES * (2 + int(rng.integers(lines - count + 1)))
    fields = {"format": int(DataFormat.FLOAT32), "local": row, "run": count * INSTRUCTION_BYTES // 4}
    before = (isa.encode(Opcode.LOAD, address=place, post=1 << Queue.STORE, **fields)
              + isa.encode(Opcode.STORE, address=target, wait=1 << Queue.LOAD, **fields))
    content = changed(generator, case)[-count * INSTRUCTION_BYTES:]
    case = replace(case.with_program(before + case.program), window=None)
    case.dram[place:place + len(content)] = np.frombuffer(content, np.uint8)
    start(rtl, case, rtl.watch)
    rows = [*generator.fields.regions["row"], (row, row + count * INSTRUCTION_BYTES // config.row_bytes)]
    return _end(rtl, case, generator.fields.regions | {"row": rows})


def _end(rtl, case, ranges):
    """Wait for the end; judge it by the instructions that the device was given."""
    ended = rtl.wait_interrupt(_PATIENCE)
    given = rtl.watched().fetched
    if len(given) > len(case.program):
        raise Mismatch(f"{len(given)} bytes of a program of {len(case.program)} are fetched")
    given += case.program[len(given):]
    endless = _endless(given, rtl.config)
    if endless and not ended:
        write(rtl, "control", _ABORT)
    registers = settle(rtl)
    try:
        if endless or not _known(given, rtl.config, ranges):
            _plausible(rtl, case, given, registers)
        else:
            conclude(rtl, Model(rtl.config, case, fetched=(given, Fault.NONE)), registers)
    except SynchronizationError:
        _plausible(rtl, case, given, registers)
    return "done" if registers["status"] == _DONE else "stopped"


def _endless(program, config):
    for one in instructions(program):
        try:
            format, fields = isa.decode(one)
        except ValueError:
            return False
        if work(format, fields, config) > MAX_WORK:
            return True
    return False


def _known(program, config, ranges):
    """Whether a program reads nothing of the local memories but what was filled before."""
    for one in instructions(program):
        try:
            touched = footprint(*isa.decode(one), config)
        except ValueError:
            return True
        for kind, places in (("row", touched.rows_read), ("tile", touched.tiles_read)):
            if not np.logical_or.reduce([(low <= places) & (places < high) for low, high in ranges[kind]]).all():
                return False
    return True


def _plausible(rtl, case, given, registers):
    """Where timing decides the result: the report is possible, and nothing changes that no store reaches."""
    program = Program(given, rtl.config)
    code, unit, index = (registers[f"fault_{name}"] for name in ("code", "unit", "instruction"))
    if registers["status"] == _FAULT:
        queue = program.headers[index].queue if index < len(program.headers) else FaultUnit.SEQUENCER
        if not code or index >= len(given) // INSTRUCTION_BYTES or unit not in (queue, FaultUnit.SEQUENCER):
            raise Mismatch(f"no program ends with {registers}")
    elif code or registers["status"] not in (_DONE, _ABORTED):
        raise Mismatch(f"no program ends with {registers}")
    if registers["instructions"] > len(program.headers):
        raise Mismatch(f"{registers['instructions']} instructions of {len(program.headers)} completed")
    base, limit = case.window or (0, rtl.dram.size)
    kept = rtl.dram == case.dram
    for header, step in zip(program.headers, program.steps, strict=True):
        if header.queue == Queue.STORE:
            kept[max(base, step._first):max(base, min(limit, step._beyond))] = True
    if not kept.all():
        raise Mismatch(f"memory at {int(np.argmin(kept)):#x} changes, which no store reaches")
