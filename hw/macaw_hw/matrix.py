"""Matrix unit: whole reductions on the MAC array, from tile memory to vector memory."""

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from .accumulator import Accumulator, result_layout
from .delay import DelayLine
from .interfaces import EXPONENT, TileRead, Unit, VectorRead, VectorWrite
from .isa import MATRIX, Fault
from .mac_array import MacArray
from .matrix_control import Streamer, WeightLoader

__all__ = ["MatrixUnit"]


class MatrixUnit(wiring.Component):
    """Executes MATRIX instructions; see `isa.MATRIX` for what they compute.

    ::

        instruction --+-> WeightLoader -- w --> weights ----+
                      |     | full  ^ taken                 v
                      +-> Streamer ---- x --> x -------> MacArray --> Accumulator <--> vector memory
                            |                                          ^
                            +-- result, exponents ---> DelayLine ------+

    The loader works on the W tile after the one in use, even when that belongs to the next instruction, so a
    step of the reduction takes max(rows, N) cycles, without gaps between steps or instructions, as long as
    the tile memory serves both ports. From a row of X on its port to the write of its result are
    N + 6 + the latencies of `IntToFloat` and `FloatAdd`, `drain` cycles until the instruction is done.

    An instruction with an address out of range stops the unit with a LOCAL_ADDRESS fault, after what was
    computed before that address was met has been written.

    Parameters
    ----------
    config : Config

    Members
    -------
    control : In(Unit(MATRIX))
    x, w : Out(TileRead)
        Streamed and stationary operand; ``x`` must be ready always.
    acc_read : Out(VectorRead), acc_write : Out(VectorWrite)
        Old and new rows; must be ready always.
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            "control": In(Unit(MATRIX)),
            "x": Out(TileRead(config)), "w": Out(TileRead(config)),
            "acc_read": Out(VectorRead(config)), "acc_write": Out(VectorWrite(config)),
        })

    @property
    def config(self):
        return self._config

    @property
    def drain(self):
        """Cycles from a row on port `x` until it is in memory and `done`."""
        return self.config.size + 4 + Accumulator.latency

    def elaborate(self, platform):
        m = Module()
        config, control = self.config, self.control
        m.submodules.loader = loader = WeightLoader(config=config)
        m.submodules.streamer = streamer = Streamer(config=config, drain=self.drain + 2)
        m.submodules.array = array = MacArray(config=config)
        m.submodules.accumulator = accumulator = Accumulator(config=config)
        wiring.connect(m, loader.w, wiring.flipped(self.w))
        wiring.connect(m, streamer.x, wiring.flipped(self.x))
        wiring.connect(m, accumulator.acc_read, wiring.flipped(self.acc_read))
        wiring.connect(m, accumulator.acc_write, wiring.flipped(self.acc_write))

        start = Signal()
        m.d.comb += [
            control.instruction.ready.eq(loader.ready & streamer.ready & ~streamer.fault),
            start.eq(control.instruction.valid & control.instruction.ready),
            loader.start.eq(start), loader.instruction.eq(control.instruction.payload),
            streamer.start.eq(start), streamer.instruction.eq(control.instruction.payload),
            loader.taken.eq(streamer.taken), streamer.full.eq(loader.full),
            streamer.w_out_of_range.eq(loader.out_of_range),
            array.weights.eq(self.w.data), array.weight_row.eq(loader.o_row), array.load.eq(loader.o_load),
            array.x.eq(self.x.data), array.valid.eq(streamer.o_valid), array.first.eq(streamer.o_first),
        ]
        self._results(m, loader, streamer, array, accumulator)
        self._report(m, start, streamer.taken, accumulator.done, streamer.fault)
        return m

    def _results(self, m, loader, streamer, array, accumulator):
        """The array to the accumulator, together with the rows' destinations and exponents."""
        next_exponent = Signal(EXPONENT, reset_less=True)
        w_exponent = Signal(EXPONENT, reset_less=True)
        x_exponent = Signal(EXPONENT, reset_less=True)
        result = Signal(result_layout(self.config), reset_less=True)
        m.d.sync += [x_exponent.eq(self.x.exponent), result.eq(streamer.o_result)]
        with m.If(loader.o_load):
            m.d.sync += next_exponent.eq(self.w.exponent)
        with m.If(streamer.o_valid & streamer.o_first):
            m.d.sync += w_exponent.eq(next_exponent)

        context = data.StructLayout({"result": result_layout(self.config), "scale": signed(10)})
        m.submodules.delay = delay = DelayLine(width=context.size, cycles=array.latency - 2)
        before = Signal(context, reset_less=True)
        after = context(delay.o)
        m.d.sync += [before.result.eq(result), before.scale.eq(x_exponent + w_exponent)]
        m.d.comb += [
            delay.i.eq(before),
            accumulator.result.eq(after.result), accumulator.scale.eq(after.scale),
            accumulator.valid.eq(array.o_valid),
        ]
        m.d.comb += [sum_in.eq(sum_out) for sum_in, sum_out in zip(accumulator.sums, array.o_sum, strict=True)]

    def _report(self, m, start, taken, done, fault):
        """What the sequencer and the counters want to know."""
        control = self.control
        outstanding = Signal(4)  # two in control, and one for each N cycles of the pipeline
        m.d.sync += outstanding.eq(outstanding + start - done)
        # Weights are late on account of the memory if it refused any of their reads.
        refused = Signal()
        late = Signal()
        stalled = Signal()
        with m.If(refused):
            m.d.sync += late.eq(1)
        with m.Elif(taken):
            m.d.sync += late.eq(0)
        m.d.comb += [
            refused.eq(self.w.valid & ~self.w.ready),
            stalled.eq(~self.x.valid & (refused | late)),
            control.done.eq(done),
            control.fault.eq(Mux(fault, Fault.LOCAL_ADDRESS, Fault.NONE)),
            control.busy.eq(outstanding != 0),
            control.wait_memory.eq(stalled),
            control.wait_other.eq(control.busy & ~self.x.valid & ~stalled),
        ]
