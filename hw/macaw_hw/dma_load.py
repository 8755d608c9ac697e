"""Load unit: memory to vector memory or tile memory."""

from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2, exact_log2

from .dma_address import BurstGenerator, Setup
from .dma_bytes import BytePacker, StreamBuffer, Word, uint8_to_float32
from .interfaces import AxiRead, TileWrite, Unit, VectorWrite
from .isa import LOAD, DataFormat, Fault
from .ring_fifo import RingFIFO

__all__ = ["APART", "OUTSTANDING", "SETUPS", "RowWriter", "LoadUnit"]

OUTSTANDING = 16
"""Bursts in flight in each direction."""
SETUPS = 4
"""Instructions whose addresses may be ahead of their data."""
APART = {"keep": 1}
"""Attribute of a signal that the tools must not merge with what comes later, or it would become as late."""


class RowWriter(wiring.Component):
    """Collects words into rows of the vector memory, or lines of the tile memory, and writes them.

    FLOAT32 takes one word per cycle, UINT8 and BFP8 half a word where the bus is 2 N bytes wide, as long
    as the memory takes a row (line) when it is complete.

    Parameters
    ----------
    config : Config

    Members
    -------
    setup : In(stream of Setup)
        One for each instruction.
    i : In(stream of Word)
    vector, tile : Out(VectorWrite), Out(TileWrite)
    stop : In(1)
        Write nothing any more.
    done, fault : Out(1), Out(Fault)
        As in `interfaces.Unit`.
    active, blocked : Out(1)
        An instruction is in execution; a memory does not take its row.
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "setup": In(stream.Signature(Setup)), "i": In(stream.Signature(Word(config))),
            "vector": Out(VectorWrite(config)), "tile": Out(TileWrite(config)),
            "stop": In(1), "done": Out(1), "fault": Out(Fault), "active": Out(1), "blocked": Out(1),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        config, word = self.config, self.i.p
        size = config.size
        format, tiles, floats, started = Signal(DataFormat), Signal(), Signal(), Signal()

        # A bus of 2 N bytes brings two rows of bytes in a word.
        half = Signal()
        whole = Signal()
        parts = config.row_bytes // config.bus_bytes
        part = Signal(range(parts))
        piece = Signal(8 * size)
        if config.bus_bytes == size:
            m.d.comb += [piece.eq(word.data), whole.eq(1)]
        else:
            m.d.comb += [piece.eq(Mux(half, word.data[8 * size:], word.data)),
                         whole.eq(floats | half | ~word.upper)]

        # Local addresses, and whether they went beyond the memory.
        depths = ceil_log2(config.tiles), ceil_log2(config.vector_rows)
        local, beyond = Signal(max(depths)), Signal()
        line, exponent_line = Signal(exact_log2(size)), Signal()
        complete, highest = Signal(), Signal()
        m.d.comb += [
            highest.eq(Mux(tiles, local[:depths[0]].all(), local[:depths[1]].all())),
            complete.eq(~floats | (part == parts - 1) | word.group_end),
        ]

        pending, granted, step, wrong, able = Signal(), Signal(), Signal(), Signal(), Signal(attrs=APART)
        m.d.comb += [
            pending.eq(self.vector.valid | self.tile.valid),
            granted.eq((self.vector.valid & self.vector.ready) | (self.tile.valid & self.tile.ready)),
            self.blocked.eq(pending & ~granted),
            wrong.eq(word.error | word.outside | (complete & beyond)),
            # The memories answer late: what else must hold is known by then.
            able.eq(self.i.valid & started & ~wrong & ~self.stop),
            step.eq(able & ~self.blocked), self.i.ready.eq(able & whole & ~self.blocked),
            self.active.eq(started | pending),
        ]
        # A fault waits until what came before it is written and reported.
        with m.If(self.i.valid & started & wrong & ~pending & ~self.stop):
            m.d.sync += self.fault.eq(Mux(word.error, Fault.BUS_READ,
                                          Mux(word.outside, Fault.WINDOW, Fault.LOCAL_ADDRESS)))

        closing = Signal()
        m.d.sync += self.done.eq(granted & closing)
        with m.If(granted | self.stop):
            m.d.sync += [self.vector.valid.eq(0), self.tile.valid.eq(0)]
        with m.If(step):
            m.d.sync += [
                closing.eq(word.last & whole),
                self.vector.valid.eq(~tiles & complete), self.tile.valid.eq(tiles & ~exponent_line),
                self.vector.row.eq(local), self.tile.tile.eq(local), self.tile.line.eq(line),
                half.eq(~whole),
            ]
            with m.If(tiles):
                m.d.sync += exponent_line.eq(~exponent_line & (line == size - 1))
                with m.If(exponent_line):
                    m.d.sync += self.tile.exponent.eq(piece)
                with m.Else():
                    m.d.sync += line.eq(line + 1)
            with m.Else():
                m.d.sync += part.eq(Mux(complete, 0, part + 1))
        with m.If(step & Mux(tiles, ~exponent_line & (line == size - 1), complete)):
            m.d.sync += [local.eq(local + 1), beyond.eq(beyond | highest)]
        self._row(m, step, format, part, piece)

        with m.If(step & word.last & whole):
            m.d.sync += started.eq(0)
        setup = self.setup.p
        m.d.comb += self.setup.ready.eq(~started)
        with m.If(~started):
            m.d.sync += [
                started.eq(self.setup.valid), format.eq(setup.format), local.eq(setup.local), exponent_line.eq(1),
                tiles.eq(setup.format == DataFormat.BFP8), floats.eq(setup.format == DataFormat.FLOAT32),
                beyond.eq(Mux(setup.format == DataFormat.BFP8, *(setup.local[depth:].any() for depth in depths))),
            ]
        return m

    def _row(self, m, step, format, part, piece):
        """The row register; lines of tiles use its lowest bytes."""
        width = 8 * self.config.bus_bytes
        pixels = [uint8_to_float32(m, piece[8 * lane:8 * lane + 8]) for lane in range(self.config.size)]
        row = Signal(8 * self.config.row_bytes, reset_less=True)
        m.d.comb += [self.vector.data.eq(row), self.tile.data.eq(row[:8 * self.config.size])]
        with m.If(step), m.Switch(format):
            with m.Case(DataFormat.FLOAT32):
                for index in range(len(row) // width):
                    with m.If(part == index):
                        m.d.sync += row[width * index:width * (index + 1)].eq(self.i.p.data)
                with m.If(part == 0):
                    m.d.sync += row[width:].eq(0)
            with m.Case(DataFormat.UINT8):
                m.d.sync += row.eq(Cat(pixels))
            with m.Default():
                m.d.sync += row[:8 * self.config.size].eq(piece)


class LoadUnit(wiring.Component):
    """Executes LOAD: memory to vector memory (FLOAT32, UINT8) or tile memory (BFP8).

    ::

        instruction -> BurstGenerator -+--> AR
                            |          +--> info of each burst --+
                            |                                    v
                            |                              R --> + -> BytePacker -> buffer -> RowWriter -> vector, tile
                            +--> setups of instructions --------------------------------------^

    Addresses run ahead of data by up to 16 bursts and 4 instructions, so that consecutive loads hide the
    latency of the memory. Long runs take one beat per cycle (half of that for UINT8 and BFP8 where the
    bus is 2 N bytes wide); short ones issue one burst every second cycle. The first address follows its
    instruction after 6 cycles, the first row its last beat after 4.

    After a fault nothing more is written locally and no burst starts. Of an instruction that faults,
    rows that were complete before the faulting run (window) or beat (bus) are written, except perhaps the
    last one where the bus brings two rows of bytes at once.

    Parameters
    ----------
    config : Config

    Members
    -------
    control : In(Unit(LOAD))
    axi : Out(AxiRead)
    vector, tile : Out(VectorWrite), Out(TileWrite)
    window_base, window_limit : In(address_width + 1)
        First byte that may be read, and first byte beyond. Constant while not idle.
    halt : In(1)
        Start no burst, write nothing, and swallow what arrives; until reset.
    idle : Out(1)
        No burst is outstanding or offered.
    """

    def __init__(self, *, config):
        self._config = config
        width = config.address_width + 1
        super().__init__({
            "control": In(Unit(LOAD)), "axi": Out(AxiRead(config)),
            "vector": Out(VectorWrite(config)), "tile": Out(TileWrite(config)),
            "window_base": In(width), "window_limit": In(width), "halt": In(1), "idle": Out(1),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        config, control, axi = self.config, self.control, self.axi
        m.submodules.bursts = bursts = BurstGenerator(config=config)
        m.submodules.packer = packer = BytePacker(config=config)
        m.submodules.rows = rows = RowWriter(config=config)
        m.submodules.setups = setups = RingFIFO(width=Setup.size, depth=SETUPS)
        wiring.connect(m, wiring.flipped(control.instruction), bursts.instruction)
        # Keeps the arbitration of the local memories off the path to the bus.
        m.submodules.buffer = buffer = StreamBuffer(shape=Word(config))
        wiring.connect(m, packer.o, buffer.i)
        wiring.connect(m, buffer.o, rows.i)
        wiring.connect(m, rows.vector, wiring.flipped(self.vector))
        wiring.connect(m, rows.tile, wiring.flipped(self.tile))
        stop = Signal()
        m.d.comb += [
            bursts.window_base.eq(self.window_base), bursts.window_limit.eq(self.window_limit),
            setups.w_data.eq(bursts.setup.p), setups.w_en.eq(bursts.setup.valid),
            bursts.setup.ready.eq(setups.w_rdy),
            rows.setup.p.eq(setups.r_data), rows.setup.valid.eq(setups.r_rdy), setups.r_en.eq(rows.setup.ready),
            stop.eq(self.halt | (rows.fault != Fault.NONE)),
            control.done.eq(rows.done), control.fault.eq(rows.fault),
            control.busy.eq(rows.active | setups.r_rdy | control.instruction.valid),
            control.wait_memory.eq(rows.blocked),
            control.wait_other.eq(control.busy & ~rows.blocked & ~rows.i.valid),
        ]

        m.d.sync += rows.stop.eq(stop)

        offset = exact_log2(config.bus_bytes)
        layout = data.StructLayout({"start": offset, "end": offset, "group_end": 1, "last": 1, "outside": 1})
        m.submodules.infos = infos = RingFIFO(width=layout.size, depth=OUTSTANDING)
        burst, info = bursts.o.p, data.View(layout, infos.r_data)
        issue, closed = Signal(), Signal()
        m.d.comb += [
            bursts.o.ready.eq((~axi.arvalid | axi.arready) & infos.w_rdy & ~closed & ~stop),
            issue.eq(bursts.o.valid & bursts.o.ready),
            infos.w_en.eq(issue),
            infos.w_data.eq(Cat(burst.address[:offset], burst.end, burst.group_end, burst.last, burst.fault)),
        ]
        with m.If(~axi.arvalid | axi.arready):
            m.d.sync += axi.arvalid.eq(issue & ~burst.fault)
        with m.If(issue):
            m.d.sync += [axi.araddr[offset:].eq(burst.address[offset:]), axi.arlen.eq(burst.length),
                         closed.eq(burst.fault)]

        beat, begin, moved = packer.i.p, Signal(init=1), Signal()
        m.d.comb += [
            axi.rready.eq(stop | (packer.i.ready & infos.r_rdy & ~info.outside)),
            moved.eq(axi.rvalid & axi.rready),
            packer.i.valid.eq(infos.r_rdy & (axi.rvalid | info.outside) & ~stop),
            beat.data.eq(axi.rdata), beat.error.eq(~info.outside & axi.rresp.any()),
            beat.start.eq(Mux(begin, info.start, 0)), beat.end.eq(Mux(axi.rlast, info.end, ~0)),
            beat.group_end.eq(axi.rlast & info.group_end), beat.last.eq(axi.rlast & info.last),
            beat.outside.eq(info.outside),
            infos.r_en.eq(Mux(info.outside, packer.i.ready | stop, moved & axi.rlast)),
            self.idle.eq(~axi.arvalid & ~infos.r_rdy),
        ]
        with m.If(moved):
            m.d.sync += begin.eq(axi.rlast)
        return m
