"""Instruction queues: order, tokens before issue, every completion matched with its instruction."""

from amaranth.hdl import Cat, Const, Signal, Value, unsigned
from amaranth.lib import data
from macaw_hw import sequencer
from macaw_hw.config import Config
from macaw_hw.isa import FORMATS, Fault, FaultUnit, Field, Format, Opcode, Queue, violations

from .bench import proof
from .fifos import follow
from .loads import shallow

__all__ = ["instruction_queue", "instruction_queue_index", "instruction_queue_progress",
           "sequencer_dispatch"]

_CONFIG = Config(size=4, address_width=20, queue_depth=4)
_NARROW = Format(Opcode.LOAD, "", "", (Field("payload", unsigned(1), ""),))
"""An instruction with one bit beside its header: queues do not look at the rest."""


def _queue(bench, config=_CONFIG):
    m = bench.m
    unit = sequencer.InstructionQueue(config=config, format=_NARROW)
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


@proof("InstructionQueue of 2, and 2 in the unit: the index reported is that of the oldest instruction that is not "
       "done", reach=16)
def instruction_queue_index(bench):
    with shallow(sequencer, IN_FLIGHT=2):
        unit, _, _ = _queue(bench, Config(size=4, address_width=20, queue_depth=2))
    follow(bench, "indices", unit.i.valid & unit.i.ready, unit.i.p.index[0], unit.unit.done, unit.index[0], 4)


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


@proof("Sequencer: instructions enter the queue of their opcode, in program order, each once, and only legal ones; a "
       "fault of its own waits until all before it are done", reach=12)
def sequencer_dispatch(bench):
    m = bench.m
    unit = sequencer.Sequencer(config=Config(size=4, address_width=20, queue_depth=2))
    names = [queue.name.lower() for queue in Queue]
    inner = bench.add("sequencer", unit, "i", *(f"{name}.done" for name in names))
    bench.offer(unit.i.valid, unit.i.ready, unit.i.payload)
    entered = []
    for queue, name in zip(Queue, names, strict=True):
        entry, port = getattr(inner.submodules, f"{name}_queue").i, getattr(unit, name)
        given = port.instruction.valid & port.instruction.ready
        flying = Signal(range(sequencer.IN_FLIGHT + 1), name=f"{name}_flying")
        m.d.comb += port.done.eq(bench.free(1, f"{name} done") & (flying != 0))
        m.d.sync += flying.eq(flying + given - port.done)
        format = FORMATS[Opcode[queue.name]]
        fields = data.View(format.layout, Cat(Const(format.opcode, 4), entry.p.fields))
        raw = {field.name: Value.cast(fields[field.name]) for field in format.fields}
        broken = Cat(rule for _, rule in violations(format, raw, 4))
        bench.check(f"{name}: only legal instructions enter", ~entry.valid | ~broken.any())
        bench.reach(f"{name}: an instruction enters", entry.valid & entry.ready)
        entered.append(entry.valid & entry.ready)
    entries = [getattr(inner.submodules, f"{name}_queue").i.p for name in names]
    opcode, sample, index = Signal(4), Signal(4), Signal.like(entries[0].index)
    for queue, entry, enters in zip(Queue, entries, entered, strict=True):
        with m.If(enters):
            m.d.comb += [opcode.eq(Opcode[queue.name]), sample.eq(entry.fields[4:8]), index.eq(entry.index)]
    some = Cat(entered).any()
    count = Signal.like(index)
    m.d.sync += count.eq(count + some)
    inside = follow(bench, "instructions", unit.i.valid & unit.i.ready, Cat(unit.i.p.bits[:4], unit.i.p.bits[8:12]),
                    some, Cat(opcode, sample), 1)
    bench.check("one queue at a time", sum(entered) <= 1)
    bench.check("indices count", ~some | (index == count))
    own = unit.fault_unit == FaultUnit.SEQUENCER
    fault = unit.fault != Fault.NONE
    past = bench.past
    bench.check("the first fault stays", ~past(fault) | (Cat(unit.fault, unit.fault_unit, unit.fault_index)
                                                        == past(Cat(unit.fault, unit.fault_unit, unit.fault_index))))
    bench.check("nothing enters behind an instruction that cannot run", ~(fault & own) | ~some)
    bench.check("a fault of its own waits for all before it", ~(fault & own) | past(fault) | past(
        Cat(getattr(inner.submodules, f"{name}_queue").empty for name in names).all()))
    bench.check("empty only if nothing is inside", ~unit.empty | (inside == 0))
    bench.reach("a fault of its own behind another instruction", fault & own & (unit.fault_index == 1))
