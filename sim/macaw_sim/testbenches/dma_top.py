"""The DMA engine as the accelerator wires it: load and store units, and a second read master."""

from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from macaw_hw.axi import ReadArbiter
from macaw_hw.dma_load import LoadUnit
from macaw_hw.dma_store import StoreUnit
from macaw_hw.interfaces import AxiRead, AxiWrite, TileRead, TileWrite, Unit, VectorRead, VectorWrite
from macaw_hw.isa import LOAD, STORE

__all__ = ["DmaTop"]


class DmaTop(wiring.Component):
    """LoadUnit and StoreUnit behind one AXI4 master; reads of port ``fetch`` have id 1, of loads id 0."""

    def __init__(self, *, config):
        self._config = config
        width = config.address_width + 1
        constant = {f"m_axi_{channel}{name}": Out(bits) for channel in ("ar", "aw")
                    for name, bits in (("size", 3), ("burst", 2), ("lock", 1), ("cache", 4), ("prot", 3))}
        super().__init__({
            "load": In(Unit(LOAD)), "store": In(Unit(STORE)), "fetch": In(AxiRead(config)),
            "load_vector": Out(VectorWrite(config)), "load_tile": Out(TileWrite(config)),
            "store_vector": Out(VectorRead(config)), "store_tile": Out(TileRead(config)),
            **{f"m_axi_{name}": member for signature in (AxiRead(config), AxiWrite(config))
               for name, member in signature.members.items()},
            "m_axi_arid": Out(1), "m_axi_rid": In(1), "m_axi_awid": Out(1), "m_axi_bid": In(1), **constant,
            "window_base": In(width), "window_limit": In(width), "halt": In(1), "load_idle": Out(1),
            "store_idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        config = self._config
        m.submodules.load = load = LoadUnit(config=config)
        m.submodules.store = store = StoreUnit(config=config)
        m.submodules.arbiter = arbiter = ReadArbiter(config=config)
        for inner, outer in (
                (load.control, self.load), (store.control, self.store), (arbiter.masters[1], self.fetch),
                (load.vector, self.load_vector), (load.tile, self.load_tile),
                (store.vector, self.store_vector), (store.tile, self.store_tile)):
            wiring.connect(m, inner, wiring.flipped(outer))
        wiring.connect(m, load.axi, arbiter.masters[0])
        for port in (arbiter.axi, store.axi):
            for name, member in port.signature.members.items():
                outer, inner = getattr(self, f"m_axi_{name}"), getattr(port, name)
                m.d.comb += outer.eq(inner) if member.flow == Out else inner.eq(outer)
        m.d.comb += [self.m_axi_arid.eq(arbiter.arid), arbiter.rid.eq(self.m_axi_rid),
                     self.load_idle.eq(load.idle), self.store_idle.eq(store.idle)]
        for channel in ("ar", "aw"):
            m.d.comb += [getattr(self, f"m_axi_{channel}size").eq(config.bus_bytes.bit_length() - 1),
                         getattr(self, f"m_axi_{channel}burst").eq(1)]
        for unit in (load, store):
            m.d.comb += [unit.window_base.eq(self.window_base), unit.window_limit.eq(self.window_limit),
                         unit.halt.eq(self.halt)]
        return m
