"""What the activation unit reads for each row, and where the result goes: loops, requests, the lane shuffle."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from . import isa
from .interfaces import lanes

__all__ = ["AddressLoop", "Operands", "Shuffle"]


class AddressLoop(wiring.Component):
    """Local address in two nested loops.

    Once an address is outside of the memory, the loop is of no use until the next ``load``: of an address inside, the
    next one is told apart from all others by as many bits as a stride has.

    Parameters
    ----------
    bits : int
        Of an address within the memory, 15 at most.

    Members
    -------
    load : In(1)
        Begin at ``start``.
    start : In(16), inner, outer : In(signed(13))
        First address and strides; the strides stay.
    step, wrap : In(1)
        Go on to the next iteration, of the outer loop if ``wrap``.
    address : Out(bits)
    beyond : Out(1)
        It is outside of the memory instead.
    """

    def __init__(self, *, bits):
        self._bits = bits
        super().__init__({
            "load": In(1), "start": In(16), "inner": In(signed(13)), "outer": In(signed(13)),
            "step": In(1), "wrap": In(1), "address": Out(bits), "beyond": Out(1),
        })

    @property
    def bits(self):
        return self._bits

    def elaborate(self, platform):
        m = Module()
        base = Signal(self.bits)
        stride = Signal(signed(13))
        following = Signal(max(self.bits, 12) + 1)
        m.d.comb += [
            stride.eq(Mux(self.wrap, self.outer, self.inner)),
            following.eq(Mux(self.wrap, base, self.address) + stride),
        ]
        place = Mux(self.load, self.start, following)
        with m.If(self.load | self.step):
            m.d.sync += [self.address.eq(place),
                         self.beyond.eq(Mux(self.load, self.start[self.bits:].any(), following[self.bits:].any()))]
        with m.If(self.load | self.step & self.wrap):
            m.d.sync += base.eq(place)
        return m


class Operands(wiring.Component):
    """Requests the operands of one row after another, and says where its result goes.

    ::

        loops: the next row --- begin ---> requests: the row that was begun --- issue --->

    A row is begun in a cycle with ``allow``. From the next cycle on, its operands are requested, and granted in any
    order; then, with no cycle in between, come those of the next row.

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
        A row is begun; it is one of ``instruction``, which may be replaced before the row is issued.
    waiting : Out(1)
        A row was begun, and its requests have not all been granted.
    active : Out(1)
        There are rows left to begin.
    held : Out(1)
        A row was begun and not issued before this cycle.
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
        ends, last = self._count(m)
        loops = {port: self._loop(m, port, ends) for port in "abd"}
        outside = instruction.to_vector & loops["d"].beyond
        missing = 0
        for port in "ab":
            used = Signal(name=f"{port}_used")
            row, valid, ready = (getattr(self, f"{port}_{name}") for name in ("row", "valid", "ready"))
            users = [int(op) for op in isa.VectorOp if getattr(op.operands, port)]
            with m.If(self.load):
                m.d.sync += used.eq(following.op.matches(*users))
            with m.If(self.begin):
                m.d.sync += [row.eq(loops[port].address), valid.eq(used)]
            with m.Elif(ready):
                m.d.sync += valid.eq(0)
            outside |= used & loops[port].beyond
            missing |= valid & ~ready
        m.d.comb += [
            self.outside.eq(self.active & outside), self.waiting.eq(missing), self.issue.eq(self.held & ~missing),
            self.begin.eq(self.active & self.allow & ~outside & ~missing),
        ]
        m.d.sync += self.held.eq(self.begin | self.waiting)
        with m.If(self.begin):
            m.d.sync += [self.d_row.eq(loops["d"].address), self.end.eq(ends), self.last.eq(last)]
        with m.If(self.load):
            m.d.sync += self.active.eq(1)
        with m.Elif(self.begin & last):
            m.d.sync += self.active.eq(0)
        return m

    def _count(self, m):
        """Whether the next row is the last of its inner loop; and of all."""
        single = Signal()
        ends = Signal()
        # Numbers, from 1, of the row behind the next one in the inner loop, and of the next one's in the outer loop.
        row = Signal(12, init=2)
        turn = Signal(12, init=1)
        with m.If(self.load):
            only = self.following.inner == 1
            m.d.sync += [single.eq(only), ends.eq(only), row.eq(2), turn.eq(1)]
        with m.Elif(self.begin):
            m.d.sync += [row.eq(row + 1), ends.eq(row == self.instruction.inner)]
            with m.If(ends):
                m.d.sync += [row.eq(2), turn.eq(turn + 1), ends.eq(single)]
        return ends, ends & (turn == self.instruction.outer)

    def _loop(self, m, port, ends):
        """The `AddressLoop` of `a`, `b` or `d`."""
        m.submodules[port] = loop = AddressLoop(bits=len(self.d_row))
        m.d.comb += [
            loop.load.eq(self.load), loop.start.eq(self.following[port]),
            loop.inner.eq(self.instruction[f"{port}_inner"]), loop.outer.eq(self.instruction[f"{port}_outer"]),
            loop.step.eq(self.begin), loop.wrap.eq(ends),
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
