"""Store unit: vector memory or tile memory to memory."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .dma_address import Burst, BurstGenerator, Setup
from .dma_bytes import StreamBuffer
from .dma_load import OUTSTANDING, SETUPS
from .dma_store_path import ByteAligner, Cause, Demand, RowReader
from .interfaces import AxiWrite, TileRead, Unit, VectorRead
from .isa import STORE, Fault
from .ring_fifo import RingFIFO

__all__ = ["StoreUnit"]

_BEATS = 16
"""Beats read from the local memories ahead of the bus."""

_FAULTS = {Cause.OUTSIDE: Fault.WINDOW, Cause.LOCAL_ADDRESS: Fault.LOCAL_ADDRESS,
           Cause.NON_FINITE: Fault.NON_FINITE}


class StoreUnit(wiring.Component):
    """Executes STORE: vector memory (FLOAT32, UINT8) or tile memory (BFP8) to memory.

    ::

        instruction -> BurstGenerator -+--> AW
                            |          +--> beats --> buffer
                            |                       v
                            +-> setups --> RowReader <- vector, tile
                                                    v
                                               ByteAligner --> beats ahead --> W
                                                    |
                                                    +--> ends of bursts --> + <-- B
                                                                            v
                                                                       done, fault

    A burst's address leaves when its first beat is begun; the rows for it are read at once, and up to 16
    beats wait for the bus. Up to 16 bursts wait for their response. Long runs write one beat per cycle
    (BFP8 on a bus of 2 N bytes every second cycle, UINT8 every fourth), with a cycle between bursts.

    After a fault no burst starts, and those begun write nothing more. Faults are reported in order: what
    came before is written and has been acknowledged.

    Parameters
    ----------
    config : Config

    Members
    -------
    control : In(Unit(STORE))
    axi : Out(AxiWrite)
    vector, tile : Out(VectorRead), Out(TileRead)
    window_base, window_limit : In(address_width + 1)
        First byte that may be written, and first byte beyond. Constant while not idle.
    halt : In(1)
        Start no burst, and end those begun without reading or writing anything; until reset.
    idle : Out(1)
        No burst is outstanding or offered.
    """

    def __init__(self, *, config):
        self._config = config
        width = config.address_width + 1
        super().__init__({
            "control": In(Unit(STORE)), "axi": Out(AxiWrite(config)),
            "vector": Out(VectorRead(config)), "tile": Out(TileRead(config)),
            "window_base": In(width), "window_limit": In(width), "halt": In(1), "idle": Out(1),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        config, control = self.config, self.control
        m.submodules.bursts = bursts = BurstGenerator(config=config)
        m.submodules.reader = reader = RowReader(config=config)
        m.submodules.aligner = aligner = ByteAligner(config=config)
        m.submodules.setups = setups = RingFIFO(width=Setup.size, depth=SETUPS)
        # Keeps the arbitration of the local memories off the path to the bus.
        m.submodules.buffer = buffer = StreamBuffer(shape=Demand(config))
        wiring.connect(m, buffer.o, reader.i)
        wiring.connect(m, wiring.flipped(control.instruction), bursts.instruction)
        wiring.connect(m, reader.vector, wiring.flipped(self.vector))
        wiring.connect(m, reader.tile, wiring.flipped(self.tile))
        stop, outstanding = Signal(), Signal(range(OUTSTANDING + 1))
        m.d.comb += [
            bursts.window_base.eq(self.window_base), bursts.window_limit.eq(self.window_limit),
            setups.w_data.eq(bursts.setup.p), setups.w_en.eq(bursts.setup.valid),
            bursts.setup.ready.eq(setups.w_rdy),
            reader.setup.p.eq(setups.r_data), reader.setup.valid.eq(setups.r_rdy),
            setups.r_en.eq(reader.setup.ready),
            stop.eq(self.halt | (control.fault != Fault.NONE)), aligner.stop.eq(stop),
            aligner.step.eq(reader.step), aligner.stepped.eq(reader.stepped),
            aligner.row.eq(self.vector.data), aligner.line.eq(self.tile.data),
            aligner.exponent.eq(self.tile.exponent),
            self.idle.eq(outstanding == 0),
            control.busy.eq(reader.active | setups.r_rdy | control.instruction.valid | ~self.idle),
            control.wait_memory.eq(reader.blocked),
            control.wait_other.eq(control.busy & ~reader.blocked & ~reader.stepped),
        ]
        m.d.sync += reader.stop.eq(stop)
        begun = self._begin(m, bursts.o, buffer.i, stop, outstanding)
        self._write(m, reader, aligner)
        ended = self._end(m, aligner)
        with m.If(begun ^ ended):
            m.d.sync += outstanding.eq(outstanding + Mux(begun, 1, -1))
        return m

    def _begin(self, m, burst, demands, stop, outstanding):
        """Addresses, and what each beat needs. Returns: a burst begins."""
        axi, need = self.axi, demands.p
        offset = exact_log2(self.config.bus_bytes)
        closed, begun, going, take = Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            begun.eq(burst.valid & ~going & (~axi.awvalid | axi.awready) & (outstanding != OUTSTANDING)
                     & ~closed & ~stop),
            burst.ready.eq(begun),
        ]
        with m.If(axi.awready):
            m.d.sync += axi.awvalid.eq(0)
        with m.If(begun):
            m.d.sync += [axi.awvalid.eq(~burst.p.fault), axi.awaddr[offset:].eq(burst.p.address[offset:]),
                         axi.awlen.eq(burst.p.length), closed.eq(burst.p.fault)]

        # The burst whose beats are in turn.
        current, first, final = Signal(Burst(self.config), reset_less=True), Signal(), Signal()
        start, end = Signal(offset), Signal(offset)
        m.d.comb += [
            final.eq(current.fault | (current.length == 0)), take.eq(going & demands.ready),
            start.eq(Mux(first, current.address, 0)), end.eq(Mux(final, current.end, ~C(0, offset))),
            demands.valid.eq(going),
            need.end.eq(end), need.count.eq((end - start)[:offset] + 1), need.burst_end.eq(final),
            need.group_end.eq(final & current.group_end), need.last.eq(final & current.last),
            need.outside.eq(current.fault),
        ]
        with m.If(take):
            m.d.sync += [current.length.eq(current.length - 1), first.eq(0), going.eq(~final)]
        with m.If(begun):
            m.d.sync += [current.eq(burst.p), first.eq(1), going.eq(1)]
        return begun

    def _write(self, m, reader, aligner):
        """Beats wait for the bus; those in the pipeline have their place already."""
        axi = self.axi
        width = len(axi.wdata) + len(axi.wstrb) + 1
        m.submodules.beats = beats = RingFIFO(width=width, depth=_BEATS)
        room = Signal(range(_BEATS + 1), init=_BEATS)
        reserved = reader.i.ready & ~reader.i.p.outside
        with m.If(reserved ^ (axi.wvalid & axi.wready)):
            m.d.sync += room.eq(room + Mux(reserved, -1, 1))
        m.d.sync += reader.room.eq(room[1:].any())  # more than one: one may be reserved in this cycle
        m.d.comb += [
            beats.w_en.eq(aligner.o_valid),
            beats.w_data.eq(Cat(aligner.o_data, aligner.o_strobes, aligner.o_end)),
            Cat(axi.wdata, axi.wstrb, axi.wlast).eq(beats.r_data),
            axi.wvalid.eq(beats.r_rdy), beats.r_en.eq(axi.wready),
        ]

    def _end(self, m, aligner):
        """Responses meet what is known of their bursts. Returns: a burst is over."""
        axi, control = self.axi, self.control
        layout = data.StructLayout({"last": unsigned(1), "cause": Cause})
        m.submodules.ends = ends = RingFIFO(width=layout.size, depth=OUTSTANDING)
        end, over = data.View(layout, ends.r_data), Signal()
        m.d.comb += [
            ends.w_en.eq(aligner.ended), ends.w_data.eq(Cat(aligner.last, aligner.cause)),
            axi.bready.eq(ends.r_rdy & (end.cause != Cause.OUTSIDE)),
            over.eq(ends.r_rdy & (axi.bvalid | (end.cause == Cause.OUTSIDE))),
            ends.r_en.eq(over),
        ]
        running = over & (control.fault == Fault.NONE)
        m.d.sync += control.done.eq(0)
        with m.If(running), m.Switch(end.cause):
            for cause, fault in _FAULTS.items():
                with m.Case(cause):
                    m.d.sync += control.fault.eq(fault)
            with m.Default():
                with m.If(axi.bresp.any()):
                    m.d.sync += control.fault.eq(Fault.BUS_WRITE)
                with m.Else():
                    m.d.sync += control.done.eq(end.last)
        return over
