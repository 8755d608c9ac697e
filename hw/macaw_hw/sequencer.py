"""Decoder, the four in-order queues, and the tokens that order them."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

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

__all__ = ["IN_FLIGHT", "Decoder", "InstructionQueue", "Tokens", "Sequencer"]

IN_FLIGHT = 4
"""Instructions of one queue that a unit may hold at a time."""

_BY_QUEUE = {format.queue: format for format in FORMATS.values()}


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
    """In-order queue in front of one unit.

    The head is given to the unit once ``permit`` says that its tokens are there; its ``post`` mask and
    index are kept until the unit is done with it.

    Members
    -------
    i : In(stream)
        Instructions (without opcode) with their index.
    wait, blocked, issue : Out(4), Out(1), Out(1)
        Token mask of the head; it waits for tokens; it goes to the unit in this cycle.
    permit : In(1)
        All tokens in ``wait`` are there.
    post : Out(4)
        Of the oldest instruction in the unit.
    index : Out(INDEX_WIDTH)
        Of the oldest instruction that is not done.
    empty : Out(1)
        Nothing waits or is in flight.
    """

    def __init__(self, *, config, format):
        self._config, self._format = config, format
        self.entry = data.StructLayout({"fields": unsigned(format.layout.size - Opcode.as_shape().width),
                                        "index": unsigned(INDEX_WIDTH)})
        super().__init__({
            "i": In(stream.Signature(self.entry)), "unit": Out(Unit(format)),
            "wait": Out(4), "blocked": Out(1), "issue": Out(1), "permit": In(1),
            "post": Out(4), "index": Out(INDEX_WIDTH), "empty": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        kept = data.StructLayout({"post": unsigned(4), "index": unsigned(INDEX_WIDTH)})
        m.submodules.waiting = waiting = SyncFIFOBuffered(width=self.entry.size, depth=self._config.queue_depth)
        m.submodules.flying = flying = SyncFIFO(width=kept.size, depth=IN_FLIGHT)

        entry = data.View(self.entry, waiting.r_data)
        instruction = self.unit.instruction.payload
        oldest = data.View(kept, flying.r_data)
        m.d.comb += [
            waiting.w_data.eq(self.i.payload), waiting.w_en.eq(self.i.valid), self.i.ready.eq(waiting.w_rdy),
            instruction.eq(Cat(Const(self._format.opcode, Opcode.as_shape()), entry.fields)),
            self.wait.eq(Mux(waiting.r_rdy, instruction.wait, 0)),
            self.blocked.eq(waiting.r_rdy & ~self.permit),
            self.unit.instruction.valid.eq(waiting.r_rdy & self.permit & flying.w_rdy),
            self.issue.eq(self.unit.instruction.valid & self.unit.instruction.ready),
            waiting.r_en.eq(self.issue),
            flying.w_en.eq(self.issue),
            flying.w_data.eq(Cat(instruction.post, entry.index)),
            flying.r_en.eq(self.unit.done),
            self.post.eq(oldest.post),
            self.index.eq(Mux(flying.r_rdy, oldest.index, entry.index)),
            self.empty.eq((waiting.level == 0) & ~flying.r_rdy),
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
        It posts a token beyond TOKEN_LIMIT.
    """

    def __init__(self):
        super().__init__({"done": In(1).array(4), "post": In(4).array(4), "issue": In(1).array(4),
                          "wait": In(4).array(4), "permit": Out(1).array(4), "overflow": Out(1).array(4)})

    def elaborate(self, platform):
        m = Module()
        missing = {queue: [] for queue in Queue}
        overflow = {queue: [] for queue in Queue}
        for source in Queue:
            for target in Queue:
                if source == target:
                    continue
                count = Signal(range(TOKEN_LIMIT + 1), name=f"{source.name}_to_{target.name}".lower())
                posted = self.done[source] & self.post[source][target]
                taken = self.issue[target] & self.wait[target][source]
                full = count == TOKEN_LIMIT
                with m.If(posted & ~taken & ~full):
                    m.d.sync += count.eq(count + 1)
                with m.Elif(taken & ~posted):
                    m.d.sync += count.eq(count - 1)
                missing[target].append(self.wait[target][source] & (count == 0))
                overflow[source].append(posted & ~taken & full)
        for queue in Queue:
            m.d.comb += [self.permit[queue].eq(~Cat(missing[queue]).any()),
                         self.overflow[queue].eq(Cat(overflow[queue]).any())]
        return m


class Sequencer(wiring.Component):
    """Feeds fetched instructions to the four units, in the order that tokens demand.

    ::

        i -> Decoder -> +-> InstructionQueue -> load
                        +-> InstructionQueue -> matrix       Tokens between all pairs
                        +-> InstructionQueue -> vector
                        +-> InstructionQueue -> store

    Instructions enter their queue in program order; a full queue blocks those behind it. A fault of the
    sequencer itself (fetch, illegal instruction) is reported once all instructions before it are done,
    so that it never hides an earlier one.

    Members
    -------
    i : In(stream of Fetched)
    load, matrix, vector, store : Out(Unit)
    fault, fault_unit, fault_index : Out
        First fault, until reset.
    next_index : Out(INDEX_WIDTH)
        Index of the oldest instruction that is not done, over all queues; for the watchdog.
    empty : Out(1)
        Every accepted instruction is done.
    issued, blocked : Out(1)
        An instruction goes to a unit; one waits for room in its queue.
    waiting : Out(4)
        Heads of queues that wait for a token.
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "i": In(stream.Signature(Fetched)),
            **{queue.name.lower(): Out(Unit(_BY_QUEUE[queue])) for queue in Queue},
            "fault": Out(Fault), "fault_unit": Out(FaultUnit), "fault_index": Out(INDEX_WIDTH),
            "next_index": Out(INDEX_WIDTH),
            "empty": Out(1), "issued": Out(1), "blocked": Out(1), "waiting": Out(4),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.decoder = decoder = Decoder(config=self._config)
        m.submodules.tokens = tokens = Tokens()
        queues = {queue: InstructionQueue(config=self._config, format=_BY_QUEUE[queue]) for queue in Queue}
        for queue, component in queues.items():
            m.submodules[f"{queue.name.lower()}_queue"] = component
            unit = getattr(self, queue.name.lower())
            wiring.connect(m, component.unit, wiring.flipped(unit))
            m.d.comb += [
                tokens.done[queue].eq(unit.done), tokens.post[queue].eq(component.post),
                tokens.issue[queue].eq(component.issue), tokens.wait[queue].eq(component.wait),
                component.permit.eq(tokens.permit[queue]),
            ]

        # One register between fetch and the queues keeps the decoder off the path to their memories.
        held, queue_of, legal = Signal(Fetched), Signal(Queue), Signal()
        valid = Signal()
        index = Signal(INDEX_WIDTH)
        sound = legal & (held.fault == Fault.NONE)
        accepted = Signal()
        m.d.comb += [
            decoder.bits.eq(self.i.p.bits),
            accepted.eq(valid & sound & Array(c.i.ready for c in queues.values())[queue_of]),
            self.i.ready.eq(~valid | accepted),
            self.blocked.eq(valid & sound & ~accepted),
            self.empty.eq(Cat(c.empty for c in queues.values()).all() & ~valid),
            self.issued.eq(Cat(c.issue for c in queues.values()).any()),
            self.waiting.eq(Cat(c.blocked for c in queues.values())),
        ]
        with m.If(self.i.ready):
            m.d.sync += [valid.eq(self.i.valid), held.eq(self.i.p), queue_of.eq(decoder.queue),
                         legal.eq(decoder.legal)]
        with m.If(accepted):
            m.d.sync += index.eq(index + 1)
        for queue, component in queues.items():
            m.d.comb += [
                component.i.valid.eq(valid & sound & (queue_of == queue)),
                component.i.p.fields.eq(held.bits[Opcode.as_shape().width:]),
                component.i.p.index.eq(index),
            ]
        cause = Mux(held.fault == Fault.NONE, Fault.ILLEGAL_INSTRUCTION, held.fault)
        self._faults(m, queues, tokens, valid & ~sound, cause, index)
        return m

    def _faults(self, m, queues, tokens, unsound, cause, index):
        """Latch the first fault; earlier queues win a tie."""
        def latch(fault, unit, at):
            m.d.sync += [self.fault.eq(fault), self.fault_unit.eq(unit), self.fault_index.eq(at)]

        drained = Cat(component.empty for component in queues.values()).all()
        with m.If(self.fault == Fault.NONE):
            with m.If(unsound & drained):
                latch(cause, FaultUnit.SEQUENCER, index)
            for queue in reversed(Queue):
                component = queues[queue]
                with m.If(tokens.overflow[queue]):
                    latch(Fault.TOKENS, queue.value, component.index)
                with m.If(component.unit.fault != Fault.NONE):
                    latch(component.unit.fault, queue.value, component.index)
        oldest = index
        for component in queues.values():
            candidate = Mux(component.empty, index, component.index)
            oldest = Mux(candidate < oldest, candidate, oldest)
        m.d.comb += self.next_index.eq(oldest)
