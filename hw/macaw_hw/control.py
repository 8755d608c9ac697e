"""AXI4-Lite registers, and the state machine that starts and stops programs."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import enum, wiring
from amaranth.lib.wiring import In, Out

from .counters import Counters
from .isa import INDEX_WIDTH, INSTRUCTION_BYTES, Fault, FaultUnit
from .registers import CONFIG_REGISTERS, COUNTERS, REGISTER_SPACE, REGISTERS, Access

__all__ = ["AxiLite", "Control"]

_OKAY, _SLVERR = 0, 2


class AxiLite(wiring.Signature):
    """AXI4-Lite, 32 bits of data; directions of the master."""

    def __init__(self):
        address = (REGISTER_SPACE - 1).bit_length()
        super().__init__({
            "awaddr": Out(address), "awprot": Out(3), "awvalid": Out(1), "awready": In(1),
            "wdata": Out(32), "wstrb": Out(4), "wvalid": Out(1), "wready": In(1),
            "bresp": In(2), "bvalid": In(1), "bready": Out(1),
            "araddr": Out(address), "arprot": Out(3), "arvalid": Out(1), "arready": In(1),
            "rdata": In(32), "rresp": In(2), "rvalid": In(1), "rready": Out(1),
        })


class State(enum.Enum, shape=2):
    """What the device does."""
    IDLE = 0
    """Registers are open."""
    RUN = 1
    """A program runs; its registers are locked."""
    DRAIN = 2
    """Stopped: no burst starts, those outstanding end."""
    CLEAR = 3
    """One cycle: sequencer and units are reset."""


class Control(wiring.Component):
    """Registers of the device (`registers.REGISTERS`), doorbell, faults, watchdog, interrupt.

    Members
    -------
    bus : In(AxiLite)
    irq : Out(1)
    start : Out(1)
        One pulse: begin the program at ``program_address`` of ``program_length`` instructions.
    running : Out(1)
    halt, clear : Out(1)
        Start no burst any more; reset of everything that runs programs, for one cycle.
    drained : In(1)
        No burst is outstanding.
    finished : In(1)
        All instructions are fetched and done.
    fault, fault_unit, fault_index : In
        Of the sequencer.
    oldest_index : In(INDEX_WIDTH)
        The instruction a watchdog fault names.
    progress : In(1)
        Something moved: feeds the watchdog.
    events : In(3) for each of `registers.COUNTERS`
    """

    def __init__(self, *, config):
        self._config = config
        width = config.address_width
        super().__init__({
            "bus": In(AxiLite()), "irq": Out(1),
            "start": Out(1), "running": Out(1), "halt": Out(1), "clear": Out(1), "drained": In(1), "finished": In(1),
            "program_address": Out(width), "program_length": Out(INDEX_WIDTH),
            "window_base": Out(width + 1), "window_limit": Out(width + 1),
            "fault": In(Fault), "fault_unit": In(FaultUnit), "fault_index": In(INDEX_WIDTH),
            "oldest_index": In(INDEX_WIDTH), "progress": In(1),
            "events": In(3).array(len(COUNTERS)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.counters = counters = Counters(count=len(COUNTERS))
        for event, counter in zip(self.events, counters.events, strict=True):
            m.d.comb += counter.eq(event)

        # Registers that the bus writes as plain values, and how many bits of them are kept.
        width = self._config.address_width
        kept = {"program_address": width, "program_length": INDEX_WIDTH, "watchdog": 32,
                "window_base": width + 1, "window_limit": width + 1}
        plain = {name: Signal(bits, name=name, init=REGISTERS[name].reset) for name, bits in kept.items()}
        m.d.comb += [getattr(self, name).eq(signal) for name, signal in plain.items() if name != "watchdog"]

        state = Signal(State)
        request = {"start": Signal(), "abort": Signal()}
        m.d.comb += [self.running.eq(state == State.RUN), self.halt.eq(state == State.DRAIN),
                     counters.enable.eq(self.running)]
        status = self._states(m, state, request, plain["watchdog"], counters)

        irq_enable, irq_status = Signal(3), Signal(3)
        ended = Cat(status["done"], status["fault"], status["aborted"])
        ended_before = Signal(3)
        rising = ended & ~ended_before
        irq_clear = Signal(3)
        m.d.sync += [ended_before.eq(ended), irq_status.eq((irq_status & ~irq_clear) | rising)]
        m.d.comb += self.irq.eq((irq_status & irq_enable).any())

        values = {
            **{name: REGISTERS[name].reset for name in ("identity", "version")},
            **{name: getattr(self._config, name) for name in CONFIG_REGISTERS},
            **plain, **{name: counters.value for name in COUNTERS},
            "status": Cat(state != State.IDLE, ended), "irq_enable": irq_enable, "irq_status": irq_status,
            **{f"fault_{name}": status[f"fault_{name}"] for name in ("code", "unit", "instruction")},
        }
        self._reads(m, values, counters)
        address, mask, data = self._writes(m, state)

        def written(target, zeros=0):
            """Replace the strobed bits of ``target`` by those of the bus; the bits in ``zeros`` stay 0."""
            m.d.sync += target.eq((target & ~mask | data & mask) & ~Const(zeros, 32))

        with m.Switch(address):
            for name, signal in plain.items():
                for low in range(0, REGISTERS[name].width, 32):
                    with m.Case((REGISTERS[name].offset + low // 8) // 4):
                        aligned = (name, low) == ("program_address", 0)
                        written(signal[low:low + 32], INSTRUCTION_BYTES - 1 if aligned else 0)
            with m.Case(REGISTERS["irq_enable"].offset // 4):
                written(irq_enable)
            with m.Case(REGISTERS["irq_status"].offset // 4):
                m.d.comb += irq_clear.eq(data & mask)
            with m.Case(REGISTERS["control"].offset // 4):
                for bits in REGISTERS["control"].bits:
                    m.d.comb += request[bits.name].eq(data[bits.low] & mask[bits.low])
        return m

    def _states(self, m, state, request, watchdog, counters):
        """Doorbell to end of program; how the last one ended."""
        status = {"done": Signal(), "fault": Signal(), "aborted": Signal(), "fault_code": Signal(Fault),
                  "fault_unit": Signal(FaultUnit), "fault_instruction": Signal(INDEX_WIDTH)}
        quiet = Signal(32)
        m.d.sync += quiet.eq(Mux(self.progress | ~self.running, 0, quiet + 1))

        def stop(fault, unit, instruction):
            m.d.sync += [status["fault"].eq(1), status["fault_code"].eq(fault), status["fault_unit"].eq(unit),
                         status["fault_instruction"].eq(instruction), state.eq(State.DRAIN)]

        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(request["start"]):
                    m.d.comb += [self.start.eq(1), counters.clear.eq(1)]
                    m.d.sync += [state.eq(State.RUN), *(signal.eq(0) for signal in status.values())]
            with m.Case(State.RUN):
                with m.If(self.fault != Fault.NONE):
                    stop(self.fault, self.fault_unit, self.fault_index)
                with m.Elif((watchdog != 0) & (quiet >= watchdog)):
                    stop(Fault.WATCHDOG, FaultUnit.SEQUENCER, self.oldest_index)
                with m.Elif(request["abort"]):
                    m.d.sync += [status["aborted"].eq(1), state.eq(State.DRAIN)]
                with m.Elif(self.finished):
                    m.d.sync += [status["done"].eq(1), state.eq(State.CLEAR)]
            with m.Case(State.DRAIN):
                with m.If(self.drained):
                    m.d.sync += state.eq(State.CLEAR)
            with m.Case(State.CLEAR):
                m.d.comb += self.clear.eq(1)
                m.d.sync += state.eq(State.IDLE)
        return status

    def _reads(self, m, values, counters):
        """One read at a time; the low word of a counter latches its high word."""
        bus = self.bus
        high = Signal(32)
        accept = Signal()
        m.d.comb += [bus.arready.eq(~bus.rvalid), accept.eq(bus.arvalid & bus.arready)]
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        first = REGISTERS[next(iter(COUNTERS))].offset // 8
        m.d.comb += counters.select.eq(bus.araddr[3:] - first)
        with m.If(accept):
            m.d.sync += [bus.rvalid.eq(1), bus.rresp.eq(_OKAY), bus.rdata.eq(0)]
            with m.Switch(bus.araddr[2:]):
                for name, register in REGISTERS.items():
                    word = register.offset // 4
                    if name in COUNTERS:
                        with m.Case(word):
                            m.d.sync += [bus.rdata.eq(counters.value[:32]), high.eq(counters.value[32:])]
                        with m.Case(word + 1):
                            m.d.sync += bus.rdata.eq(high)
                        continue
                    value = values.get(name, 0)
                    value = Const(value, 32) if isinstance(value, int) else Cat(value)
                    with m.Case(word):
                        m.d.sync += bus.rdata.eq(value[:32])
                    if register.width == 64:
                        with m.Case(word + 1):
                            m.d.sync += bus.rdata.eq(value[32:])
                with m.Default():
                    m.d.sync += bus.rresp.eq(_SLVERR)

    def _writes(self, m, state):
        """Accept address and data together; the word written in this cycle, its bit mask, its data."""
        bus = self.bus
        accept, allowed = Signal(), Signal()
        m.d.comb += [accept.eq(bus.awvalid & bus.wvalid & ~bus.bvalid),
                     bus.awready.eq(accept), bus.wready.eq(accept)]
        with m.Switch(bus.awaddr[2:]):
            for register in REGISTERS.values():
                if register.access == Access.READ:
                    continue
                for low in range(0, register.width // 8, 4):
                    with m.Case((register.offset + low) // 4):
                        m.d.comb += allowed.eq((state == State.IDLE) if register.locked else 1)
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(accept):
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(Mux(allowed, _OKAY, _SLVERR))]
        mask = Signal(32)
        m.d.comb += mask.eq(Mux(accept & allowed, Cat(strobe.replicate(8) for strobe in bus.wstrb), 0))
        return bus.awaddr[2:], mask, bus.wdata
