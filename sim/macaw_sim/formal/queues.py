"""Instruction queues: order, tokens before issue, every completion matched with its instruction."""

from amaranth.hdl import Signal, unsigned
from macaw_hw import sequencer
from macaw_hw.config import Config
from macaw_hw.isa import Field, Format, Opcode

from .bench import proof
from .fifos import follow

__all__ = ["instruction_queue", "instruction_queue_index", "instruction_queue_progress"]

_CONFIG = Config(size=4, address_width=20, queue_depth=4)
_NARROW = Format(Opcode.LOAD, "", "", (Field("payload", unsigned(1), ""),))
"""An instruction with one bit beside its header: queues do not look at the rest."""


def _queue(bench):
    m = bench.m
    unit = sequencer.InstructionQueue(config=_CONFIG, format=_NARROW)
    bench.add("queue", unit, "i", "permit", "unit.done")
    bench.offer(unit.i.valid, unit.i.ready, unit.i.payload)
    instruction = unit.unit.instruction
    # Tokens that are there stay until the head takes them; a unit completes what it was given.
    kept = bench.past(unit.permit & unit.wait.any() & ~unit.issue)
    flying = Signal(range(sequencer.IN_FLIGHT + 2))
    m.d.comb += [
        unit.permit.eq(kept | bench.free(1, "tokens") | ~unit.wait.any()),
        unit.unit.done.eq(bench.free(1, "completes") & (flying != 0)),
    ]
    m.d.sync += flying.eq(flying + unit.issue - unit.unit.done)
    return unit, instruction, flying


@proof("InstructionQueue: instructions reach the unit in order, only with their tokens, at most 4 at a time; each "
       "completion posts what its instruction says", reach=16)
def instruction_queue(bench):
    unit, instruction, flying = _queue(bench)
    fields, _index = instruction.p, unit.i.p.index
    inside = follow(bench, "waiting", unit.i.valid & unit.i.ready, unit.i.p.fields[-1], unit.issue,
                    fields.payload, _CONFIG.queue_depth)
    follow(bench, "in the unit", unit.issue, fields.post[0], unit.unit.done, unit.post[0], sequencer.IN_FLIGHT)
    bench.check("issued only with its tokens", ~unit.issue | unit.permit)
    bench.check("what is issued waits for its own tokens", ~unit.issue | (unit.wait == fields.wait))
    bench.check("issue is a transfer to the unit", unit.issue == (instruction.valid & instruction.ready))
    bench.check("blocked only if the head lacks a token", ~unit.blocked | (~unit.permit & (inside != 0)))
    bench.reach("blocked", unit.blocked)
    bench.stable("instruction", instruction.valid, instruction.ready, fields)
    bench.check("empty exactly if nothing waits or is in the unit", unit.empty == ((inside == 0) & (flying == 0)))


@proof("InstructionQueue: the index reported is that of the oldest instruction that is not done", reach=16)
def instruction_queue_index(bench):
    unit, instruction, flying = _queue(bench)
    follow(bench, "indices", unit.i.valid & unit.i.ready, unit.i.p.index[:2], unit.unit.done, unit.index[:2],
           _CONFIG.queue_depth + sequencer.IN_FLIGHT)


@proof("InstructionQueue: a head whose tokens are there is issued within 4 cycles of a unit with room", reach=16)
def instruction_queue_progress(bench):
    unit, instruction, flying = _queue(bench)
    bench.assume(instruction.ready)
    waits = Signal(8)
    inside = Signal(range(_CONFIG.queue_depth + 2))
    bench.m.d.sync += inside.eq(inside + (unit.i.valid & unit.i.ready) - unit.issue)
    bench.within("issue", 4, (inside != 0) & unit.permit & (flying != sequencer.IN_FLIGHT), unit.issue)
    bench.within("room in the queue", 4, (inside == 0), unit.i.ready)
    bench.reach("full", (inside == _CONFIG.queue_depth) & (waits == 0))
