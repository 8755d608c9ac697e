"""Activation unit: programmable float32 lanes between vector memory, tile memory and itself."""

from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from . import isa
from .interfaces import TileWrite, Unit, VectorRead, VectorWrite, lanes
from .lane import Lane, LaneControl, LaneDecoder
from .quantizer import Quantizer

__all__ = ["AddressLoop", "Operands", "Shuffle", "ActivationUnit"]

_ROW = data.StructLayout({"valid": 1, "end": 1, "last": 1})
_RESULTS = 16
"""Rows that have room between the lanes and the vector memory: one per cycle in spite of the latency."""


class AddressLoop(wiring.Component):
    """Local address in two nested loops, modulo 2^16.

    Members
    -------
    load : In(1)
        Begin at ``start``.
    start : In(16), inner, outer : In(signed(13))
        First address and strides; the strides stay.
    step, wrap : In(1)
        Go on to the next iteration, of the outer loop if ``wrap``.
    address : Out(16)
    """

    load: In(1)
    start: In(16)
    inner: In(signed(13))
    outer: In(signed(13))
    step: In(1)
    wrap: In(1)
    address: Out(16)

    def elaborate(self, platform):
        m = Module()
        base = Signal(16)
        following = Signal(16)
        m.d.comb += following.eq(Mux(self.wrap, base, self.address) + Mux(self.wrap, self.outer, self.inner))
        with m.If(self.load):
            m.d.sync += [base.eq(self.start), self.address.eq(self.start)]
        with m.Elif(self.step):
            m.d.sync += self.address.eq(following)
            with m.If(self.wrap):
                m.d.sync += base.eq(following)
        return m


class Operands(wiring.Component):
    """Requests the operands of one row after another.

    A row is begun in a cycle with ``allow``. Its requests are granted in any order; then, with no cycle in between,
    comes the next row.

    Parameters
    ----------
    config : Config

    Members
    -------
    load : In(1), instruction : In(isa.VECTOR.layout)
        Begin an instruction; it stays.
    allow : In(1)
        There is room for another result.
    a, b : interfaces of VectorRead, without the data
        ``a_row``, ``a_valid``, ``a_ready`` and the same of `b`.
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
        The next row waits until reset because an operand is outside the memory.
    """

    def __init__(self, *, config):
        self._config = config
        row = ceil_log2(config.vector_rows)
        super().__init__({
            "load": In(1), "instruction": In(isa.VECTOR.layout), "allow": In(1),
            **{f"{port}_{name}": member for port in "ab"
               for name, member in (("row", Out(row)), ("valid", Out(1)), ("ready", In(1)))},
            **{name: Out(1) for name in ("begin", "issue", "end", "last", "active", "held", "waiting",
                                          "outside")},
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        instruction = self.instruction
        inner = Signal(12)
        outer = Signal(12)
        pending = Signal()
        m.d.comb += [
            self.end.eq(inner == 1), self.last.eq(self.end & (outer == 1)),
            self.begin.eq(self.active & self.allow & ~self.outside & ~self.held),
            pending.eq(self.begin | self.held),
        ]
        outside, missing = 0, 0
        for port in "ab":
            m.submodules[port] = loop = AddressLoop()
            used = Signal(name=f"{port}_used")
            got = Signal(name=f"{port}_got")
            row, valid, ready = (getattr(self, f"{port}_{name}") for name in ("row", "valid", "ready"))
            users = [int(op) for op in isa.VectorOp if getattr(op.operands, port)]
            m.d.comb += [
                used.eq(instruction.op.matches(*users)),
                loop.load.eq(self.load), loop.start.eq(instruction[port]),
                loop.inner.eq(instruction[f"{port}_inner"]), loop.outer.eq(instruction[f"{port}_outer"]),
                loop.step.eq(self.issue), loop.wrap.eq(self.end),
                row.eq(loop.address), valid.eq(pending & used & ~got),
            ]
            m.d.sync += got.eq(~self.issue & (got | valid & ready))
            outside |= used & (loop.address >= self.config.vector_rows)
            missing |= valid & ~ready
        m.d.comb += [self.outside.eq(self.active & outside), self.issue.eq(pending & ~missing)]
        m.d.comb += self.waiting.eq(pending & ~self.issue)
        m.d.sync += self.held.eq(self.waiting)
        with m.If(self.load):
            m.d.sync += [inner.eq(instruction.inner), outer.eq(instruction.outer), self.active.eq(1)]
        with m.Elif(self.issue):
            m.d.sync += [inner.eq(inner - 1), self.active.eq(~self.last)]
            with m.If(self.end):
                m.d.sync += [inner.eq(instruction.inner), outer.eq(outer - 1)]
        return m


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


class ActivationUnit(wiring.Component):
    """Runs VECTOR instructions, one row of N float32 per cycle.

    ::

        a ------------> | Lane x N | --+--> results' FIFO --> d
        b --> Shuffle ->|          |   |
                 ^                     +--> Quantizer ------> tile
        Operands: which rows

    An instruction begins when everything that the one before wrote is in the memories. Operands are granted
    independently of each other; a row starts only if its result has a place, so that the lanes never stall.
    Without conflicts, the first result reaches ``d`` :attr:`latency` cycles after the transfer of the
    instruction, and each further row takes one cycle.

    LOCAL_ADDRESS is reported when an address is outside and what was under way has been written. NON_FINITE is
    reported at the end of an instruction if an infinity or NaN was to go to a tile; no tile from that one on is
    written. The two never depend on timing. After a fault the unit waits for its reset.

    Parameters
    ----------
    config : Config

    Members
    -------
    control : In(Unit(isa.VECTOR))
    a, b : Out(VectorRead)
    d : Out(VectorWrite)
    tile : Out(TileWrite)
    """

    latency = 3 + Lane.latency + 2

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "control": In(Unit(isa.VECTOR)),
            "a": Out(VectorRead(config)), "b": Out(VectorRead(config)),
            "d": Out(VectorWrite(config)), "tile": Out(TileWrite(config)),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        m.submodules.operands = operands = Operands(config=self.config)
        m.submodules.quantizer = quantizer = Quantizer(config=self.config)
        control = self.control

        active = Signal()
        start = Signal()
        instruction = Signal(isa.VECTOR.layout)
        m.d.comb += control.instruction.ready.eq(~active)
        m.d.sync += start.eq(control.instruction.valid & ~active)
        with m.If(control.instruction.valid & ~active):
            m.d.sync += [instruction.eq(control.instruction.payload), active.eq(1)]
        m.d.comb += [operands.load.eq(start), operands.instruction.eq(instruction)]

        row, moving = self._compute(m, operands, instruction, quantizer)
        free, rows_left, d_outside, rows_done = self._write_rows(m, start, instruction, operands, row, quantizer.row)
        tiles_done = self._write_tiles(m, start, instruction, operands, row, quantizer)

        # Nothing begins once an address is outside; what has begun ends by itself, and then comes the fault.
        outside = Signal()
        room = Signal()
        finished = Signal()
        m.d.comb += [
            outside.eq(operands.outside | d_outside | quantizer.outside),
            room.eq((free | ~instruction.to_vector) & (quantizer.room | ~instruction.to_tile)),
            operands.allow.eq(room & ~outside),
            finished.eq(active & ~start & rows_done & tiles_done),
            control.done.eq(finished & ~quantizer.non_finite),
            control.busy.eq(active),
            control.wait_memory.eq(operands.waiting | operands.active & instruction.to_vector & ~free),
            control.wait_other.eq(operands.active & ~control.wait_memory & ~room),
        ]
        with m.If(control.done):
            m.d.sync += active.eq(0)
        with m.If(control.fault == isa.Fault.NONE):
            with m.If(outside & ~operands.held & ~moving & ~rows_left & quantizer.idle):
                m.d.sync += control.fault.eq(isa.Fault.LOCAL_ADDRESS)
            with m.Elif(finished & quantizer.non_finite):
                m.d.sync += control.fault.eq(isa.Fault.NON_FINITE)
        return m

    def _compute(self, m, operands, instruction, quantizer):
        """Operands through the lanes; returns which row comes out, and whether any is under way."""
        m.submodules.shuffle = shuffle = Shuffle(config=self.config)
        m.submodules.decoder = decoder = LaneDecoder()
        lane_control = Signal(LaneControl)
        m.d.sync += lane_control.eq(decoder.control)
        m.d.comb += [
            decoder.op.eq(instruction.op), decoder.scalar.eq(instruction.scalar),
            shuffle.i.eq(self.b.data), shuffle.mask.eq(instruction.shuffle),
            self.a.row.eq(operands.a_row), self.a.valid.eq(operands.a_valid), operands.a_ready.eq(self.a.ready),
            self.b.row.eq(operands.b_row), self.b.valid.eq(operands.b_valid), operands.b_ready.eq(self.b.ready),
        ]
        load_a = Signal()
        load_b = Signal()
        m.d.sync += [load_a.eq(self.a.valid & self.a.ready), load_b.eq(self.b.valid & self.b.ready)]
        for i in range(self.config.size):
            m.submodules[f"lane{i}"] = lane = Lane()
            m.d.comb += [
                lane.control.eq(lane_control),
                lane.a.eq(self.a.data[i]), lane.load_a.eq(load_a),
                lane.b.eq(shuffle.o[i]), lane.load_b.eq(load_b),
                quantizer.row[i].eq(lane.o),
            ]
        rows = [Signal(_ROW, name=f"row{i}") for i in range(1 + Lane.latency)]
        m.d.sync += [
            rows[0].eq(Cat(operands.issue, operands.end, operands.last)),
            *(after.eq(before) for before, after in zip(rows, rows[1:], strict=False)),
        ]
        return rows[-1], Cat(row.valid for row in rows).any()

    def _write_rows(self, m, start, instruction, operands, row, result):
        """Results to vector memory.

        Returns whether there is room for another row, whether rows are left that can be written, whether the next
        is outside the memory, and whether the last one was written.
        """
        width = 32 * self.config.size
        m.submodules.results = results = SyncFIFOBuffered(width=width + 2, depth=_RESULTS)
        m.submodules.d = loop = AddressLoop()
        transfer = Signal()
        outside = Signal()
        done = Signal()
        free = Signal(range(_RESULTS + 1), init=_RESULTS)
        end, last = results.r_data[width], results.r_data[width + 1]
        m.d.comb += [
            results.w_data.eq(Cat(result, row.end, row.last)), results.w_en.eq(row.valid & instruction.to_vector),
            loop.load.eq(start), loop.start.eq(instruction.d),
            loop.inner.eq(instruction.d_inner), loop.outer.eq(instruction.d_outer),
            loop.step.eq(transfer), loop.wrap.eq(end),
            outside.eq(results.r_rdy & (loop.address >= self.config.vector_rows)),
            self.d.row.eq(loop.address), self.d.data.eq(results.r_data[:width]),
            self.d.valid.eq(results.r_rdy & ~outside),
            transfer.eq(self.d.valid & self.d.ready),
            results.r_en.eq(transfer),
        ]
        m.d.sync += free.eq(free - (operands.begin & instruction.to_vector) + transfer)
        with m.If(start):
            m.d.sync += done.eq(~instruction.to_vector)
        with m.Elif(transfer & last):
            m.d.sync += done.eq(1)
        return free != 0, self.d.valid, outside, done

    def _write_tiles(self, m, start, instruction, operands, row, quantizer):
        """Results to tile memory; returns whether the last tile was written."""
        m.submodules.tile = loop = AddressLoop()
        done = Signal()
        wiring.connect(m, wiring.flipped(self.tile), quantizer.tile)
        m.d.comb += [
            loop.load.eq(start), loop.start.eq(instruction.tile),
            loop.inner.eq(instruction.tile_inner), loop.outer.eq(instruction.tile_outer),
            loop.step.eq(quantizer.next), loop.wrap.eq(quantizer.wrap), quantizer.address.eq(loop.address),
            quantizer.reserve.eq(operands.begin & instruction.to_tile),
            quantizer.valid.eq(row.valid & instruction.to_tile),
            quantizer.end.eq(row.end), quantizer.last.eq(row.last),
        ]
        with m.If(start):
            m.d.sync += done.eq(~instruction.to_tile)
        with m.Elif(quantizer.finished):
            m.d.sync += done.eq(1)
        return done
