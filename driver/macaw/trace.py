"""What every instruction of a program waits for, and when it runs, as the RTL shows it."""

import json
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from macaw_hw import isa
from macaw_hw.events import EVENTS
from macaw_hw.isa import INSTRUCTION_BYTES, DataFormat, Opcode, Queue

from .device import Device
from .disassembler import disassemble

__all__ = ["CAUSES", "IN_FLIGHT", "STALLS", "Instruction", "Recording", "TracedDevice", "Wait", "chrome"]

_BITS = {name: bit for bit, name in enumerate(EVENTS)}
_MATRIX_KINDS = ("forward", "input gradient", "weight gradient")

IN_FLIGHT = 4
"""Instructions that a unit holds, `macaw_hw.sequencer.IN_FLIGHT`."""
CAUSES = ("fetch", "token", "unit")
"""Why the head of a queue waits: it is not there yet, for a token, for room in the unit."""
STALLS = {(queue, cause): text for cause, texts in (
    ("memory", ["bank of a local memory"] * 4),
    ("other", ["bus", "weights or accumulation", "quantizer or operands", "bus"]))
    for queue, text in zip(Queue, texts, strict=True)}
"""What a stalled unit waits for."""


@dataclass(frozen=True)
class Wait:
    """Cycles ``start`` to ``end`` (exclusive) that the head of a queue waits.

    Attributes
    ----------
    cause : str
        ``"token"``, ``"unit"`` (it has no room), or ``"fetch"`` (the queue is empty).
    source : Instruction or None
        The last instruction whose token was missing.
    """
    start: int
    end: int
    cause: str
    source: object = None


@dataclass(eq=False)
class Instruction:
    """One instruction of the program and what became of it; times are cycles since the doorbell.

    Attributes
    ----------
    index : int
        In the program.
    queue : Queue
    text : str
        Disassembled.
    kind : str
        Short: what sort of work it is for its unit.
    head, issued, done : int
        It became the head of its queue; went to the unit; had written everything.
    start : int
        Issued, and the instruction before it done.
    waits : list of Wait
        Between ``head`` and ``issued``.
    stalls : dict of str to int
        Cycles from ``start`` to ``done`` in which the unit made no progress: ``memory``, ``other``.
    """
    index: int
    queue: Queue
    text: str
    kind: str
    wait: int
    post: int
    head: int = 0
    issued: int = 0
    start: int = 0
    done: int = 0
    waits: list = field(default_factory=list)
    stalls: dict = field(default_factory=dict)


class TracedDevice(Device):
    """A `Device` on the RTL that records its last run in ``recording``. Takes the options of the Verilator backend."""

    def __init__(self, config="n16", **options):
        self.recording = None
        super().__init__(config, backend="verilator", observe=True, **options)

    def run(self, program, max_cycles=None):
        self.backend.take_events()
        counters = super().run(program, max_cycles)
        self.recording = Recording(program, *self.backend.take_events())
        return counters


class Recording:
    """One run of a program.

    Parameters
    ----------
    program : macaw.program.Program
    times, events : ndarray
        As `take_events` of the Verilator backend gives them, of one run.

    Attributes
    ----------
    cycles : int
        From doorbell to interrupt.
    instructions : list of Instruction
        In program order.
    """

    def __init__(self, program, times, events):
        every = np.repeat(events[:-1], np.diff(times))
        self._events = every[(every >> _BITS["running"] & 1).astype(bool)]
        self.config, self.cycles = program.config, len(self._events)
        encoded = program.to_bytes()
        self.instructions = [_decoded(index, encoded[index * INSTRUCTION_BYTES:(index + 1) * INSTRUCTION_BYTES])
                             for index in range(len(program))]
        self.by_queue = {queue: [i for i in self.instructions if i.queue == queue] for queue in Queue}
        for queue, own in self.by_queue.items():
            issued, done = (np.flatnonzero(self.event(queue, name)) for name in ("issued", "done"))
            if not len(issued) == len(done) == len(own):
                raise ValueError(f"the {queue.name} queue must show {len(own)} instructions, "
                                 f"not {len(issued)} issued and {len(done)} done")
            head = before = 0
            stalled = {name: np.insert(np.cumsum(self.event(queue, f"wait_{name}")), 0, 0)
                       for name in ("memory", "other")}
            for instruction, at, end in zip(own, issued.tolist(), done.tolist(), strict=True):
                instruction.head, instruction.issued, instruction.done = head, at, end
                instruction.start = max(at, before)
                instruction.stalls = {name: int(total[end] - total[instruction.start])
                                      for name, total in stalled.items()}
                head, before = at + 1, end
        sources = self.token_sources()
        for queue, own in self.by_queue.items():
            causes = self._causes(queue)
            for instruction in own:
                instruction.waits = list(_waits(instruction, causes, sources[instruction.index]))

    def event(self, queue, name):
        """A bit of `macaw_hw.events.EVENTS` in every cycle, as an array of bool."""
        return (self._events >> _BITS[f"{queue.name.lower()}_{name}"] & 1).astype(bool)

    @cached_property
    def states(self):
        """For each queue, what its unit does: a dict of names to arrays of bool, of which one is set in each cycle.

        ``memory`` and ``other`` are stalls. Where no instruction is in execution, ``token`` says that the next waits
        for a token, and ``idle`` that there is none. All other names are kinds of work.
        """
        result = {}
        for queue, own in self.by_queue.items():
            busy, waiting = self.event(queue, "busy"), self.event(queue, "waiting")
            memory = busy & self.event(queue, "wait_memory")
            other = busy & ~memory & self.event(queue, "wait_other")
            kinds = sorted({instruction.kind for instruction in own})
            done = self.event(queue, "done")
            oldest = np.minimum(np.cumsum(done) - done, len(own) - 1)
            kind = np.array([kinds.index(i.kind) for i in own], int)[oldest] if own else np.zeros(self.cycles, int)
            work = busy & ~memory & ~other
            result[queue] = {**{name: work & (kind == number) for number, name in enumerate(kinds)},
                             "memory": memory, "other": other, "token": ~busy & waiting, "idle": ~busy & ~waiting}
        return result

    def token_sources(self):
        """For each instruction, those that post the tokens it takes."""
        posts = {(a, b): [i for i in self.by_queue[a] if i.post >> b & 1] for a in Queue for b in Queue}
        taken = dict.fromkeys(posts, 0)
        sources = []
        for instruction in self.instructions:
            own = []
            for queue in Queue:
                if instruction.wait >> queue & 1:
                    pair = queue, instruction.queue
                    own.append(posts[pair][taken[pair]])
                    taken[pair] += 1
            sources.append(own)
        return sources

    def _causes(self, queue):
        """For each cycle the index in `CAUSES` of why a head of the queue would wait."""
        issued, done = (np.cumsum(self.event(queue, name)) - self.event(queue, name) for name in ("issued", "done"))
        unit = self.event(queue, "offered") | (issued - done >= IN_FLIGHT)
        return np.where(self.event(queue, "waiting"), 1, np.where(unit, 2, 0))


def _waits(instruction, causes, sources):
    """The cycles from head to issue, in pieces of one cause."""
    part = causes[instruction.head:instruction.issued]
    edges = [*np.flatnonzero(np.diff(part, prepend=-1)).tolist(), len(part)]
    last = max(sources, key=lambda i: i.done, default=None)
    for start, end in zip(edges, edges[1:], strict=False):
        cause = CAUSES[part[start]]
        yield Wait(instruction.head + start, instruction.head + end, cause, last if cause == "token" else None)


def _decoded(index, encoded):
    format, fields = isa.decode(encoded)
    return Instruction(index, format.queue, disassemble((format, fields)), _kind(format, fields), fields["wait"],
                       fields["post"])


def _kind(format, fields):
    if format.opcode == Opcode.MATRIX:
        return _MATRIX_KINDS[2 if fields["x_transpose"] else 1 if fields["w_transpose"] else 0]
    if format.opcode == Opcode.VECTOR:
        return "quantized" if fields["to_tile"] else "float32"
    return DataFormat(fields["format"]).name.lower()


def chrome(recording):
    """The recording as text in the trace event format that Perfetto and chrome://tracing open; 1 us is one cycle.

    Each queue has three rows: what its unit executes, why the head of the queue waits, and where the unit stalls.
    """
    events = []
    def span(queue, row, name, start, end, **arguments):
        if end > start:
            events.append({"ph": "X", "pid": int(queue) + 1, "tid": row, "name": name, "ts": start,
                           "dur": end - start, "args": arguments})

    for queue, own in recording.by_queue.items():
        name = queue.name.lower()
        for row, title in enumerate((f"{name} queue", name, f"{name}: head of the queue", f"{name}: stalls")):
            events.append({"ph": "M", "pid": int(queue) + 1, "tid": row,
                           "name": "thread_name" if row else "process_name", "args": {"name": title}})
        for i in own:
            span(queue, 1, i.kind, i.start, i.done + 1, index=i.index, instruction=i.text, issued=i.issued,
                 **{f"cycles stalled ({cause})": cycles for cause, cycles in i.stalls.items() if cycles})
            for wait in i.waits:
                about = {"token": f"token from {wait.source.queue.name.lower()}" if wait.source else "token",
                         "unit": "unit has no room", "fetch": "not fetched"}[wait.cause]
                posted = {"posted by": f"{wait.source.index}  {wait.source.text}"} if wait.source else {}
                span(queue, 2, about, wait.start, wait.end, index=i.index, instruction=i.text, **posted)
        for cause in ("memory", "other"):
            edges = np.flatnonzero(np.diff(recording.states[queue][cause].astype(np.int8), prepend=0, append=0))
            for start, end in edges.reshape(-1, 2).tolist():
                span(queue, 3, STALLS[queue, cause], start, end)
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns",
                       "otherData": {"unit": "1 us is one cycle", "cycles": recording.cycles}})
