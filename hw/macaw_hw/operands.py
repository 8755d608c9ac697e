"""What the activation unit reads for each row, and where the result goes: loops, requests, the lane shuffle."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from . import isa
from .interfaces import lanes

__all__ = ["AddressLoop", "Operands", "Shuffle"]


class AddressLoop(wiring.Component):
    """Local address in two nested loops, modulo 2^16.

    Parameters
    ----------
    bits : int
        Of an address within the memory.

    Members
    -------
    load : In(1)
        Begin at ``start``.
    start : In(16), inner, outer : In(signed(13))
        First address and strides; the strides stay.
    step, wrap : In(1)
        Go on to the next iteration, of the outer loop if ``wrap``.
    address : Out(16)
    beyond : Out(1)
        ``address`` has more than ``bits`` bits.
    """

    def __init__(self, *, bits):
        self._bits = bits
        super().__init__({
            "load": In(1), "start": In(16), "inner": In(signed(13)), "outer": In(signed(13)),
            "step": In(1), "wrap": In(1), "address": Out(16), "beyond": Out(1),
        })

    @property
    def bits(self):
        return self._bits

    def elaborate(self, platform):
        m = Module()
        base = Signal(16)
        following = Signal(16)
        m.d.comb += following.eq(Mux(self.wrap, base + self.outer, self.address + self.inner))
        with m.If(self.load):
            m.d.sync += [base.eq(self.start), self.address.eq(self.start), self.beyond.eq(self.start[self.bits:].any())]
        with m.Elif(self.step):
            m.d.sync += [self.address.eq(following), self.beyond.eq(following[self.bits:].any())]
            with m.If(self.wrap):
                m.d.sync += base.eq(following)
        return m


class Operands(wiring.Component):
    """Requests the operands of one row after another, and says where its result goes.

    A row is begun in a cycle with ``allow``. Its requests are granted in any order; then, with no cycle in between,
    comes the next row.

    Parameters
    ----------
    config : Config

    Members
    -------
    load : In(1), following : In(isa.VECTOR.layout)
        Begin this instruction in the next cycle.
    instruction : In(isa.VECTOR.layout)
        The same, from then on; it stays.
    allow : In(1)
        The next row may begin.
    a, b : interfaces of VectorRead, without the data
        ``a_row``, ``a_valid``, ``a_ready`` and the same of `b`.
    d_row : Out
        Row of the result of the row that is issued.
    issue, end, last : Out(1)
        A row's operands have all been granted; it is the last of the inner loop; of all.
    begin : Out(1)
        First cycle of a row.
    waiting : Out(1)
        A row has begun, and its requests have not all been granted.
    active : Out(1)
        There are rows left to issue.
    held : Out(1)
        A row was begun and not issued.
    outside : Out(1)
        The next row waits until reset because an operand or its result is outside the memory.
    """

    def __init__(self, *, config):
        self._config = config
        row = ceil_log2(config.vector_rows)
        super().__init__({
            "load": In(1), "following": In(isa.VECTOR.layout), "instruction": In(isa.VECTOR.layout), "allow": In(1),
            **{f"{port}_{name}": member for port in "ab"
               for name, member in (("row", Out(row)), ("valid", Out(1)), ("ready", In(1)))},
            "d_row": Out(row),
            **{name: Out(1) for name in ("begin", "issue", "end", "last", "active", "held", "waiting",
                                          "outside")},
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        instruction, following = self.instruction, self.following
        inner = Signal(12)
        outer = Signal(12)
        ends = Signal()
        pending = Signal()
        m.d.comb += [
            self.end.eq(ends), self.last.eq(ends & (outer == 1)),
            self.begin.eq(self.active & self.allow & ~self.outside & ~self.held),
            pending.eq(self.begin | self.held),
        ]
        loops = {port: self._loop(m, port) for port in "abd"}
        outside = instruction.to_vector & loops["d"].beyond
        missing = 0
        m.d.comb += self.d_row.eq(loops["d"].address)
        for port in "ab":
            used = Signal(name=f"{port}_used")
            got = Signal(name=f"{port}_got")
            row, valid, ready = (getattr(self, f"{port}_{name}") for name in ("row", "valid", "ready"))
            users = [int(op) for op in isa.VectorOp if getattr(op.operands, port)]
            m.d.comb += [
                row.eq(loops[port].address), valid.eq(pending & used & ~got),
            ]
            with m.If(self.load):
                m.d.sync += used.eq(following.op.matches(*users))
            m.d.sync += got.eq(~self.issue & (got | valid & ready))
            outside |= used & loops[port].beyond
            missing |= valid & ~ready
        m.d.comb += [self.outside.eq(self.active & outside), self.issue.eq(pending & ~missing)]
        m.d.comb += self.waiting.eq(pending & ~self.issue)
        m.d.sync += self.held.eq(self.waiting)
        with m.If(self.load):
            m.d.sync += [inner.eq(following.inner), outer.eq(following.outer), self.active.eq(1),
                         ends.eq(following.inner == 1)]
        with m.Elif(self.issue):
            m.d.sync += [inner.eq(inner - 1), self.active.eq(~self.last), ends.eq(inner == 2)]
            with m.If(ends):
                m.d.sync += [inner.eq(instruction.inner), outer.eq(outer - 1), ends.eq(instruction.inner == 1)]
        return m

    def _loop(self, m, port):
        """The `AddressLoop` of `a`, `b` or `d`."""
        m.submodules[port] = loop = AddressLoop(bits=len(self.d_row))
        m.d.comb += [
            loop.load.eq(self.load), loop.start.eq(self.following[port]),
            loop.inner.eq(self.instruction[f"{port}_inner"]), loop.outer.eq(self.instruction[f"{port}_outer"]),
            loop.step.eq(self.issue), loop.wrap.eq(self.end),
        ]
        return loop


class Shuffle(wiring.Component):
    """Lane l of ``o`` is lane l XOR ``mask`` of ``i``: a butterfly of two-way choices. Combinational.

    Parameters
    ----------
    config : Config

    Members
    -------
    i, o : N x 32
    mask : In(log2 N)
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({"i": In(lanes(config)), "o": Out(lanes(config)), "mask": In(ceil_log2(config.size))})

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        values = [self.i[lane] for lane in range(self.config.size)]
        for bit in range(ceil_log2(self.config.size)):
            swapped = [Signal(32, name=f"swap{1 << bit}_{lane}") for lane in range(self.config.size)]
            m.d.comb += [swapped[lane].eq(Mux(self.mask[bit], values[lane ^ (1 << bit)], values[lane]))
                         for lane in range(self.config.size)]
            values = swapped
        m.d.comb += [self.o[lane].eq(values[lane]) for lane in range(self.config.size)]
        return m
