"""Addresses of the DMA engine: four nested loops become runs, runs become AXI4 bursts."""

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .isa import LOAD, LOOPS, DataFormat

__all__ = ["ADDRESS_BITS", "Setup", "Run", "Burst", "RunGenerator", "BurstSplitter", "BurstGenerator"]

ADDRESS_BITS = 40
"""Addresses in instructions wrap here; those that do not fit the bus are outside of any window."""

_PAGE = 4096
_BEATS = 256

Setup = data.StructLayout({"format": DataFormat, "local": unsigned(16)})
"""What the data side needs once for each instruction."""

Run = data.StructLayout({"first": unsigned(ADDRESS_BITS), "final": unsigned(ADDRESS_BITS + 1),
                         "group_end": unsigned(1), "last": unsigned(1)})
"""Contiguous bytes ``first`` to ``final`` (inclusive); the end of a group of rows, of the instruction."""


class Burst(data.StructLayout):
    """A burst, and which bytes of it the program asked for.

    Fields
    ------
    address : address_width bits
        First byte asked for; the burst starts at the beat around it.
    length : 8 bits
        Beats less one.
    end : log2(bus_bytes) bits
        Last byte asked for, within the last beat.
    group_end, last : 1 bit
        The burst ends a group of rows, the instruction.
    fault : 1 bit
        Not a burst: here the instruction leaves the window.
    """
    def __init__(self, config):
        super().__init__({
            "address": unsigned(config.address_width), "length": unsigned(8),
            "end": unsigned(exact_log2(config.bus_bytes)),
            "group_end": unsigned(1), "last": unsigned(1), "fault": unsigned(1),
        })


class RunGenerator(wiring.Component):
    """The four nested loops: one run per cycle, without a gap between instructions.

    Each loop keeps the address its current iteration began at. A step adds the stride of the innermost
    loop that has iterations left to that loop's address, and restarts the loops inside it from there.

    Parameters
    ----------
    config : Config

    Members
    -------
    instruction : In(stream of the layout of LOAD, which is that of STORE)
    setup : Out(stream of Setup)
        Transfers in the same cycle as the instruction.
    o : Out(stream of Run)
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "instruction": In(stream.Signature(LOAD.layout)), "setup": Out(stream.Signature(Setup)),
            "o": Out(stream.Signature(Run)),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        fields = self.instruction.payload
        active, moving, accept, free = Signal(), Signal(), Signal(), Signal()
        pack = Signal(2)
        span = Signal(16 + self.config.tile_bytes.bit_length(), reset_less=True)
        loops = range(LOOPS)
        count = [Signal(12, name=f"count{i}", reset_less=True) for i in loops]
        stride = [Signal(28, name=f"stride{i}", reset_less=True) for i in loops]
        number = [Signal(12, name=f"number{i}", reset_less=True) for i in loops]
        start = [Signal(ADDRESS_BITS, name=f"start{i}", reset_less=True) for i in loops]
        once, last = Signal(LOOPS), Signal(LOOPS)

        m.d.comb += [
            moving.eq(active & (~self.o.valid | self.o.ready)),
            free.eq(~active | (moving & last.all())),
            self.setup.valid.eq(self.instruction.valid & free),
            self.setup.p.format.eq(fields.format), self.setup.p.local.eq(fields.local),
            self.instruction.ready.eq(free & self.setup.ready),
            accept.eq(self.instruction.valid & self.instruction.ready),
        ]

        # Bit i of `turns`: all loops inside loop i are in their last iteration.
        turns, base, step = Signal(LOOPS), Signal(ADDRESS_BITS), Signal(28)
        following = Signal(ADDRESS_BITS)
        m.d.comb += [turns.eq(Cat(last[:i].all() for i in loops)),
                     base.eq(start[-1]), step.eq(stride[-1])]
        for i in reversed(loops[:-1]):
            with m.If(~last[i]):
                m.d.comb += [base.eq(start[i]), step.eq(stride[i])]
        m.d.comb += following.eq(Mux(accept, fields.address, base + step.as_signed()))
        for i in loops:
            with m.If(accept | (moving & turns[i])):
                m.d.sync += start[i].eq(following)
            # Iterations are numbered from 1.
            successor = Signal(12, name=f"successor{i}")
            m.d.comb += successor.eq(number[i] + 1)
            with m.If(moving & turns[i]):
                m.d.sync += [number[i].eq(successor), last[i].eq(Mux(last[i], once[i], successor == count[i]))]
            with m.If(accept | (moving & turns[i] & last[i])):
                m.d.sync += number[i].eq(1)

        with m.If(moving):
            m.d.sync += [
                self.o.p.first.eq(start[0]), self.o.p.final.eq(start[0] + span),
                self.o.p.group_end.eq(Array([1, *(last[:i].all() for i in loops[1:])])[pack]),
                self.o.p.last.eq(last.all()),
                active.eq(~last.all()),
            ]
        with m.If(self.o.ready | moving):
            m.d.sync += self.o.valid.eq(moving)
        with m.If(accept):
            m.d.sync += [active.eq(1), pack.eq(fields.pack), span.eq(self._run_bytes() - 1)]
            for i in loops:
                given = fields[f"count{i}"]
                m.d.sync += [count[i].eq(given), stride[i].eq(fields[f"stride{i}"]),
                             last[i].eq(given == 1), once[i].eq(given == 1)]
        return m

    def _run_bytes(self):
        """Size of a run. A tile record has N * N + N bytes."""
        n = exact_log2(self.config.size)
        run, format = self.instruction.p.run, self.instruction.p.format
        tiles = (run << 2 * n) + (run << n)
        return Mux(format == DataFormat.BFP8, tiles, Mux(format == DataFormat.FLOAT32, run << 2, run))


class BurstSplitter(wiring.Component):
    """Checks runs against the window and splits them into bursts, one per cycle.

    Bursts end at multiples of 4 KiB, or of 256 beats where that is less, so that each has at most 256 beats
    and none crosses 4 KiB. A run with a byte outside of the window gives one entry with ``fault``.

    Parameters
    ----------
    config : Config

    Members
    -------
    i : In(stream of Run)
    window_base, window_limit : In(address_width + 1)
        First byte inside of the window, first byte beyond it.
    o : Out(stream of Burst)
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "i": In(stream.Signature(Run)), "o": Out(stream.Signature(Burst(config))),
            "window_base": In(config.address_width + 1), "window_limit": In(config.address_width + 1),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        width = self.config.address_width
        beat = exact_log2(self.config.bus_bytes)
        piece = exact_log2(min(_PAGE, _BEATS * self.config.bus_bytes))
        run, burst = self.i.p, self.o.p

        final = Signal(width, reset_less=True)
        group_end, last, whole = Signal(), Signal(), Signal()
        m.d.comb += [
            whole.eq(burst.address[piece:] == final[piece:]),
            burst.length.eq(Mux(whole, final[beat:piece], ~C(0, piece - beat)) - burst.address[beat:piece]),
            burst.end.eq(Mux(whole, final[:beat], ~C(0, beat))),
            burst.group_end.eq(group_end & whole), burst.last.eq(last & whole),
            self.i.ready.eq(~self.o.valid | (self.o.ready & (whole | burst.fault))),
        ]
        with m.If(self.i.ready):
            m.d.sync += [
                self.o.valid.eq(self.i.valid),
                burst.address.eq(run.first), final.eq(run.final),
                group_end.eq(run.group_end), last.eq(run.last),
                burst.fault.eq((run.first < self.window_base) | (run.final >= self.window_limit)
                               | run.final[width:].any()),
            ]
        with m.Elif(self.o.ready):
            m.d.sync += burst.address.eq(Cat(C(0, piece), burst.address[piece:] + 1))
        return m


class BurstGenerator(wiring.Component):
    """Bursts of LOAD and STORE instructions, in order::

        instruction -> RunGenerator -> BurstSplitter -> o
                            |
                            +-> setup

    The first burst follows its instruction after 3 cycles.

    Parameters
    ----------
    config : Config

    Members
    -------
    instruction : In(stream of the layout of LOAD, which is that of STORE)
    window_base, window_limit : In(address_width + 1)
    setup : Out(stream of Setup)
    o : Out(stream of Burst)
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "instruction": In(stream.Signature(LOAD.layout)), "setup": Out(stream.Signature(Setup)),
            "window_base": In(config.address_width + 1), "window_limit": In(config.address_width + 1),
            "o": Out(stream.Signature(Burst(config))),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        m.submodules.runs = runs = RunGenerator(config=self.config)
        m.submodules.splitter = splitter = BurstSplitter(config=self.config)
        wiring.connect(m, wiring.flipped(self.instruction), runs.instruction)
        wiring.connect(m, runs.setup, wiring.flipped(self.setup))
        wiring.connect(m, runs.o, splitter.i)
        wiring.connect(m, splitter.o, wiring.flipped(self.o))
        m.d.comb += [splitter.window_base.eq(self.window_base), splitter.window_limit.eq(self.window_limit)]
        return m
