"""Instruction queues: order, tokens before issue, every completion matched with its instruction."""

from amaranth.hdl import Cat, Const, Mux, Signal, Value, unsigned
from amaranth.lib import data
from amaranth.lib.memory import Memory
from macaw_hw import sequencer
from macaw_hw.config import Config
from macaw_hw.isa import FORMATS, INDEX_WIDTH, Fault, FaultUnit, Field, Format, Opcode, Queue, violations

from .bench import proof
from .fifos import follow
from .loads import shallow

__all__ = ["instruction_queue", "instruction_queue_index", "instruction_queue_progress",
           "sequencer_dispatch"]

_CONFIG = Config(size=4, address_width=20, queue_depth=2)
_NARROW = Format(Opcode.LOAD, "", "", (Field("payload", unsigned(1), ""),))
"""An instruction with one bit beside its header: queues do not look at the rest."""


def _queue(bench, config=_CONFIG):
    """The queue with its ring. Returns it, how many instructions are in the unit, what enters, and a function that
    gives what lies at a place of the ring."""
    m = bench.m
    unit = sequencer.InstructionQueue(config=config, format=_NARROW)
    bench.add("queue", unit, "enter", "granted", "row", "permit", "unit.done", "keep")
    m.submodules.ring = ring = Memory(shape=len(unit.row), depth=sequencer.ring_rows(config), init=[])
    write, read = ring.write_port(), ring.read_port()
    granted = unit.wanted & bench.free(1, "granted")
    m.d.comb += [
        unit.enter.eq(unit.room & bench.free(1, "enters")), unit.keep.eq(0),
        write.addr.eq(unit.tail), write.en.eq(unit.enter), write.data.eq(bench.free(len(unit.row), "entered")),
        unit.granted.eq(granted), read.addr.eq(unit.head),
        # In other cycles the memory is read for another queue.
        unit.row.eq(Mux(bench.past(granted), read.data, bench.free(len(unit.row), "other"))),
    ]
    # Tokens that are there stay until the head takes them; a unit completes what it was given.
    loaded = bench.past(bench.past(granted))
    kept = bench.past(unit.permit & unit.wait.any() & ~unit.issue) & ~loaded
    flying = Signal(range(sequencer.IN_FLIGHT + 2))
    m.d.comb += [
        unit.permit.eq(kept | bench.free(1, "tokens") | ~unit.wait.any()),
        unit.unit.done.eq(bench.free(1, "completes") & (flying != 0)),
    ]
    m.d.sync += flying.eq(flying + unit.issue - unit.unit.done)

    def stored(place):
        port = ring.read_port(domain="comb")
        m.d.comb += port.addr.eq(place)
        return port.data

    return unit, flying, write.data, stored


@proof("InstructionQueue of 2: instructions reach the unit in order, only with their tokens, at most 4 at a time; each "
       "completion posts what its instruction says", reach=16)
def instruction_queue(bench):
    unit, flying, entered, stored = _queue(bench)
    instruction = unit.unit.instruction
    fields = instruction.p
    inside = follow(bench, "waiting", unit.enter, entered[-1], unit.issue, fields.payload, _CONFIG.queue_depth,
                    sequencer.ring_rows(_CONFIG), stored=lambda place: stored(place)[-1])
    follow(bench, "in the unit", unit.issue, fields.post[0], unit.unit.done, unit.post[0], sequencer.IN_FLIGHT)
    bench.check("issued only with its tokens", ~unit.issue | unit.permit)
    bench.check("what is issued takes its own tokens a cycle later", ~unit.issued | (
        bench.past(unit.issue) & (unit.wait == bench.past(fields.wait))))
    bench.check("issue is a transfer to the unit", unit.issue == (instruction.valid & instruction.ready))
    bench.check("blocked only if the head lacks a token", ~unit.blocked | (~unit.permit & (inside != 0)))
    bench.reach("blocked", unit.blocked)
    bench.stable("instruction", instruction.valid, instruction.ready, fields)
    bench.check("empty only if nothing waits or is in the unit", ~unit.empty | ((inside == 0) & (flying == 0)))
    bench.reach("empty again", unit.empty & bench.past(bench.past(unit.unit.done)))


@proof("InstructionQueue of 2, and 2 in the unit: the oldest row is that of the oldest instruction that is not done",
       reach=16)
def instruction_queue_index(bench):
    with shallow(sequencer, IN_FLIGHT=2):
        unit, _, entered, stored = _queue(bench)
        rows = sequencer.ring_rows(_CONFIG)
    # Completions count in the cycle after.
    follow(bench, "rows", unit.enter, entered[0], bench.past(unit.unit.done), stored(unit.oldest)[0], 4, rows,
           stored=lambda place: stored(place)[0])


@proof("InstructionQueue of 2: a head whose tokens are there is issued within 4 cycles of a unit with room; room is "
       "seen within 4 cycles", reach=16)
def instruction_queue_progress(bench):
    unit, flying, _, _ = _queue(bench)
    bench.assume(unit.unit.instruction.ready)
    bench.assume(unit.granted == unit.wanted)
    inside = Signal(range(_CONFIG.queue_depth + 2))
    bench.m.d.sync += inside.eq(inside + unit.enter - unit.issue)
    bench.within("issue", 4, (inside != 0) & unit.permit & (flying != sequencer.IN_FLIGHT), unit.issue)
    bench.check("room only if it is not full", ~unit.room | (inside != _CONFIG.queue_depth))
    bench.within("room", 4, inside != _CONFIG.queue_depth, unit.room)
    bench.reach("full", inside == _CONFIG.queue_depth)


@proof("Sequencer: instructions enter the queue of their opcode, in program order, each once, and only legal ones; a "
       "fault of its own waits until all before it are done", reach=20)
def sequencer_dispatch(bench):
    m = bench.m
    unit = sequencer.Sequencer(config=Config(size=4, address_width=20, queue_depth=2))
    names = [queue.name.lower() for queue in Queue]
    inner = bench.add("sequencer", unit, "i", *(f"{name}.done" for name in names))
    bench.offer(unit.i.valid, unit.i.ready, unit.i.payload)
    row = inner.submodules.memory.write_ports[0].data
    entered = []
    for queue, name in zip(Queue, names, strict=True):
        queue_inside, port = getattr(inner.submodules, f"{name}_queue"), getattr(unit, name)
        given = port.instruction.valid & port.instruction.ready
        flying = Signal(range(sequencer.IN_FLIGHT + 1), name=f"{name}_flying")
        m.d.comb += port.done.eq(bench.free(1, f"{name} done") & (flying != 0))
        m.d.sync += flying.eq(flying + given - port.done)
        format = FORMATS[Opcode[queue.name]]
        fields = data.View(format.layout, Cat(Const(format.opcode, 4), row)[:format.layout.size])
        raw = {field.name: Value.cast(fields[field.name]) for field in format.fields}
        broken = Cat(rule for _, rule in violations(format, raw, 4))
        bench.check(f"{name}: only legal instructions enter", ~queue_inside.enter | ~broken.any())
        bench.check(f"{name}: no more enter than there is room", ~queue_inside.enter | queue_inside.room)
        bench.reach(f"{name}: an instruction enters", queue_inside.enter)
        entered.append(queue_inside.enter)
    opcode, sample, index = Signal(4), row[4:8], row[-INDEX_WIDTH:]
    for queue, enters in zip(Queue, entered, strict=True):
        with m.If(enters):
            m.d.comb += opcode.eq(Opcode[queue.name])
    some = Cat(entered).any()
    count = Signal(INDEX_WIDTH)
    m.d.sync += count.eq(count + some)
    inside = follow(bench, "instructions", unit.i.valid & unit.i.ready, Cat(unit.i.p.bits[:4], unit.i.p.bits[8:12]),
                    some, Cat(opcode, sample), 1)
    bench.check("one queue at a time", sum(entered) <= 1)
    bench.check("indices count", ~some | (index == count))
    own = unit.fault_unit == FaultUnit.SEQUENCER
    fault, past = unit.fault != Fault.NONE, bench.past
    broken = unit.stop & own & (unit.fault != Fault.WATCHDOG)
    bench.check("the first fault stays", ~past(fault) | (Cat(unit.fault, unit.fault_unit)
                                                        == past(Cat(unit.fault, unit.fault_unit))))
    bench.check("a fault stops everything first", ~fault | past(unit.stop))
    bench.check("nothing enters behind an instruction that cannot run", ~(broken & fault) | ~some)
    empty = Cat(getattr(inner.submodules, f"{name}_queue").empty for name in names).all()
    bench.check("a fault of its own waits for all before it", ~(unit.stop & own) | past(unit.stop) | past(
        unit.expired | empty))
    bench.check("empty only if nothing is inside", ~unit.empty | (inside == 0))
    # Together with `watchdog` and `states`: a program that hangs ends.
    bench.check("the watchdog stops everything at once", ~past(unit.expired) | unit.stop)
    bench.within("the fault", 9, unit.stop, fault)
    bench.reach("the watchdog's fault", unit.fault == Fault.WATCHDOG)
    bench.reach("a fault of its own behind another instruction", broken & fault & (count == 1))
