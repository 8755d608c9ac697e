"""Instruction fetch: reads a program from memory, one instruction after the other."""

from amaranth.hdl import Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from .interfaces import AxiRead
from .isa import INDEX_WIDTH, INSTRUCTION_BYTES, Fault

__all__ = ["Fetched", "Fetch"]

Fetched = data.StructLayout({"bits": unsigned(8 * INSTRUCTION_BYTES), "fault": Fault})
"""An instruction; where ``fault`` is not NONE, it could not be fetched and is the last one."""

_BURST = 4
_BUFFERED = 8


class Fetch(wiring.Component):
    """Stream of the instructions of a program.

    Instructions are 32 bytes at a multiple of 32, read in bursts of up to 4 that are aligned to their
    own length, so that none crosses 4 KiB, one every third cycle. At most 8 instructions are requested ahead of
    ``o``, all of which have room: read data is accepted always, so that a stalled program cannot block the
    loads that share the bus. The first burst follows ``start`` after 4 cycles.

    Parameters
    ----------
    config : Config

    Members
    -------
    start : In(1)
        One pulse begins a program; ``address`` (bytes) and ``length`` (instructions) hold until the end.
    window_base, window_limit : In(address_width + 1)
        An instruction outside is not read: ``o.payload.fault`` is WINDOW.
    halt, idle : In(1), Out(1)
        Under ``halt`` no burst starts; ``idle`` when none is outstanding.
    finished : Out(1)
        All instructions have left through ``o``.
    """

    def __init__(self, *, config):
        self._config = config
        width = config.address_width
        super().__init__({
            "start": In(1), "address": In(width), "length": In(INDEX_WIDTH),
            "window_base": In(width + 1), "window_limit": In(width + 1),
            "halt": In(1), "idle": Out(1), "finished": Out(1),
            "axi": Out(AxiRead(config)),
            "o": Out(stream.Signature(Fetched)),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        config, axi = self.config, self.axi
        beats = INSTRUCTION_BYTES // config.bus_bytes

        # Requests take 3 cycles: where the burst ends, whether that is inside the window, the burst. One that leaves
        # the window is tried again with a single instruction, so that the fault names the first that is really
        # outside. The bit above the address is set beyond the address space.
        address, end = Signal(config.address_width + 1), Signal(config.address_width + 1)
        remaining, many, few = Signal(INDEX_WIDTH), Signal(), _BURST.bit_length()
        credit = Signal(range(_BUFFERED + 1), init=_BUFFERED)
        to_boundary, burst, count = (Signal(range(_BURST + 1)) for _ in range(3))
        planned, checked, inside, enough, single, outside, request = (Signal() for _ in range(7))
        m.d.comb += [
            to_boundary.eq(_BURST - address[5:5 + _BURST.bit_length() - 1]),
            many.eq(remaining[few:].any()),
            burst.eq(Mux(single, 1, Mux(~many & (remaining[:few] < to_boundary), remaining[:few], to_boundary))),
            request.eq(checked & inside & enough & (~axi.arvalid | axi.arready) & ~self.halt),
        ]
        m.d.sync += [
            count.eq(burst), end.eq(address + (burst << 5)), planned.eq(many | (remaining[:few] != 0)),
            inside.eq((address >= self.window_base) & (end <= self.window_limit) & ~address[config.address_width]),
            enough.eq(credit >= count), checked.eq(planned),
        ]
        with m.If(axi.arready):
            m.d.sync += axi.arvalid.eq(0)
        with m.If(request):
            m.d.sync += [
                axi.arvalid.eq(1), axi.araddr.eq(address), axi.arlen.eq(count * beats - 1),
                address.eq(end), remaining.eq(remaining - count), planned.eq(0), checked.eq(0), single.eq(0),
            ]
        with m.Elif(checked & ~inside & ~single):
            m.d.sync += [single.eq(1), planned.eq(0), checked.eq(0)]
        m.d.comb += outside.eq(checked & ~inside & single)

        outstanding = Signal(range(_BUFFERED + 1))
        m.d.sync += outstanding.eq(outstanding + (axi.arvalid & axi.arready)
                                   - (axi.rvalid & axi.rready & axi.rlast))
        m.d.comb += [axi.rready.eq(1), self.idle.eq(~axi.arvalid & (outstanding == 0))]

        # Beats, with their error flag, become instructions.
        bits = 8 * config.bus_bytes
        m.submodules.buffer = buffer = SyncFIFOBuffered(width=bits + 1, depth=_BUFFERED * beats)
        m.d.comb += [buffer.w_data.eq(Cat(axi.rdata, axi.rresp[1])), buffer.w_en.eq(axi.rvalid)]
        word = Signal(8 * INSTRUCTION_BYTES)
        error, full = Signal(), Signal()
        beat = Signal(range(beats)) if beats > 1 else Signal(1)
        taken = Signal()
        m.d.comb += [taken.eq(full & self.o.ready), buffer.r_en.eq(~full)]
        with m.If(taken):
            m.d.sync += full.eq(0)
        with m.If(buffer.r_rdy & ~full):
            m.d.sync += [
                word.eq(Cat(word, buffer.r_data[:bits])[bits:]),
                error.eq(buffer.r_data[bits] | (error & (beat != 0))),
                beat.eq(Mux(beat == beats - 1, 0, beat + 1)),
                full.eq(beat == beats - 1),
            ]
        m.d.sync += credit.eq(credit - Mux(request, count, 0) + taken)

        empty = Signal()
        m.d.comb += [
            empty.eq((credit == _BUFFERED) & ~full),
            self.o.valid.eq(full | (outside & empty)),
            self.o.p.bits.eq(word),
            self.o.p.fault.eq(Mux(full, Mux(error, Fault.BUS_READ, Fault.NONE), Fault.WINDOW)),
            self.finished.eq(~many & (remaining[:few] == 0) & empty),
        ]
        with m.If(self.start):
            m.d.sync += [address.eq(self.address), remaining.eq(self.length), planned.eq(0), checked.eq(0)]
        return m
