"""Decoder, the four in-order queues, and the tokens that order them."""

from amaranth.hdl import Array, C, Cat, Const, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .fetch import Fetched
from .interfaces import Unit
from .isa import (
    FORMATS,
    INDEX_WIDTH,
    INSTRUCTION_BYTES,
    TOKEN_LIMIT,
    Fault,
    FaultUnit,
    Opcode,
    Queue,
    violations,
)
from .memory_init import BLOCK

__all__ = ["IN_FLIGHT", "Decoder", "InstructionQueue", "Tokens", "Sequencer"]

IN_FLIGHT = 4
"""Instructions of one queue that a unit may hold at a time."""
_BY_QUEUE = {format.queue: format for format in FORMATS.values()}


def ring_rows(config):
    """Rows of a queue's ring: for those that wait, those in the unit, and one that is done just now; never full."""
    return 1 << ceil_log2(config.queue_depth + IN_FLIGHT + 2)


class Decoder(wiring.Component):
    """Combinational: the queue of an instruction, and whether it breaks a rule of the instruction set."""

    def __init__(self, *, config):
        self._config = config
        super().__init__({"bits": In(8 * INSTRUCTION_BYTES), "queue": Out(Queue), "legal": Out(1)})

    def elaborate(self, platform):
        m = Module()
        with m.Switch(self.bits[:4]):
            for opcode, format in FORMATS.items():
                fields = data.View(format.layout, self.bits[:format.layout.size])
                raw = {field.name: fields[field.name] for field in format.fields}
                # Enumerations compare as numbers: a value without a name must be found illegal.
                raw = {name: value.as_value() if hasattr(value, "as_value") else value
                       for name, value in raw.items()}
                broken = [rule for _, rule in violations(format, raw, self._config.size)]
                with m.Case(opcode):
                    m.d.comb += [
                        self.queue.eq(format.queue),
                        self.legal.eq(~Cat(*broken, self.bits[format.layout.size:].any()).any()),
                    ]
        return m


class InstructionQueue(wiring.Component):
    """One ring of the instruction memory, in front of one unit.

    The next instruction is read from the ring into registers, and given to the unit once its tokens are
    there. Its row in the ring is kept until the unit is done with it.

    ::

        enter -> ring -> instruction -> unit -> done
             tail    head                  oldest

    An instruction reaches the unit 3 cycles after ``enter`` at the earliest, 3 cycles after the one before,
    and 2 cycles after its last token.

    Members
    -------
    enter, room : In(1), Out(1)
        An instruction is written to row ``tail`` of the ring in this cycle; only if there is room. Room is seen in
        the third cycle after an instruction has left.
    tail, head, oldest : Out
        Rows of the ring: the first free one, the next to be read, the oldest that is not done.
    wanted, granted : Out(1), In(1)
        Row ``head`` is needed; it is read in this cycle.
    row : In
        What was read, in the cycle after ``granted``: an instruction without its opcode.
    wait, issued, permit : Out(4), Out(1), In(1)
        Token mask of the next instruction; it takes its tokens; all of them are there.
    blocked, issue : Out(1)
        The next instruction waits for tokens; it goes to the unit in this cycle.
    post : Out(4)
        Token mask of the oldest instruction in the unit.
    keep : In(1)
        ``oldest`` stays, whatever is done.
    empty : Out(1)
        Nothing waits or is in flight.
    """

    def __init__(self, *, config, format):
        self._config, self._format = config, format
        row = range(ring_rows(config))
        super().__init__({
            "enter": In(1), "room": Out(1, init=1), "tail": Out(row), "head": Out(row), "oldest": Out(row),
            "wanted": Out(1), "granted": In(1), "row": In(format.layout.size - Opcode.as_shape().width),
            "unit": Out(Unit(format)), "wait": Out(4), "issued": Out(1), "permit": In(1),
            "blocked": Out(1), "issue": Out(1), "post": Out(4), "keep": In(1), "empty": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        level, flying = Signal(range(self._config.queue_depth + 1)), Signal(range(IN_FLIGHT + 1))
        latest, place, finished = Signal(range(IN_FLIGHT)), Signal(range(IN_FLIGHT)), Signal()
        fields = Signal(len(self.row), reset_less=True)
        more, reading, present, permitted = Signal(), Signal(), Signal(), Signal()
        instruction, done = self.unit.instruction.payload, self.unit.done
        m.d.comb += [
            instruction.eq(Cat(Const(self._format.opcode, Opcode.as_shape()), fields)),
            self.wait.eq(instruction.wait),
            self.wanted.eq(more & ~present & ~reading),  # so that all of the level is in the ring
            self.blocked.eq(present & ~permitted & ~self.permit),
            self.unit.instruction.valid.eq(present & (permitted | (self.wait == 0)) & (flying != IN_FLIGHT)),
            self.issue.eq(self.unit.instruction.valid & self.unit.instruction.ready),
            self.empty.eq(self.tail == self.oldest),
        ]
        m.d.sync += [
            self.tail.eq(self.tail + self.enter), self.head.eq(self.head + self.granted),
            more.eq(self.enter | level[1:].any() | (level[0] & ~self.issue & ~self.issued)),
            finished.eq(done), self.oldest.eq(self.oldest + (finished & ~self.keep)), place.eq(place + done),
            reading.eq(self.granted), self.issued.eq(self.issue),
            present.eq(reading | (present & ~self.issue)), permitted.eq(present & self.permit & ~self.issue),
        ]
        # A cycle later is in time: the next instruction follows after 3 cycles at the earliest.
        with m.If(self.issued ^ done):
            m.d.sync += flying.eq(flying + Mux(done, -1, 1))
        with m.If(self.enter ^ self.issued):
            m.d.sync += level.eq(level + Mux(self.enter, 1, -1))
        depth = self._config.queue_depth
        m.d.sync += self.room.eq((level != depth) & ~(self.enter & (level == depth - 1)))
        with m.If(reading):
            m.d.sync += fields.eq(self.row)

        m.submodules.posts = posts = Memory(shape=4, depth=IN_FLIGHT, init=[])
        write, read = posts.write_port(), posts.read_port(domain="comb")
        m.d.sync += latest.eq(latest + self.issue)
        m.d.comb += [
            write.addr.eq(latest), write.data.eq(instruction.post), write.en.eq(self.issue),
            read.addr.eq(place), self.post.eq(read.data),
        ]
        return m


class Tokens(wiring.Component):
    """Counters of tokens between each ordered pair of queues.

    Members
    -------
    done, post : In(1), In(4) for each queue
        An instruction is done, and the queues it posts a token to.
    issue, wait : In(1), In(4) for each queue
        The head is issued, and the queues it takes a token from.
    permit : Out(1) for each queue
        Every token in ``wait`` is there.
    overflow : Out(1) for each queue
        It posted a token beyond TOKEN_LIMIT in the cycle before, or earlier and none was taken since. Tokens then
        must not move for more than a few cycles.
    """

    def __init__(self):
        super().__init__({"done": In(1).array(4), "post": In(4).array(4), "issue": In(1).array(4),
                          "wait": In(4).array(4), "permit": Out(1).array(4), "overflow": Out(1).array(4)})

    def elaborate(self, platform):
        m = Module()
        # One bit more than the limit takes: it is set exactly beyond the limit.
        width = (TOKEN_LIMIT + 1).bit_length()
        assert (1 << width - 1) - 1 == TOKEN_LIMIT
        missing = {queue: [] for queue in Queue}
        overflow = {queue: [] for queue in Queue}
        for source in Queue:
            for target in Queue:
                if source == target:
                    continue
                count = Signal(width, name=f"{source.name}_to_{target.name}".lower())
                posted = self.done[source] & self.post[source][target]
                taken = self.issue[target] & self.wait[target][source]
                with m.If(posted ^ taken):
                    m.d.sync += count.eq(count + Mux(posted, 1, -1))
                missing[target].append(self.wait[target][source] & (count == 0))
                overflow[source].append(count[-1])
        for queue in Queue:
            m.d.comb += [self.permit[queue].eq(~Cat(missing[queue]).any()),
                         self.overflow[queue].eq(Cat(overflow[queue]).any())]
        return m


class Sequencer(wiring.Component):
    """Feeds fetched instructions to the four units, in the order that tokens demand.

    ::

        i -> Decoder -> memory +-> InstructionQueue -> load
                               +-> InstructionQueue -> matrix       Tokens between all pairs
                               +-> InstructionQueue -> vector
                               +-> InstructionQueue -> store

    Instructions enter their queue in program order; a full queue blocks those behind it. All queues share
    a memory, which is read for one of them per cycle.

    A fault of the sequencer itself (fetch, illegal instruction) is reported once all instructions before it
    are done, so that it never hides an earlier one. The index of the instruction is looked up in the
    memory, so ``fault`` comes up to 9 cycles after ``stop``.

    Members
    -------
    i : In(stream of Fetched)
    load, matrix, vector, store : Out(Unit)
    expired : In(1)
        The watchdog stops the program: a fault of the oldest instruction that is not done, over all queues.
    stop : Out(1)
        There is a fault: no unit may touch memory any more.
    fault, fault_unit, fault_index : Out
        First fault, until reset.
    empty : Out(1)
        Every accepted instruction is done.
    blocked : Out(1)
        An instruction waits for room in its queue.
    waiting : Out(4)
        Heads of queues that wait for a token.
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "i": In(stream.Signature(Fetched)),
            **{queue.name.lower(): Out(Unit(_BY_QUEUE[queue])) for queue in Queue},
            "expired": In(1), "stop": Out(1),
            "fault": Out(Fault), "fault_unit": Out(FaultUnit), "fault_index": Out(INDEX_WIDTH),
            "empty": Out(1), "blocked": Out(1), "waiting": Out(4),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = Decoder(config=self._config)
        m.submodules.tokens = tokens = Tokens()
        overflow = Signal(len(Queue))
        m.d.comb += overflow.eq(Cat(tokens.overflow))
        queues = [InstructionQueue(config=self._config, format=_BY_QUEUE[queue]) for queue in Queue]
        for queue, component in zip(Queue, queues, strict=True):
            m.submodules[f"{queue.name.lower()}_queue"] = component
            unit = getattr(self, queue.name.lower())
            wiring.connect(m, component.unit, wiring.flipped(unit))
            m.d.comb += [
                tokens.done[queue].eq(unit.done), tokens.post[queue].eq(component.post),
                tokens.issue[queue].eq(component.issued), tokens.wait[queue].eq(component.wait),
                component.permit.eq(tokens.permit[queue]),
                component.keep.eq(self.stop | overflow[queue]),
            ]

        # One register between fetch and the queues keeps the decoder off the path to their memory.
        held, queue_of, sound = Signal(Fetched), Signal(Queue), Signal()
        valid, accepted = Signal(), Signal()
        index = Signal(INDEX_WIDTH)
        m.d.comb += [
            decoder.bits.eq(self.i.p.bits),
            accepted.eq(valid & sound & Array(queue.room for queue in queues)[queue_of]),
            self.i.ready.eq(~valid | accepted),
            self.blocked.eq(valid & sound & ~accepted),
            self.empty.eq(Cat(queue.empty for queue in queues).all() & ~valid),
            self.waiting.eq(Cat(queue.blocked for queue in queues)),
        ]
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), held.eq(self.i.p), queue_of.eq(decoder.queue),
                         sound.eq(decoder.legal & (self.i.p.fault == Fault.NONE))]
        m.d.sync += index.eq(index + accepted)

        # Rows of the memory: the queue, its row. A fault that is looked up comes first.
        bits = 8 * INSTRUCTION_BYTES - Opcode.as_shape().width
        rows = ring_rows(self._config)
        m.submodules.memory = memory = Memory(shape=bits + INDEX_WIDTH, depth=len(queues) * rows, init=[], attrs=BLOCK)
        write, read = memory.write_port(), memory.read_port()
        m.d.comb += [
            write.en.eq(accepted), write.addr.eq(Cat(Array(queue.tail for queue in queues)[queue_of], queue_of)),
            write.data.eq(Cat(held.bits[Opcode.as_shape().width:], index)),
        ]
        search = Signal(2)
        m.d.comb += read.addr.eq(Cat(Array(queue.oldest for queue in queues)[search], search))
        taken = self.stop
        for number, queue in enumerate(queues):
            m.d.comb += [
                queue.enter.eq(accepted & (queue_of == number)), queue.row.eq(read.data),
                queue.granted.eq(queue.wanted & ~taken),
            ]
            with m.If(queue.granted):
                m.d.comb += read.addr.eq(Cat(queue.head, C(number, 2)))
            taken |= queue.wanted
        own = Mux(held.fault == Fault.NONE, Fault.ILLEGAL_INSTRUCTION, held.fault)
        code = self._stop(m, queues, overflow, valid & ~sound, own)
        self._locate(m, queues, code, index, search, read.data[bits:])
        return m

    def _stop(self, m, queues, overflow, unsound, own):
        """Stop at the first fault; earlier queues win a tie. Returns its code."""
        code = Signal(Fault)

        def latch(fault, unit):
            m.d.sync += [self.stop.eq(1), code.eq(fault), self.fault_unit.eq(unit)]

        with m.If(~self.stop):
            with m.If(unsound & Cat(queue.empty for queue in queues).all()):
                latch(own, FaultUnit.SEQUENCER)
            with m.If(self.expired):
                latch(Fault.WATCHDOG, FaultUnit.SEQUENCER)
            for number, queue in reversed(list(enumerate(queues))):
                with m.If(overflow[number]):
                    latch(Fault.TOKENS, number)
                with m.If(queue.unit.fault != Fault.NONE):
                    latch(queue.unit.fault, number)
        return code

    def _locate(self, m, queues, code, index, search, found):
        """Look up the oldest instruction of one queue after the other, and report the fault."""
        step, earliest = Signal(3), Signal(INDEX_WIDTH)
        concerned = [Signal(name=f"concerned{i}") for i in range(2)]
        m.d.comb += search.eq(step)
        m.d.sync += [
            concerned[0].eq(self.stop & ~Array(queue.empty for queue in queues)[search]
                            & ((code == Fault.WATCHDOG) | (self.fault_unit == search))),
            concerned[1].eq(concerned[0]), earliest.eq(found),
        ]
        with m.If(~self.stop):
            m.d.sync += self.fault_index.eq(index)
        with m.Elif(step != 7):
            m.d.sync += step.eq(step + 1)
        with m.Else():
            m.d.sync += self.fault.eq(code)
        with m.If(concerned[1] & (earliest < self.fault_index)):
            m.d.sync += self.fault_index.eq(earliest)
