"""AXI4-Lite registers, and the state machine that starts and stops programs."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import data, enum, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .counters import Counters, element
from .isa import INDEX_WIDTH, INSTRUCTION_BYTES, Fault, FaultUnit, Queue
from .registers import CONFIG_REGISTERS, COUNTERS, REGISTER_SPACE, REGISTERS, Access

__all__ = ["EVENT_COUNTS", "AxiLite", "Control"]

_OKAY, _SLVERR = 0, 2
_LIMITS = {name: len(Queue) if name == "instructions" else 1 for name in COUNTERS}

EVENT_COUNTS = data.StructLayout({name: range(limit + 1) for name, limit in _LIMITS.items()})
"""How often each of `registers.COUNTERS` counts in a cycle: at most once, but for instructions of several units."""


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
    progress : In(1)
        Something moved: feeds the watchdog.
    expired : Out(1)
        Nothing moved for as long as the watchdog allows. The sequencer answers with the fault.
    events : In(EVENT_COUNTS)
        What `registers.COUNTERS` count in this cycle.
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
            "progress": In(1), "expired": Out(1), "events": In(EVENT_COUNTS),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.counters = counters = Counters(limits=_LIMITS.values())
        for name, counter in zip(COUNTERS, counters.events, strict=True):
            m.d.comb += counter.eq(self.events[name])

        # Registers that the bus writes as plain values, and how many bits of them are kept.
        width = self._config.address_width
        kept = {"program_address": width, "program_length": INDEX_WIDTH, "watchdog": 32,
                "window_base": width + 1, "window_limit": width + 1}
        plain = {name: Signal(bits, name=name, init=REGISTERS[name].reset) for name, bits in kept.items()}
        m.d.comb += [getattr(self, name).eq(signal) for name, signal in plain.items() if name != "watchdog"]

        state = Signal(State)
        asked, request = ({name: Signal(name=f"{kind}_{name}") for name in ("start", "abort")}
                          for kind in ("asked", "request"))
        m.d.sync += [request[name].eq(asked[name]) for name in request]
        m.d.comb += self.running.eq(state == State.RUN)
        m.d.sync += [counters.enable.eq(self.running), counters.clear.eq(self.start)]
        status = self._states(m, state, request)
        self._watch(m, plain["watchdog"])

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
        self._writes(m, state, {**plain, "irq_enable": irq_enable}, asked, irq_clear)
        return m

    def _states(self, m, state, request):
        """Doorbell to end of program; how the last one ended."""
        status = {"done": Signal(), "fault": Signal(), "aborted": Signal(), "fault_code": Signal(Fault),
                  "fault_unit": Signal(FaultUnit), "fault_instruction": Signal(INDEX_WIDTH)}
        faulted = Signal()
        # `halt` and `clear` have registers of their own beside the state, as they reach everything.
        m.d.sync += self.clear.eq(0)
        with m.Switch(state):
            with m.Case(State.IDLE):
                with m.If(request["start"]):
                    m.d.comb += self.start.eq(1)
                    m.d.sync += state.eq(State.RUN)
            with m.Case(State.RUN):
                with m.If(self.fault != Fault.NONE):
                    m.d.comb += faulted.eq(1)
                    m.d.sync += [state.eq(State.DRAIN), self.halt.eq(1)]
                with m.Elif(request["abort"]):
                    m.d.sync += [status["aborted"].eq(1), state.eq(State.DRAIN), self.halt.eq(1)]
                with m.Elif(self.finished):
                    m.d.sync += [status["done"].eq(1), state.eq(State.CLEAR), self.clear.eq(1)]
            with m.Case(State.DRAIN):
                with m.If(self.drained):
                    m.d.sync += [state.eq(State.CLEAR), self.halt.eq(0), self.clear.eq(1)]
            with m.Case(State.CLEAR):
                m.d.sync += state.eq(State.IDLE)
        with m.If(faulted):
            m.d.sync += [
                status["fault"].eq(1), status["fault_code"].eq(self.fault),
                status["fault_unit"].eq(self.fault_unit), status["fault_instruction"].eq(self.fault_index),
            ]
        with m.If(self.start):
            m.d.sync += [signal.eq(0) for signal in status.values()]
        return status

    def _watch(self, m, watchdog):
        """Cycles without progress."""
        quiet = Signal(32)
        m.d.sync += quiet.eq(quiet + 1)
        with m.If(self.progress | ~self.running):
            m.d.sync += quiet.eq(0)
        with m.If(~self.running):
            m.d.sync += self.expired.eq(0)
        with m.Elif((quiet >= watchdog) & (watchdog != 0)):
            m.d.sync += self.expired.eq(1)

    def _reads(self, m, values, counters):
        """One read at a time; the low word of a counter latches its high word. The answer comes in the second
        cycle after the request, that of a counter when its turn comes."""
        bus = self.bus
        first = REGISTERS[next(iter(COUNTERS))].offset // 4
        end = first + 2 * len(COUNTERS)
        words = [0] * first
        for name, register in REGISTERS.items():
            if name not in COUNTERS:
                value = values.get(name, 0)
                value = Const(value, 32) if isinstance(value, int) else Cat(value)
                for low in range(0, register.width, 32):
                    words[(register.offset + low // 8) // 4] = value[low:low + 32]
        unused = [index for index, value in enumerate(words) if isinstance(value, int)]
        # Behind them, the low word of the counter that is read, and the high word of the latest one.
        latched = Signal(32)
        words += [counters.value[:32], latched]

        reading, accept = Signal(), Signal()
        word, low, known = Signal(ceil_log2(len(words))), Signal(), Signal()
        address = bus.araddr[2:]
        m.d.comb += [bus.arready.eq(~reading & ~bus.rvalid), accept.eq(bus.arvalid & bus.arready)]
        with m.If(bus.rvalid & bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(accept):
            m.d.sync += [
                reading.eq(1), word.eq(Mux(address < first, address, first + address[0])),
                counters.select.eq(address[1:] - first // 2),
                low.eq((address >= first) & (address < end) & ~address[0]),
                known.eq((address < end) & ~Cat(address == index for index in unused).any()),
            ]

        m.d.comb += counters.request.eq(reading & low)
        with m.If(reading):
            m.d.sync += bus.rdata.eq(element(words, word))
            with m.If(~low | counters.valid):
                m.d.sync += [reading.eq(0), bus.rvalid.eq(1), bus.rresp.eq(Mux(known, _OKAY, _SLVERR))]
        with m.If(counters.valid):
            m.d.sync += latched.eq(counters.value[32:])

    def _writes(self, m, state, registers, request, irq_clear):
        """Accept address and data together; write and answer in the next cycle."""
        bus = self.bus
        writing, accept, allowed = Signal(), Signal(), Signal()
        value, strobes = Signal(32), Signal(4)
        m.d.comb += [accept.eq(bus.awvalid & bus.wvalid & ~writing & ~bus.bvalid),
                     bus.awready.eq(accept), bus.wready.eq(accept)]
        m.d.sync += writing.eq(accept)
        with m.If(accept):
            m.d.sync += [value.eq(bus.wdata), strobes.eq(bus.wstrb)]
        with m.If(bus.bvalid & bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(writing):
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq(Mux(allowed, _OKAY, _SLVERR))]

        for name, register in REGISTERS.items():
            for low in range(0, register.width, 32) if register.access != Access.READ else ():
                meant, hit = Signal(name=f"{name}{low}_meant"), Signal(name=f"{name}{low}_hit")
                with m.If(accept):
                    m.d.sync += meant.eq(bus.awaddr[2:] == (register.offset + low // 8) // 4)
                m.d.comb += hit.eq(meant & ((state == State.IDLE) if register.locked else 1))
                with m.If(hit):
                    m.d.comb += allowed.eq(1)
                with m.If(writing & hit):
                    if name == "control":
                        m.d.comb += [request[bits.name].eq(value[bits.low] & strobes[bits.low // 8])
                                     for bits in register.bits]
                    elif name == "irq_status":
                        m.d.comb += irq_clear.eq(value & strobes[0].replicate(len(irq_clear)))
                    else:
                        _replace(m, registers[name][low:low + 32], value, strobes,
                                 INSTRUCTION_BYTES - 1 if (name, low) == ("program_address", 0) else 0)


def _replace(m, target, value, strobes, zeros):
    """Replace the strobed bytes of ``target``; the bits in ``zeros`` stay 0."""
    for low in range(0, len(target), 8):
        with m.If(strobes[low // 8]):
            m.d.sync += target[low:low + 8].eq((value & ~Const(zeros, 32))[low:low + 8])
