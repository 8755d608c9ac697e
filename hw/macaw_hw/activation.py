"""Activation unit: programmable float32 lanes between vector memory, tile memory and itself."""

from amaranth.hdl import Cat, Module, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from . import isa
from .block_fifo import BlockFIFO
from .interfaces import TileWrite, Unit, VectorRead, VectorWrite, lanes
from .lane import Lane, LaneControl, LaneDecoder
from .operands import AddressLoop, Operands, Shuffle
from .quantizer import Quantizer
from .shifts import shift_multipliers

__all__ = ["ActivationUnit", "activation_latency"]

_RESULTS = 32
"""Places for rows between the lanes and the vector memory: enough for one per cycle in spite of the latency."""
_AHEAD = 3
"""Bits of the number of rows by which the chained instruction is known to be late."""


def _block(config):
    """Whether results wait in block RAM. The memories of large configurations need all of middle-sized devices."""
    return config.size < 16


def activation_latency(config):
    """Cycles from an instruction to its first result: two until its row is requested, two for the operands."""
    return 4 + Lane.latency + BlockFIFO.LATENCY[_block(config)]


class ActivationUnit(wiring.Component):
    """Runs VECTOR instructions, one row of N float32 per cycle.

    ::

        a --> [held] -------------> | Lane x N | --+--> results' FIFO --> d
        b --> [held] --> Shuffle -> |          |   |
                ^                                  +--> Quantizer ------> tile
        Operands: which rows

    Two instructions are under way at most: once all rows of one have begun, the next is accepted. Its first
    row begins when the one before is done; with ``chain``, each row begins when the one before has written as
    many rows and one more, or all, to the vector memory. Results leave in the order of their rows.

    Operands are granted independently of each other; a row starts only if its result has a place, so that the lanes
    never stall. Without conflicts, the first result reaches ``d`` `activation_latency` cycles after the transfer of the
    instruction, and each further row takes one cycle. A row that needs the result of another comes one cycle less
    behind it.

    LOCAL_ADDRESS is reported when an address is outside and what was under way has been written. NON_FINITE is
    reported at the end of an instruction if an infinity or NaN was to go to a tile; no tile from that one on is
    written. The two never depend on timing, and name the older instruction; rows of the vector memory may hold
    results of the younger one by then. After a fault the unit waits for its reset.

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

        instruction = Signal(isa.VECTOR.layout)
        accept = Signal()
        young = Signal()
        m.d.comb += [
            control.instruction.ready.eq(~young & ~operands.active),
            accept.eq(control.instruction.valid & control.instruction.ready),
            operands.load.eq(accept), operands.following.eq(control.instruction.payload),
            operands.instruction.eq(instruction),
        ]
        with m.If(accept):
            m.d.sync += instruction.eq(control.instruction.payload)

        row, moving = self._compute(m, operands, instruction, quantizer)
        result = data.StructLayout({"data": self.d.data.shape(), "row": len(self.d.row), "last": 1})
        m.submodules.results = results = BlockFIFO(
            width=result.size, depth=_RESULTS, block=_block(self.config))
        entry, first = result(results.w_data), result(results.r_data)
        written = Signal()
        m.d.comb += [
            results.reserve.eq(operands.begin & instruction.to_vector), results.w_en.eq(row.to_vector),
            entry.data.eq(quantizer.row), entry.row.eq(row.place), entry.last.eq(row.last),
            self.d.row.eq(first.row), self.d.data.eq(first.data), self.d.valid.eq(results.r_rdy),
            written.eq(self.d.valid & self.d.ready), results.r_en.eq(written),
        ]

        # The instruction whose rows are begun is behind an older one until that is done.
        old = Signal()
        behind = Signal()
        finished = Signal()
        ages = Signal()
        m.d.comb += [
            behind.eq(young & old),
            control.done.eq(finished & ~quantizer.non_finite),
            ages.eq(young & (~old | control.done)),
        ]
        m.d.sync += [young.eq(accept | young & ~ages), old.eq(ages | old & ~control.done)]
        rows_left, tiles_left = self._left(m, accept, ages, instruction, written & first.last, quantizer.finished)
        self._write_tiles(m, ages, instruction, operands, row, quantizer)
        ahead = self._ahead(m, ages, written, operands.begin & behind)

        # Nothing begins once an address is outside; what has begun ends by itself, and then comes the fault.
        outside = Signal()
        room = Signal()
        follows = Signal()
        m.d.comb += [
            finished.eq(old & ~rows_left & ~tiles_left),
            outside.eq(operands.outside & ~behind | quantizer.outside),
            room.eq((results.room | ~instruction.to_vector) & (quantizer.room | ~instruction.to_tile)),
            follows.eq(instruction.chain & (ahead | written | ~rows_left)),
            operands.allow.eq(room & ~quantizer.outside & (~behind | control.done | follows)),
            control.busy.eq(young | old),
            control.wait_memory.eq(operands.waiting | operands.active & instruction.to_vector & ~results.room),
            control.wait_other.eq(operands.active & ~control.wait_memory & ~operands.allow),
        ]
        with m.If(control.fault == isa.Fault.NONE):
            with m.If(outside & ~operands.held & ~moving & results.empty & quantizer.idle):
                m.d.sync += control.fault.eq(isa.Fault.LOCAL_ADDRESS)
            with m.Elif(finished & quantizer.non_finite):
                m.d.sync += control.fault.eq(isa.Fault.NON_FINITE)
        return m

    def _compute(self, m, operands, instruction, quantizer):
        """Operands through the lanes; returns which row comes out, and whether any is under way."""
        m.submodules.shuffle = shuffle = Shuffle(config=self.config)
        m.submodules.decoder = decoder = LaneDecoder()
        # What the row that was begun belongs to, and the one that was issued: the next instruction may be there.
        begun, issued = Signal.like(instruction), Signal.like(instruction)
        with m.If(operands.begin):
            m.d.sync += begun.eq(instruction)
        lane_control = Signal(LaneControl)
        held = {port: Signal(lanes(self.config), name=f"held_{port}", reset_less=True) for port in "ab"}
        m.d.sync += [
            issued.eq(begun), decoder.op.eq(issued.op), decoder.scalar.eq(issued.scalar),
            lane_control.eq(decoder.control), shuffle.mask.eq(issued.shuffle)]
        m.d.comb += [
            shuffle.i.eq(held["b"]),
            self.a.row.eq(operands.a_row), self.a.valid.eq(operands.a_valid), operands.a_ready.eq(self.a.ready),
            self.b.row.eq(operands.b_row), self.b.valid.eq(operands.b_valid), operands.b_ready.eq(self.b.ready),
        ]
        for port in "ab":
            memory, load = getattr(self, port), Signal(name=f"load_{port}")
            m.d.sync += load.eq(memory.valid & memory.ready)
            with m.If(load):
                m.d.sync += held[port].eq(memory.data)
        multipliers = shift_multipliers(self.config)["lane"]
        for i in range(self.config.size):
            m.submodules[f"lane{i}"] = lane = Lane(multipliers=multipliers)
            m.d.comb += [
                lane.control.eq(lane_control),
                lane.a.eq(held["a"][i]), lane.b.eq(shuffle.o[i]),
                quantizer.row[i].eq(lane.o),
            ]
        layout = data.StructLayout({"to_vector": 1, "to_tile": 1, "end": 1, "last": 1, "place": len(self.d.row)})
        rows = [Signal(layout, name=f"row{i}") for i in range(2 + Lane.latency)]
        m.d.sync += [
            rows[0].to_vector.eq(operands.issue & begun.to_vector),
            rows[0].to_tile.eq(operands.issue & begun.to_tile),
            rows[0].end.eq(operands.end), rows[0].last.eq(operands.last), rows[0].place.eq(operands.d_row),
            *(after.eq(before) for before, after in zip(rows, rows[1:], strict=False)),
        ]
        # Long enough ago, the latest row has come out.
        ago = Signal(ceil_log2(len(rows) + 2), init=-1)
        with m.If(operands.issue):
            m.d.sync += ago.eq(0)
        with m.Elif(~ago.all()):
            m.d.sync += ago.eq(ago + 1)
        return rows[-1], ~ago.all()

    def _left(self, m, accept, ages, instruction, rows_over, tiles_over):
        """Whether the older instruction has rows, and tiles, to write; the younger one may have written its rows."""
        rows_left = Signal()
        tiles_left = Signal()
        young_rows = Signal()
        with m.If(accept):
            m.d.sync += young_rows.eq(self.control.instruction.payload.to_vector)
        with m.If(rows_over):
            m.d.sync += rows_left.eq(0)
            with m.If(~rows_left):
                m.d.sync += young_rows.eq(0)
        with m.If(tiles_over):
            m.d.sync += tiles_left.eq(0)
        with m.If(ages):
            m.d.sync += [rows_left.eq(young_rows & ~rows_over), tiles_left.eq(instruction.to_tile)]
        return rows_left, tiles_left

    def _ahead(self, m, ages, written, begun):
        """Whether the older instruction has written more rows than the younger one has begun.

        The count ends at its largest value. It is not needed any more when the older one has written all.
        """
        ahead = Signal(_AHEAD)
        with m.If(ages):
            m.d.sync += ahead.eq(0)
        with m.Elif(written & ~begun & ~ahead.all()):
            m.d.sync += ahead.eq(ahead + 1)
        with m.Elif(begun & ~written):
            m.d.sync += ahead.eq(ahead - 1)
        return ahead != 0

    def _write_tiles(self, m, ages, instruction, operands, row, quantizer):
        """Results to tile memory. The tiles of the younger instruction wait until it is the older one."""
        m.submodules.tile = loop = AddressLoop(bits=ceil_log2(self.config.tiles))
        inner = Signal(signed(13))
        outer = Signal(signed(13))
        open = Signal()
        with m.If(ages):
            m.d.sync += [inner.eq(instruction.tile_inner), outer.eq(instruction.tile_outer),
                         open.eq(instruction.to_tile)]
        with m.Elif(quantizer.next & quantizer.over):
            m.d.sync += open.eq(0)
        wiring.connect(m, wiring.flipped(self.tile), quantizer.tile)
        m.d.comb += [
            loop.load.eq(ages), loop.start.eq(instruction.tile), loop.inner.eq(inner), loop.outer.eq(outer),
            loop.step.eq(quantizer.next), loop.wrap.eq(quantizer.wrap),
            quantizer.address.eq(Cat(loop.address, loop.beyond)),
            quantizer.reserve.eq(operands.begin & instruction.to_tile),
            quantizer.hold.eq(~open),
            quantizer.valid.eq(row.to_tile), quantizer.end.eq(row.end), quantizer.last.eq(row.last),
        ]
