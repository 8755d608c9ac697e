"""The UART bridge of a board, with memory, and with registers that count their accesses."""

from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from macaw_hw.board.bridge import Bridge
from macaw_hw.board.memory import BoardMemory
from macaw_hw.config import named_config
from macaw_hw.control import AxiLite

__all__ = ["SUM", "WRITES", "READS", "REFUSED", "SILENT", "BridgeTop"]

SUM, WRITES, READS, REFUSED, SILENT = 0x0, 0x4, 0x8, 0x400, 0x800


class _Registers(wiring.Component):
    """A write to SUM adds to it; WRITES and READS count all accesses that are answered. From
    REFUSED on the answer is SLVERR, and from SILENT on there is none."""

    def __init__(self):
        super().__init__({"bus": In(AxiLite())})

    def elaborate(self, platform):
        m = Module()
        bus = self.bus
        total, writes, reads = Signal(32), Signal(32), Signal(32)
        m.d.comb += [
            bus.awready.eq(bus.wvalid & ~bus.bvalid & (bus.awaddr < SILENT)),
            bus.wready.eq(bus.awvalid & ~bus.bvalid & (bus.awaddr < SILENT)),
            bus.arready.eq(~bus.rvalid & (bus.araddr < SILENT)),
        ]
        with m.If(bus.bready):
            m.d.sync += bus.bvalid.eq(0)
        with m.If(bus.awvalid & bus.awready):
            m.d.sync += [bus.bvalid.eq(1), bus.bresp.eq((bus.awaddr >= REFUSED) << 1),
                         writes.eq(writes + 1)]
            with m.If(bus.awaddr == SUM):
                m.d.sync += total.eq(total + bus.wdata)
        with m.If(bus.rready):
            m.d.sync += bus.rvalid.eq(0)
        with m.If(bus.arvalid & bus.arready):
            m.d.sync += [bus.rvalid.eq(1), bus.rresp.eq((bus.araddr >= REFUSED) << 1),
                         reads.eq(reads + 1)]
            with m.Switch(bus.araddr):
                for address, value in ((SUM, total), (WRITES, writes), (READS, reads)):
                    with m.Case(address):
                        m.d.sync += bus.rdata.eq(value)
                with m.Default():
                    m.d.sync += bus.rdata.eq(0)
        return m


class BridgeTop(wiring.Component):
    """The bridge with `_Registers` and ``size`` bytes of memory that nobody else uses."""

    def __init__(self, *, divisor, size=8192, clock=1_000_000):
        self._divisor, self._size, self._clock = divisor, size, clock
        super().__init__({"rx": In(1, init=1), "tx": Out(1, init=1)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.bridge = bridge = Bridge(divisor=self._divisor, size=self._size,
                                              clock=self._clock)
        m.submodules.registers = registers = _Registers()
        m.submodules.memory = memory = BoardMemory(config=named_config("n4"), size=self._size)
        wiring.connect(m, bridge.bus, registers.bus)
        m.d.comb += [bridge.rx.eq(self.rx), self.tx.eq(bridge.tx)]
        for name in ("address", "valid", "store", "data", "block", "forget"):
            m.d.comb += getattr(memory, name).eq(getattr(bridge, name))
        for name in ("ready", "q", "changed", "forgotten"):
            m.d.comb += getattr(bridge, name).eq(getattr(memory, name))
        return m
