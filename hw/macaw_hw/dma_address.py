"""Addresses of the DMA engine: four nested loops become runs, runs become AXI4 bursts."""

from amaranth.hdl import Array, C, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

from .counters import element
from .isa import LOAD, LOOPS, DataFormat

__all__ = ["Setup", "Run", "Burst", "RunGenerator", "BurstSplitter", "BurstGenerator"]

_PAGE = 4096
_BEATS = 256

Setup = data.StructLayout({"format": DataFormat, "local": unsigned(16)})
"""What the data side needs once for each instruction."""


_STRIDE = 28
"""Bits of a stride; a run is shorter than the longest one."""


class Run(data.StructLayout):
    """Contiguous bytes ``first`` to ``final`` (inclusive); the end of a group of rows, of the instruction.

    Both have more bits than addresses, which are zero for a byte inside of the address space. Where they are not
    in ``first``, ``final`` means nothing, nor does any run that follows.
    """
    def __init__(self, config):
        width = max(config.address_width, _STRIDE) + 1
        super().__init__({"first": unsigned(width), "final": unsigned(width),
                          "group_end": unsigned(1), "last": unsigned(1)})


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


class _State(enum.Enum, shape=3):
    """What the generator of runs does."""
    IDLE = 0
    BEGIN = 1
    """An instruction was accepted."""
    PREPARE = 2
    """What depends on the new run alone: its last byte, which loops end with it."""
    OFFER = 3
    FILL = 4
    """The run was accepted; the next one waits until all starts are kept."""


class RunGenerator(wiring.Component):
    """The four nested loops: a run every second cycle, and a cycle more for each loop that begins again.

    Each loop keeps the address its current iteration began at. A step adds the stride of the innermost
    loop that has iterations left to that loop's address, and restarts the loops inside it from there.

    As a byte outside of the address space is a fault, which nothing follows, addresses need one bit more than
    the address space or a stride: a step from an address inside of it, forward or backward, never wraps.

    The first run follows its instruction after 3 cycles.

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
            "o": Out(stream.Signature(Run(config))),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        fields, width = self.instruction.payload, len(self.o.p.first)
        state, accept, step = Signal(_State), Signal(), Signal()
        pack = Signal(2, reset_less=True)
        loops = range(LOOPS)
        count = [Signal(12, name=f"count{i}", reset_less=True) for i in loops]
        stride = [Signal(_STRIDE, name=f"stride{i}", reset_less=True) for i in loops]
        number = [Signal(12, name=f"number{i}", reset_less=True) for i in loops]
        first = Signal(width, reset_less=True)
        ended = Signal(LOOPS)
        """Bit i: loop i and all loops inside it are in their last iteration."""

        # Where the current iteration of each loop began. A step starts all loops from `fill` inwards anew, one after
        # the other.
        m.submodules.starts = starts = Memory(shape=width, depth=LOOPS, init=[])
        write, read = starts.write_port(), starts.read_port(domain="comb")
        filling, fill = Signal(), Signal(range(LOOPS))
        with m.If(filling):
            m.d.sync += [fill.eq(fill - 1), filling.eq(fill != 0)]
        m.d.comb += [write.addr.eq(fill), write.data.eq(first), write.en.eq(filling)]

        m.d.comb += [
            self.setup.valid.eq(self.instruction.valid & (state == _State.IDLE)),
            self.setup.p.format.eq(fields.format), self.setup.p.local.eq(fields.local),
            self.instruction.ready.eq((state == _State.IDLE) & self.setup.ready),
            accept.eq(self.instruction.valid & self.instruction.ready),
            self.o.valid.eq(state == _State.OFFER),
            self.o.p.first.eq(first), self.o.p.last.eq(ended[-1]),
            self.o.p.group_end.eq(Array([1, *ended[:-1]])[pack]),
        ]

        # `level` is the innermost loop that has iterations left; those inside it begin again. Iterations are
        # numbered from 1.
        level = Signal(range(LOOPS))
        m.d.comb += read.addr.eq(level)
        address = Cat(fields.address[:width - 1], fields.address[width - 1:].any())
        with m.If(accept | step):
            m.d.sync += [
                first.eq(Mux(accept, address, read.data + element(stride, level).as_signed())),
                fill.eq(level | accept.replicate(2)), filling.eq(1),
            ]
        for i in loops:
            with m.If(step & (level == i)):
                m.d.sync += number[i].eq(number[i] + 1)
            with m.If((state == _State.BEGIN) | ((state == _State.OFFER) & ended[i])):
                m.d.sync += number[i].eq(1)

        span = self._span(m, state == _State.BEGIN)
        with m.Switch(state):
            with m.Case(_State.IDLE):
                with m.If(accept):
                    m.d.sync += [state.eq(_State.BEGIN), pack.eq(fields.pack)]
                    for i in loops:
                        m.d.sync += [count[i].eq(fields[f"count{i}"]), stride[i].eq(fields[f"stride{i}"])]
            with m.Case(_State.BEGIN):
                m.d.sync += state.eq(_State.PREPARE)
            with m.Case(_State.PREPARE):
                last = Cat(number[i] == count[i] for i in loops)
                m.d.sync += [
                    state.eq(_State.OFFER), self.o.p.final.eq(first + span),
                    ended.eq(Cat(last[:i + 1].all() for i in loops)),
                    level.eq(Mux(~last[0], 0, Mux(~last[1], 1, Mux(~last[2], 2, 3)))),
                ]
            with m.Case(_State.OFFER):
                with m.If(self.o.ready):
                    m.d.comb += step.eq(~filling & ~ended[-1])
                    m.d.sync += state.eq(Mux(ended[-1], _State.IDLE, Mux(filling, _State.FILL, _State.PREPARE)))
            with m.Case(_State.FILL):
                m.d.comb += step.eq(~filling)
                with m.If(~filling):
                    m.d.sync += state.eq(_State.PREPARE)
        return m

    def _span(self, m, begin):
        """Distance of the last byte of a run from its first one, 2 cycles after the instruction.

        ``begin`` is set in the first.
        """
        n = exact_log2(self.config.size)
        run, format = self.instruction.p.run, self.instruction.p.format
        tiles, floats = format == DataFormat.BFP8, format == DataFormat.FLOAT32
        # A tile record has N * N + N bytes: N times (N + 1).
        more, units = Signal(16, reset_less=True), Signal(16, reset_less=True)
        shift = Signal(2, reset_less=True)
        m.d.sync += [units.eq(run - 1), more.eq(Mux(tiles, run, 0)), shift.eq(Cat(tiles, floats))]
        final = Signal(16 + n + 1)
        m.d.comb += final.eq(units + (more << n))
        span = Signal(16 + self.config.tile_bytes.bit_length(), reset_less=True)
        with m.If(begin):
            m.d.sync += span.eq(Mux(shift[0], Cat(C(-1, n), final),
                                    Mux(shift[1], Cat(C(-1, 2), final[:16]), final[:16])))
        return span


class BurstSplitter(wiring.Component):
    """Checks runs against the window and splits them into bursts, one every second cycle.

    Bursts end at multiples of 4 KiB, or of 256 beats where that is less, so that each has at most 256 beats
    and none crosses 4 KiB. A run with a byte outside of the window gives one entry with ``fault``. The first
    burst follows its run after 2 cycles.

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
            "i": In(stream.Signature(Run(config))), "o": Out(stream.Signature(Burst(config))),
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

        # What is left of the run.
        left, page, place, final = Signal(), Signal(width - piece), Signal(piece), Signal(width)
        group_end, last, outside, whole, move = Signal(), Signal(), Signal(), Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~left), move.eq(left & ~self.o.valid),
            whole.eq(outside | (page >= final[piece:])),  # never greater; a carry chain is smaller than equality
        ]
        with m.If(self.i.valid & ~left):
            m.d.sync += [
                left.eq(1), Cat(place, page).eq(run.first), final.eq(run.final),
                group_end.eq(run.group_end), last.eq(run.last),
                outside.eq((run.first < self.window_base) | (run.final >= self.window_limit)
                           | Cat(run.first[width:], run.final[width:]).any()),
            ]
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        with m.If(move):
            m.d.sync += [
                left.eq(~whole), page.eq(page + 1), place.eq(0),
                self.o.valid.eq(1), burst.address.eq(Cat(place, page)),
                burst.length.eq(Mux(whole, final[beat:piece], ~C(0, piece - beat)) - place[beat:]),
                burst.end.eq(Mux(whole, final[:beat], ~C(0, beat))),
                burst.group_end.eq(group_end & whole), burst.last.eq(last & whole), burst.fault.eq(outside),
            ]
        return m


class BurstGenerator(wiring.Component):
    """Bursts of LOAD and STORE instructions, in order::

        instruction -> RunGenerator -> BurstSplitter -> o
                            |
                            +-> setup

    The first burst follows its instruction after 5 cycles; there is one every second cycle.

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
