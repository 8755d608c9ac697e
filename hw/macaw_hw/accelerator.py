"""Top level: registers, sequencer, DMA engine, memories, MAC array, activation unit."""

from amaranth.hdl import Cat, Module, ResetInserter, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from .activation import ActivationUnit
from .axi import ReadArbiter
from .control import AxiLite, Control
from .dma_load import LoadUnit
from .dma_store import StoreUnit
from .events import EVENTS
from .fetch import Fetch
from .interfaces import AxiRead, AxiWrite
from .isa import Queue
from .matrix import MatrixUnit
from .registers import COUNTERS
from .sequencer import Sequencer
from .tile_memory import TileMemory
from .vector_memory import VectorMemory

__all__ = ["Accelerator"]

_ID_WIDTH = 1
_CACHE = 0b0011
"""Normal, non-cacheable, bufferable: what most interconnects expect of a DMA."""


class Accelerator(wiring.Component):
    """Macaw: an AXI4-Lite slave for control, an AXI4 master for memory, an interrupt.

    ::

          s_axi ---> Control <--> Fetch --> Sequencer --> load | matrix | vector | store
                                    |                       |      |        |       |
          m_axi <--- ReadArbiter <--+------- LoadUnit <-----+      |        |       |
          m_axi <---------------------------- StoreUnit <----------|--------|-------+
                                             |        |            |        |
                             TileMemory <----+--------+---> MatrixUnit   ActivationUnit
                             VectorMemory <--+--------+------------+--------+

    Parameters
    ----------
    config : Config
    observe : bool
        With the port ``events``, for a simulator; nothing else differs.

    Members
    -------
    s_axi_* : AXI4-Lite slave, 12 address and 32 data bits
    m_axi_* : AXI4 master, ``bus_bytes`` wide; read ids 0 (loads) and 1 (instructions), write id 0
    irq : Out(1)
        Level, high while an enabled event is pending.
    events : Out(30)
        What the units do in this cycle: bits named by `events.EVENTS`, the lowest first.
    """

    def __init__(self, *, config, observe=False):
        self._config, self._observed = config, observe
        id_members = {f"m_axi_{channel}id": direction(_ID_WIDTH) for channel, direction in
                      (("aw", Out), ("b", In), ("ar", Out), ("r", In))}
        fixed = {f"m_axi_{channel}{name}": Out(width) for channel in ("aw", "ar") for name, width in
                 (("size", 3), ("burst", 2), ("lock", 1), ("cache", 4), ("prot", 3), ("qos", 4))}
        super().__init__({
            **{f"s_axi_{name}": member for name, member in AxiLite().flip().members.items()},
            **{f"m_axi_{name}": member for signature in (AxiWrite(config), AxiRead(config))
               for name, member in signature.members.items()},
            **id_members, **fixed,
            "irq": Out(1), **({"events": Out(len(EVENTS))} if observe else {}),
        })

    @property
    def config(self):
        return self._config

    @property
    def observe(self):
        return self._observed

    def elaborate(self, platform):
        m = Module()
        config = self.config
        m.submodules.control = control = Control(config=config)
        m.submodules.vector_memory = vector_memory = VectorMemory(config=config)
        m.submodules.tile_memory = tile_memory = TileMemory(config=config)
        m.submodules.read_arbiter = arbiter = ReadArbiter(config=config)

        # What runs programs is reset as a whole between programs.
        fetch, sequencer = Fetch(config=config), Sequencer(config=config)
        load, store = LoadUnit(config=config), StoreUnit(config=config)
        matrix, activation = MatrixUnit(config=config), ActivationUnit(config=config)
        for name, component in {"fetch": fetch, "sequencer": sequencer, "load": load, "store": store,
                                "matrix": matrix, "activation": activation}.items():
            m.submodules[name] = ResetInserter(control.clear)(component)

        wiring.connect(m, fetch.o, sequencer.i)
        units = {Queue.LOAD: load, Queue.MATRIX: matrix, Queue.VECTOR: activation, Queue.STORE: store}
        for queue, unit in units.items():
            wiring.connect(m, getattr(sequencer, queue.name.lower()), unit.control)
        ports = [
            (matrix.acc_read, vector_memory.acc_read), (activation.a, vector_memory.a),
            (activation.b, vector_memory.b), (store.vector, vector_memory.store),
            (matrix.acc_write, vector_memory.acc_write), (activation.d, vector_memory.d),
            (load.vector, vector_memory.load),
            (matrix.x, tile_memory.x), (matrix.w, tile_memory.w), (store.tile, tile_memory.store),
            (activation.tile, tile_memory.quantize), (load.tile, tile_memory.load),
        ]
        for unit_port, memory_port in ports:
            wiring.connect(m, unit_port, memory_port)
        self._bus(m, arbiter, load, fetch, store)
        self._control(m, control, fetch, sequencer, load, store)
        self._observe(m, control, sequencer, units, [unit_port for unit_port, _ in ports])
        return m

    def _bus(self, m, arbiter, load, fetch, store):
        """Memory master: reads through the arbiter, writes from the store unit, constants."""
        wiring.connect(m, load.axi, arbiter.masters[0])
        wiring.connect(m, fetch.axi, arbiter.masters[1])

        def bridge(members, inner):
            for name, member in members.items():
                outer, inside = getattr(self, f"m_axi_{name}"), getattr(inner, name)
                m.d.comb += outer.eq(inside) if member.flow == Out else inside.eq(outer)

        bridge(AxiWrite(self.config).members, store.axi)
        bridge(AxiRead(self.config).members, arbiter.axi)
        m.d.comb += [self.m_axi_arid.eq(arbiter.arid), arbiter.rid.eq(self.m_axi_rid), self.m_axi_awid.eq(0)]
        for channel in ("aw", "ar"):
            m.d.comb += [
                getattr(self, f"m_axi_{channel}size").eq(self.config.bus_bytes.bit_length() - 1),
                getattr(self, f"m_axi_{channel}burst").eq(1),
                getattr(self, f"m_axi_{channel}cache").eq(_CACHE),
            ]

    def _control(self, m, control, fetch, sequencer, load, store):
        """Registers to what they govern."""
        for name in AxiLite().members:
            outer, inner = getattr(self, f"s_axi_{name}"), getattr(control.bus, name)
            m.d.comb += inner.eq(outer) if AxiLite().members[name].flow == Out else outer.eq(inner)
        for unit in (fetch, load, store):
            m.d.comb += [unit.window_base.eq(control.window_base), unit.window_limit.eq(control.window_limit),
                         unit.halt.eq(control.halt | sequencer.stop)]
        m.d.comb += [
            self.irq.eq(control.irq),
            fetch.start.eq(control.start),
            fetch.address.eq(control.program_address), fetch.length.eq(control.program_length),
            control.drained.eq(fetch.idle & load.idle & store.idle),
            control.finished.eq(fetch.finished & sequencer.empty),
            control.fault.eq(sequencer.fault), control.fault_unit.eq(sequencer.fault_unit),
            control.fault_index.eq(sequencer.fault_index), sequencer.expired.eq(control.expired),
        ]

    def _observe(self, m, control, sequencer, units, ports):
        """Counters and the watchdog."""
        read = self.m_axi_rvalid & self.m_axi_rready
        written = self.m_axi_wvalid & self.m_axi_wready
        events = {"cycles": 1, "fetch_blocked": sequencer.blocked, "beats_read": read, "beats_written": written,
                  "instructions": sum(unit.control.done for unit in units.values())}
        for queue, unit in units.items():
            events |= {f"{queue.name.lower()}_{kind}": getattr(unit.control, kind)
                       for kind in ("busy", "wait_memory", "wait_other")}
            events[f"{queue.name.lower()}_wait_token"] = sequencer.waiting[queue]
        # A cycle later, so that nothing long ends here.
        m.d.sync += [control.events[name].eq(events[name]) for name in COUNTERS]
        offers = [*ports, *(unit.control.instruction for unit in units.values())]
        valid, ready = Signal(len(offers)), Signal(len(offers))
        others = Signal(3 + len(units))
        m.d.sync += [
            valid.eq(Cat(port.valid for port in offers)), ready.eq(Cat(port.ready for port in offers)),
            others.eq(Cat(read, written, self.m_axi_bvalid, *(unit.control.done for unit in units.values()))),
            control.progress.eq((valid & ready).any() | others.any()),
        ]
        if self.observe:
            self._show(m, control, sequencer, units)

    def _show(self, m, control, sequencer, units):
        """The port ``events``."""
        bits = {"running": control.running, "fetch_blocked": sequencer.blocked}
        for queue, unit in units.items():
            instruction = unit.control.instruction
            bits |= {f"{queue.name.lower()}_{name}": bit for name, bit in (
                ("waiting", sequencer.waiting[queue]), ("offered", instruction.valid),
                ("issued", instruction.valid & instruction.ready),
                *((kind, getattr(unit.control, kind)) for kind in ("done", "busy", "wait_memory", "wait_other")))}
        m.d.comb += self.events.eq(Cat(bits[name] for name in EVENTS))
