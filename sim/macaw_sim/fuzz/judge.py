"""What may happen to a program that may fault, and whether a device did just that.

A program without a fault has one result. Where instructions of several queues fault, timing decides which
does first. The model here runs everything that can run while each faulting instruction stays where it is, as if it
never ended: what then stands at the head of a queue is what a device may report, and nothing else. An instruction
that breaks several rules may be reported for any of them.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from macaw.disassembler import disassemble
from macaw.footprint import footprint
from macaw_hw import isa
from macaw_hw.config import Config
from macaw_hw.isa import TOKEN_LIMIT, DataFormat, Fault, FaultUnit, Opcode, Queue
from macaw_hw.registers import REGISTERS

from ..emulator.device import Emulator
from ..emulator.program import Program
from ..emulator.state import DeviceFault, State
from ..emulator.synchronization import check
from .case import DUMP, Case, Local, Mismatch, instructions, run
from .generator import dump_case, fill_case

__all__ = ["Expectation", "Model", "conclude", "judge", "prepare"]

_IN_UNIT = 4
"""Instructions that a unit takes out of its queue at most."""
_LOCAL = 1 << 16
_BUS_ERRORS = {Opcode.LOAD: Fault.BUS_READ, Opcode.STORE: Fault.BUS_WRITE}
_DONE, _FAULT = (REGISTERS["status"].bits[i].mask for i in (1, 2))


@dataclass
class Expectation:
    """What a device may report, and what it may leave in memory.

    Attributes
    ----------
    reports : set of (Fault, FaultUnit, int)
        Code, unit, instruction. (NONE, LOAD, 0) when the program ends without fault.
    total : int
        Instructions that can be completed.
    order : list of int
        Indices of all that can start.
    wrong : ndarray
        Addresses where memory is what no order of execution leaves.
    """
    reports: set
    total: int
    order: list
    wrong: np.ndarray = field(repr=False)

    @property
    def clean(self) -> bool:
        """Whether the program ends without fault."""
        return (Fault.NONE, FaultUnit.LOAD, 0) in self.reports


@dataclass(frozen=True)
class _Touched:
    """In place of the model ``step`` of a faulting instruction: what it may have accessed before the fault."""
    step: object
    places: tuple

    def accesses(self):
        yield from self.places

    def hazard(self):
        return None

    def overtakes(self, before):
        return self.step.overtakes(before)


class Model:
    """The maximal execution of a case.

    Parameters
    ----------
    fetched : (bytes, Fault), optional
        The instructions that the device fetches, and why no other follows, where memory does not tell.
    struck : int, optional
        An instruction that the bus answers with an error, whatever it touches.

    Raises
    ------
    SynchronizationError
        When tokens leave the order of conflicting accesses open, so that nothing can be expected.
    """

    def __init__(self, config: Config, case: Case, *, fetched: tuple[bytes, Fault] | None = None,
                 struck: int | None = None):
        self.config, self.case, self._struck = config, case, struck
        self.state = State(config, case.dram.copy())
        self.state.window = case.window or (0, case.dram.size)
        self.state.bus_errors = list(self._errors())
        if case.local is not None:
            case.local.put(self.state)
        emulator = Emulator(config, self.state.dram, check=False)
        emulator.state = self.state
        if fetched is None:
            fetched = emulator._fetch(case.address, len(case.program) // isa.INSTRUCTION_BYTES)
        content, self._missing = fetched
        self._raw = instructions(content)
        self.program = Program(content, config)
        self.steps = list(self.program.steps)

    def _errors(self):
        kinds = {"read": {Fault.BUS_READ}, "write": {Fault.BUS_WRITE}, "both": {Fault.BUS_READ, Fault.BUS_WRITE}}
        for address, length, on in self.case.errors:
            yield address, address + length, frozenset(kinds[on])

    def expect(self, final: np.ndarray | None = None) -> Expectation:
        """Run everything that can run; ``final`` is the memory that a device left."""
        dram = self.state.dram
        final = dram if final is None else final[:dram.size]
        possible, between = final == dram, np.zeros(dram.size, bool)
        queues: list[deque[int]] = [deque() for _ in Queue]
        stuck: list[int | None] = [None for _ in Queue]
        tokens = np.zeros((len(Queue), len(Queue)), int)
        headers, order, reports, fetched, done = self.program.headers, [], set(), 0, 0
        while True:
            while fetched < len(headers):
                queue = headers[fetched].queue
                room = self.config.queue_depth + (_IN_UNIT if stuck[queue] is not None else 0)
                if len(queues[queue]) >= room:
                    break
                queues[queue].append(fetched)
                fetched += 1
            ready = [q[0] for target, q in enumerate(queues) if q and stuck[target] is None and all(
                tokens[source, target] for source in Queue if headers[q[0]].wait >> source & 1)]
            if not ready:
                break
            index = min(ready)
            header = headers[index]
            queues[header.queue].popleft()
            for source in Queue:
                tokens[source, header.queue] -= header.wait >> source & 1
            order.append(index)
            codes = self._run(index)
            if not codes:
                targets = [target for target in Queue if header.post >> target & 1]
                if any(tokens[header.queue, target] == TOKEN_LIMIT for target in targets):
                    codes = {Fault.TOKENS}
                    done += 1
                for target in targets:
                    tokens[header.queue, target] += 1
            if codes:
                stuck[header.queue] = index
                reports |= {(code, FaultUnit(header.queue), index) for code in codes}
                possible |= self._reach(index)
                continue
            done += 1
            if headers[index].queue == Queue.STORE:
                possible |= final == dram
                if self.steps[index].overlapping:
                    between |= self._reach(index)
        faulted = {index for index in stuck if index is not None}
        for queue in (Queue.LOAD, Queue.STORE):
            if stuck[queue] is not None:
                for index in self._followers(queues[queue], headers, tokens):
                    order.append(index)
                    if self._run(index):
                        faulted.add(index)
                    possible |= (final == dram) | self._reach(index)
        if reports:
            # The fault of another queue may cut off a store that writes some bytes more than once.
            possible |= between
        else:
            reports = {self._end(queues, fetched, headers)}
        self._check(order, faulted)
        return Expectation(reports, done, order, np.flatnonzero(~possible))

    @staticmethod
    def _followers(queue, headers, tokens):
        """What a unit of the DMA may have begun behind its faulting instruction: several are under way at a time."""
        for index in list(queue)[:_IN_UNIT - 1]:
            waits = [source for source in Queue if headers[index].wait >> source & 1]
            if not all(tokens[source, headers[index].queue] for source in waits):
                return
            for source in waits:
                tokens[source, headers[index].queue] -= 1
            yield index

    def _end(self, queues, fetched, headers):
        heads = [queue[0] for queue in queues if queue]
        if heads:
            return Fault.WATCHDOG, FaultUnit.SEQUENCER, min(heads)
        fault = Fault.ILLEGAL_INSTRUCTION if self.program.illegal else self._missing
        if fault != Fault.NONE:
            return fault, FaultUnit.SEQUENCER, len(headers)
        return Fault.NONE, FaultUnit.LOAD, 0

    def _run(self, index) -> set:
        """Run an instruction; the faults it may be reported for."""
        step, (format, fields) = self.steps[index], isa.decode(self._raw[index])
        codes = {step.fault} - {Fault.NONE}
        if format.opcode in (Opcode.LOAD, Opcode.STORE):
            codes |= self._memory_faults(step, format, fields)
        if index == self._struck:
            codes.add(_BUS_ERRORS[format.opcode])
        if not codes:
            try:
                step.run(self.state)
            except DeviceFault as stop:
                return {stop.code}
        elif (format.opcode == Opcode.VECTOR and fields["to_tile"]
                or format.opcode == Opcode.STORE and fields["format"] == DataFormat.UINT8):
            codes.add(Fault.NON_FINITE)
        return codes

    def _memory_faults(self, step, format, fields):
        state, codes = self.state, set()
        inside = np.array([state.inside(first, first + step._run_bytes) for first in step.starts.tolist()])
        if not inside.all():
            codes.add(Fault.WINDOW)
        error = _BUS_ERRORS[format.opcode]
        if inside.any() and not state.answers(step.starts[inside], step._run_bytes, error):
            codes.add(error)
        return codes

    def _reach(self, index):
        """Bytes that a faulting STORE may have written before the fault."""
        mask = np.zeros(self.state.dram.size, bool)
        step = self.steps[index]
        if self.program.headers[index].queue == Queue.STORE:
            for first in step.starts.tolist():
                if self.state.inside(first, first + step._run_bytes):
                    mask[first:first + step._run_bytes] = True
        return mask

    def _check(self, order, faulted):
        steps = list(self.steps)
        for index in faulted:
            touched = footprint(*isa.decode(self._raw[index]), self.config)
            memory = [(space, (np.array([low]), np.array([high])), written) for space, parts, written in
                      (("memory", touched.memory_read, False), ("memory", touched.memory_written, True))
                      for low, high in parts]
            local = []
            for space, places, limit, written in (
                    ("vector row", touched.rows_read, self.config.vector_rows, False),
                    ("vector row", touched.rows_written, self.config.vector_rows, True),
                    ("tile", touched.tiles_read, self.config.tiles, False),
                    ("tile", touched.tiles_written, self.config.tiles, True)):
                places = np.unique(places % _LOCAL)
                local.append((space, places[places < limit], written))
            steps[index] = _Touched(steps[index], (*memory, *local))
        check(self.program.headers, steps, order, self.config, lambda index: disassemble(self._raw[index]))


def judge(device, case: Case, ranges=None, *, dump: bool = True) -> tuple[Expectation, dict]:
    """Run a case on a device; raise `Mismatch` unless it ends as the model says.

    The local memories are set first where the case says what they hold (only the ``ranges`` of them if given),
    and compared afterwards if the program ended without fault and ``dump`` is set.

    Returns
    -------
    Expectation, dict
        What was expected, and the registers that the device ended with.
    """
    config = device.config
    prepare(device, case, ranges)
    registers = run(device, case)
    model = Model(config, case)
    expected = conclude(device, model, registers)
    _emulate(config, case, expected)
    if expected.clean and dump and case.local is not None:
        _compare_local(device, Local.of(model.state), ranges)
    return expected, registers


def prepare(device, case: Case, ranges=None) -> None:
    """Set the local memories (only the ``ranges`` of them if given) where the case says what they hold."""
    if case.local is not None:
        registers = run(device, fill_case(device.config, case.local, ranges))
        if registers["status"] != _DONE:
            raise Mismatch(f"filling the local memories ended with {registers}")


def conclude(device, model: Model, registers: dict[str, int]) -> Expectation:
    """What was expected of a program that has ended with ``registers``; raise `Mismatch` unless they, and the memory
    of ``device``, are as the model says."""
    case, expected = model.case, model.expect(device.dram)
    report = (Fault(registers["fault_code"]), FaultUnit(registers["fault_unit"]), registers["fault_instruction"])
    if report not in expected.reports:
        raise Mismatch(f"reported {_text(report)}, expected {' or '.join(map(_text, sorted(expected.reports)))}")
    if registers["status"] != (_DONE if expected.clean else _FAULT):
        raise Mismatch(f"status is {registers['status']:#x} with the report {_text(report)}")
    if registers["instructions"] > expected.total or expected.clean and registers["instructions"] != expected.total:
        raise Mismatch(f"{registers['instructions']} instructions completed, expected {expected.total}")
    if expected.wrong.size:
        at = int(expected.wrong[0])
        raise Mismatch(f"{expected.wrong.size} bytes of memory are wrong, the first at {at:#x}: "
                       f"{device.dram[at]:#04x}, expected {model.state.dram[at]:#04x}, before {case.dram[at]:#04x}")
    return expected


def _emulate(config, case, expected):
    """The emulator's own report must be one of those expected, too."""
    model = Model(config, case)
    emulator = Emulator(config, model.state.dram, check=False)
    emulator.state = model.state
    outcome = emulator.run(case.address, len(case.program) // isa.INSTRUCTION_BYTES)
    report = (outcome.fault, outcome.unit, outcome.instruction)
    if report not in expected.reports:
        raise Mismatch(f"the emulator reports {_text(report)}, expected "
                       f"{' or '.join(map(_text, sorted(expected.reports)))}")


def _compare_local(device, local, ranges):
    dump, image = dump_case(device.config, ranges), fill_case(device.config, local, ranges).dram
    run(device, dump)
    different = np.flatnonzero(device.dram[DUMP:image.size] != image[DUMP:])
    if different.size:
        raise Mismatch(f"{different.size} bytes of the local memories differ, the first at offset "
                       f"{int(different[0]):#x} of the dump")


def _text(report):
    code, unit, index = report
    return f"{code.name} of {unit.name} at instruction {index}" if code else "no fault"
