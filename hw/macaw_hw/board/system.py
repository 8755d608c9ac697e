"""The accelerator with a memory and a serial line: everything on a board that is not its pins."""

from amaranth.hdl import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from ..accelerator import Accelerator
from ..control import AxiLite
from ..interfaces import AxiRead, AxiWrite
from .bridge import Bridge
from .memory import BoardMemory

__all__ = ["BoardSystem"]


class BoardSystem(wiring.Component):
    """Accelerator, block memory and bridge.

    ::

        rx, tx <--> Bridge --- registers ---> Accelerator --- irq --> Bridge
                      |                            |
                      +-- byte port --> BoardMemory <-- AXI4

    Parameters
    ----------
    config : Config
    size : int
        Bytes of memory, a power of two from 4096.
    divisor : int
        Cycles per bit on the line.
    clock : int
        Frequency in Hz.

    Members
    -------
    rx, tx : In(1), Out(1)
    irq, alarm : Out(1)
        For lamps: an interrupt is pending; the latest frame was damaged or refused.
    """

    def __init__(self, *, config, size, divisor, clock):
        self._config, self._size, self._divisor, self._clock = config, size, divisor, clock
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1), "irq": Out(1),
                          "alarm": Out(1)})

    @property
    def config(self):
        return self._config

    @property
    def size(self):
        return self._size

    @property
    def divisor(self):
        return self._divisor

    @property
    def clock(self):
        return self._clock

    def elaborate(self, platform):
        m = Module()
        bridge = Bridge(divisor=self._divisor, size=self._size, clock=self._clock)
        macaw = Accelerator(config=self._config)
        memory = BoardMemory(config=self._config, size=self._size)
        m.submodules.bridge = bridge
        m.submodules.macaw = ResetInserter(bridge.reset)(macaw)
        m.submodules.memory = ResetInserter(bridge.reset)(memory)
        m.d.comb += [bridge.rx.eq(self.rx), self.tx.eq(bridge.tx), bridge.irq.eq(macaw.irq),
                     self.irq.eq(macaw.irq), self.alarm.eq(bridge.alarm)]

        def connect(members, master, slave):
            """Each member of a signature, from where it is driven to where it is read."""
            for name, member in members.items():
                source, sink = (master, slave) if member.flow == Out else (slave, master)
                m.d.comb += sink(name).eq(source(name))

        def port(interface):
            return lambda name: getattr(interface, name)

        connect(AxiLite().members, port(bridge.bus), lambda name: getattr(macaw, f"s_axi_{name}"))
        for signature, slave in ((AxiRead, memory.read), (AxiWrite, memory.write)):
            connect(signature(self._config).members, lambda name: getattr(macaw, f"m_axi_{name}"),
                    port(slave))
        m.d.comb += [memory.arid.eq(macaw.m_axi_arid), macaw.m_axi_rid.eq(memory.rid),
                     memory.awid.eq(macaw.m_axi_awid), macaw.m_axi_bid.eq(memory.bid)]
        for name in ("address", "valid", "store", "data", "block", "forget"):
            m.d.comb += getattr(memory, name).eq(getattr(bridge, name))
        for name in ("ready", "q", "changed", "forgotten"):
            m.d.comb += getattr(bridge, name).eq(getattr(memory, name))
        return m
