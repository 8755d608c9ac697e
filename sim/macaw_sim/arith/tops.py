"""Components that make a stream of each arithmetic unit: elements in, results out."""

from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2
from macaw_hw.accumulator import Accumulator
from macaw_hw.dma_bytes import float32_to_uint8
from macaw_hw.dma_load import RowWriter
from macaw_hw.dma_store_path import ByteAligner, RowReader
from macaw_hw.isa import DataFormat, VectorOp
from macaw_hw.lane import Lane, LaneDecoder
from macaw_hw.quantizer import Quantizer

__all__ = ["StreamTop", "Pipelines", "ToUint8", "Lanes", "Quantize", "Accumulate", "LoadPixels",
           "StorePixels"]


class StreamTop(wiring.Component):
    """A component that `macaw_sim.arith.build.Stream` can drive.

    Members
    -------
    i : In, i_valid : In(1), i_ready : Out(1)
        An element goes in where both are set; ``i_ready`` depends on registers only.
    o : Out, o_valid : Out(1)
        Results; there is no backpressure. All widths are multiples of 32 bits.
    """

    def __init__(self, inputs, outputs):
        super().__init__({"i": In(32 * inputs), "i_valid": In(1), "i_ready": Out(1),
                          "o": Out(32 * outputs), "o_valid": Out(1)})

    def _held(self, m, go):
        """A register for the element in turn, which ``go`` empties, and whether it is full."""
        held, full = Signal.like(self.i, name="held"), Signal()
        m.d.comb += self.i_ready.eq(~full | go)
        with m.If(self.i_ready):
            m.d.sync += [held.eq(self.i), full.eq(self.i_valid)]
        return held, full


class Pipelines(StreamTop):
    """Copies of a unit with a constant latency and the output ``o``, side by side.

    An element has, port by port, the words of all copies.

    Parameters
    ----------
    make : callable
        Makes a copy.
    ports : iterable of str
        Its inputs, of 32 bits or fewer.
    copies : int
    """

    def __init__(self, make, ports, copies):
        self._make, self._ports, self._copies = make, tuple(ports), copies
        super().__init__(copies * len(self._ports), copies)

    def elaborate(self, platform):
        m = Module()
        held, full = self._held(m, 1)
        for index in range(self._copies):
            m.submodules[f"unit{index}"] = unit = self._make()
            m.d.comb += self.o.word_select(index, 32).eq(unit.o)
            for number, port in enumerate(self._ports):
                word = held.word_select(number * self._copies + index, 32)
                m.d.comb += getattr(unit, port).eq(word)
        m.d.comb += self.o_valid.eq(_delayed(m, full, unit.latency))
        return m


class ToUint8(wiring.Component):
    """`float32_to_uint8` as a unit: the byte, and above it whether the value is not finite."""

    latency = 2

    def __init__(self):
        super().__init__({"a": In(32), "o": Out(32)})

    def elaborate(self, platform):
        m = Module()
        byte, bad = float32_to_uint8(m, self.a)
        m.d.sync += self.o.eq(Cat(byte, bad))
        return m


class Lanes(StreamTop):
    """Lanes with a decoder each.

    An element has a word with the operation, and then all ``a``, all ``b``, all scalars. The bit
    `CHANGE` of the first word says that the operation or a scalar changes: the pipeline runs empty
    before, as the lanes demand.
    """

    CHANGE = 1 << 31

    def __init__(self, copies, multipliers):
        self._copies, self._multipliers = copies, multipliers
        super().__init__(1 + 3 * copies, copies)

    def elaborate(self, platform):
        m = Module()
        go, fresh = Signal(), Signal()
        held, full = self._held(m, go)
        busy = Signal(range(Lane.latency + 2))
        change = Signal()
        m.d.comb += [change.eq(full & held[31] & ~fresh & (busy == 0)),
                     go.eq(full & (~held[31] | fresh))]
        with m.If(go):
            m.d.sync += [fresh.eq(0), busy.eq(Lane.latency + 1)]
        with m.Else():
            m.d.sync += [fresh.eq(fresh | change), busy.eq(busy - (busy != 0))]
        op, scalars = Signal(VectorOp), Signal(32 * self._copies)
        with m.If(change):
            m.d.sync += [op.eq(held[:len(op)]), scalars.eq(held[32 + 64 * self._copies:])]
        for index in range(self._copies):
            m.submodules[f"lane{index}"] = lane = Lane(multipliers=self._multipliers)
            m.submodules[f"decoder{index}"] = decoder = LaneDecoder()
            m.d.comb += [
                decoder.op.eq(op), decoder.scalar.eq(scalars.word_select(index, 32)),
                lane.control.eq(decoder.control),
                lane.a.eq(held.word_select(1 + index, 32)),
                lane.b.eq(held.word_select(1 + self._copies + index, 32)),
                self.o.word_select(index, 32).eq(lane.o),
            ]
        m.d.comb += self.o_valid.eq(_delayed(m, go, Lane.latency))
        return m


class Quantize(StreamTop):
    """The quantizer.

    An element is a row, and a word of which bit 0 says that its tile ends with it. A result is a
    line of a tile: its mantissas, and a word with the exponent.
    """

    def __init__(self, config):
        self._config = config
        super().__init__(config.size + 1, config.size // 4 + 1)

    def elaborate(self, platform):
        m = Module()
        m.submodules.quantizer = quantizer = Quantizer(config=self._config)
        size, go = self._config.size, Signal()
        held, full = self._held(m, go)
        address = Signal(exact_log2(self._config.tiles))
        m.d.comb += [
            go.eq(full & quantizer.room), quantizer.reserve.eq(go), quantizer.address.eq(address),
            quantizer.tile.ready.eq(1),
            self.o_valid.eq(quantizer.tile.valid),
            self.o.eq(Cat(quantizer.tile.data, quantizer.tile.exponent)),
        ]
        m.d.sync += [quantizer.valid.eq(go), quantizer.row.eq(held[:32 * size]),
                     quantizer.end.eq(held[32 * size])]
        with m.If(quantizer.next):
            m.d.sync += address.eq(address + 1)
        return m


class Accumulate(StreamTop):
    """The accumulator, with a small memory of old rows.

    An element has the old row, the sums, and a word with the scale, of which bit 10 is ``fresh``.
    """

    def __init__(self, config):
        self._config = config
        super().__init__(2 * config.size + 1, config.size)

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = unit = Accumulator(config=self._config)
        size, rows = self._config.size, 2 * Accumulator.loop
        m.submodules.old = old = Memory(shape=32 * size, depth=1 << rows.bit_length(), init=[])
        write, read = old.write_port(), old.read_port()
        held, full = self._held(m, 1)
        row = Signal.like(write.addr)
        m.d.sync += row.eq(row + self.i_valid)
        m.d.comb += [
            write.addr.eq(row), write.en.eq(self.i_valid), write.data.eq(self.i),
            unit.valid.eq(full), unit.scale.eq(held[64 * size:]),
            unit.result.fresh.eq(held[64 * size + 10]),
            read.addr.eq(unit.acc_read.row), read.en.eq(unit.acc_read.valid),
            unit.acc_read.ready.eq(1), unit.acc_read.data.eq(read.data), unit.acc_write.ready.eq(1),
            self.o_valid.eq(unit.acc_write.valid), self.o.eq(unit.acc_write.data),
        ]
        m.d.sync += unit.result.row.eq(row)
        for lane in range(size):
            m.d.comb += unit.sums[lane].eq(held.word_select(size + lane, 32))
        return m


class LoadPixels(StreamTop):
    """`RowWriter` on bytes. An element is a word of the bus, a result a row of float32."""

    def __init__(self, config):
        self._config = config
        super().__init__(config.bus_bytes // 4, config.size)

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.unit = unit = RowWriter(config=config)
        held, full = self._held(m, unit.i.ready)
        m.d.comb += [
            unit.setup.valid.eq(1), unit.setup.p.format.eq(DataFormat.UINT8),
            unit.i.valid.eq(full), unit.i.p.data.eq(held), unit.i.p.upper.eq(1),
            unit.i.p.last.eq(1), unit.vector.ready.eq(1),
            self.o_valid.eq(unit.vector.valid), self.o.eq(unit.vector.data),
        ]
        return m


class StorePixels(StreamTop):
    """`RowReader` and `ByteAligner` on rows that become bytes.

    Instructions have `ROWS` rows, and begin at each byte of a beat in turn. An element is a row; a
    result is a beat, and a word with its strobes.
    """

    ROWS = 8

    def __init__(self, config):
        assert config.bus_bytes == config.size
        self._config = config
        super().__init__(config.size, config.bus_bytes // 4 + 1)

    def elaborate(self, platform):
        m = Module()
        config, bus = self._config, self._config.bus_bytes
        m.submodules.reader = reader = RowReader(config=config)
        m.submodules.aligner = aligner = ByteAligner(config=config)
        read = Signal()
        held, full = self._held(m, read)
        m.d.comb += read.eq(reader.vector.valid & full)
        row = Signal(data.ArrayLayout(32, config.size))
        with m.If(read):
            m.d.sync += row.eq(held)

        start = Signal(exact_log2(bus))
        beat = Signal(range(self.ROWS + 1))
        last, whole, need = Signal(), start == 0, reader.i.p
        m.d.comb += [
            last.eq(beat == self.ROWS - whole),
            need.end.eq(bus - 1), need.count.eq(bus), need.last.eq(last), need.group_end.eq(last),
            need.burst_end.eq(last), reader.i.valid.eq(1),
            reader.setup.valid.eq(1), reader.setup.p.format.eq(DataFormat.UINT8),
            reader.room.eq(1), reader.vector.ready.eq(full),
            aligner.step.eq(reader.step), aligner.stepped.eq(reader.stepped), aligner.row.eq(row),
            self.o_valid.eq(aligner.o_valid), self.o.eq(Cat(aligner.o_data, aligner.o_strobes)),
        ]
        with m.If(~whole & (beat == 0)):
            m.d.comb += need.count.eq(bus - start)
        with m.Elif(~whole & last):
            m.d.comb += [need.count.eq(start), need.end.eq(start - 1)]
        with m.If(reader.i.ready):
            m.d.sync += beat.eq(beat + 1)
            with m.If(last):
                m.d.sync += [beat.eq(0), start.eq(start + 1)]
        return m


def _delayed(m, signal, cycles):
    for number in range(cycles):
        after = Signal(name=f"delayed{number}")
        m.d.sync += after.eq(signal)
        signal = after
    return signal
