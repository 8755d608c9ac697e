"""A small accelerator with Macaw's ports, which copies memory: what tests of the backend simulate."""

from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import memory, wiring
from amaranth.lib.wiring import In, Out

__all__ = ["Copier", "DEFECTS", "REGISTERS", "SILENT"]

REGISTERS = {"source": 0x00, "target": 0x04, "bursts": 0x08, "beats": 0x0C, "strobe": 0x10, "control": 0x14,
             "response": 0x18, "defect": 0x1C}
"""``control`` 1 starts a copy of ``bursts`` bursts of ``beats`` beats; 0 lowers irq. ``response`` ORs all
responses. ``defect`` is an index into `DEFECTS`. Other offsets are SLVERR."""

SILENT = 0x20
"""Offset of the register that never answers."""

DEFECTS = ("none", "araddr", "arvalid", "wdata", "wlast", "arburst", "arsize")
"""Signals that can be made to break a rule of AXI."""


class Copier(wiring.Component):
    """Reads a burst, writes it, and so on; its only merit is that it can break the rules."""

    def __init__(self, *, bus_bytes):
        self._bus_bytes = bus_bytes
        address = {"addr": 32, "len": 8, "size": 3, "burst": 2, "lock": 1, "cache": 4, "prot": 3, "qos": 4,
                   "id": 1}
        super().__init__({
            "irq": Out(1),
            "s_axi_awaddr": In(12), "s_axi_awprot": In(3), "s_axi_awvalid": In(1), "s_axi_awready": Out(1),
            "s_axi_wdata": In(32), "s_axi_wstrb": In(4), "s_axi_wvalid": In(1), "s_axi_wready": Out(1),
            "s_axi_bresp": Out(2), "s_axi_bvalid": Out(1), "s_axi_bready": In(1),
            "s_axi_araddr": In(12), "s_axi_arprot": In(3), "s_axi_arvalid": In(1), "s_axi_arready": Out(1),
            "s_axi_rdata": Out(32), "s_axi_rresp": Out(2), "s_axi_rvalid": Out(1), "s_axi_rready": In(1),
            **{f"m_axi_{channel}{name}": Out(width)
               for channel in ("aw", "ar") for name, width in address.items()},
            **{f"m_axi_{channel}{name}": direction(1) for channel in ("aw", "ar")
               for name, direction in (("valid", Out), ("ready", In))},
            "m_axi_wdata": Out(8 * bus_bytes), "m_axi_wstrb": Out(bus_bytes), "m_axi_wlast": Out(1),
            "m_axi_wvalid": Out(1), "m_axi_wready": In(1),
            "m_axi_bid": In(1), "m_axi_bresp": In(2), "m_axi_bvalid": In(1), "m_axi_bready": Out(1),
            "m_axi_rid": In(1), "m_axi_rdata": In(8 * bus_bytes), "m_axi_rresp": In(2), "m_axi_rlast": In(1),
            "m_axi_rvalid": In(1), "m_axi_rready": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        registers = {name: Signal(32, name=name) for name in REGISTERS}
        start = Signal()
        self._control(m, registers, start)
        self._copy(m, registers, start)
        return m

    def _control(self, m, registers, start):
        write = Signal()
        read = Signal()
        m.d.comb += [
            write.eq(self.s_axi_awvalid & self.s_axi_wvalid & ~self.s_axi_bvalid
                     & (self.s_axi_awaddr != SILENT)),
            self.s_axi_awready.eq(write), self.s_axi_wready.eq(write),
            read.eq(self.s_axi_arvalid & ~self.s_axi_rvalid & (self.s_axi_araddr != SILENT)),
            self.s_axi_arready.eq(read),
        ]
        m.d.sync += start.eq(0)
        with m.If(self.s_axi_bready):
            m.d.sync += self.s_axi_bvalid.eq(0)
        with m.If(write):
            m.d.sync += [self.s_axi_bvalid.eq(1), self.s_axi_bresp.eq(2)]
            for name, offset in REGISTERS.items():
                with m.If(self.s_axi_awaddr == offset):
                    m.d.sync += [self.s_axi_bresp.eq(0), registers[name].eq(self.s_axi_wdata)]
                    if name == "control":
                        m.d.sync += start.eq(self.s_axi_wdata[0])
        with m.If(self.s_axi_rready):
            m.d.sync += self.s_axi_rvalid.eq(0)
        with m.If(read):
            m.d.sync += [self.s_axi_rvalid.eq(1), self.s_axi_rresp.eq(2), self.s_axi_rdata.eq(0)]
            for name, offset in REGISTERS.items():
                with m.If(self.s_axi_araddr == offset):
                    m.d.sync += [self.s_axi_rresp.eq(0), self.s_axi_rdata.eq(registers[name])]

    def _copy(self, m, registers, start):
        m.submodules.buffer = buffer = memory.Memory(shape=8 * self._bus_bytes, depth=256, init=[])
        fill, drain = buffer.write_port(), buffer.read_port(domain="comb")
        offset = Signal(32)
        left = Signal(32)
        beat = Signal(8)
        held = Signal(8)
        size = (self._bus_bytes - 1).bit_length()
        defect = {name: registers["defect"] == i for i, name in enumerate(DEFECTS)}
        for channel, base in (("ar", "source"), ("aw", "target")):
            m.d.comb += [
                getattr(self, f"m_axi_{channel}addr").eq(registers[base] + offset),
                getattr(self, f"m_axi_{channel}len").eq(registers["beats"] - 1),
                getattr(self, f"m_axi_{channel}size").eq(size),
                getattr(self, f"m_axi_{channel}burst").eq(1),
                getattr(self, f"m_axi_{channel}id").eq(left[0]),
            ]
        # `held` counts cycles in which a channel waits; it is what the defects depend on.
        with m.If(defect["araddr"]):
            m.d.comb += self.m_axi_araddr.eq(registers["source"] + offset + (held << 12))
        with m.If(defect["arburst"]):
            m.d.comb += self.m_axi_arburst.eq(0)
        with m.If(defect["arsize"]):
            m.d.comb += self.m_axi_arsize.eq(size - 1)
        last = Signal()
        m.d.comb += [
            fill.addr.eq(beat), fill.data.eq(self.m_axi_rdata), drain.addr.eq(beat),
            self.m_axi_wdata.eq(drain.data ^ Mux(defect["wdata"], held, 0)),
            self.m_axi_wstrb.eq(registers["strobe"]),
            last.eq(beat == registers["beats"] - 1),
            self.m_axi_wlast.eq(last & ~defect["wlast"]),
        ]
        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [offset.eq(0), left.eq(registers["bursts"]), beat.eq(0)]
                with m.If(start):
                    m.d.sync += registers["response"].eq(0)
                    m.next = "AR"
                with m.If(registers["control"] == 0):
                    m.d.sync += self.irq.eq(0)
            with m.State("AR"):
                m.d.comb += self.m_axi_arvalid.eq(~(held[0] & defect["arvalid"]))
                m.d.sync += held.eq(held + 1)
                with m.If(self.m_axi_arvalid & self.m_axi_arready):
                    m.d.sync += held.eq(0)
                    m.next = "R"
            with m.State("R"):
                m.d.comb += [self.m_axi_rready.eq(1), fill.en.eq(self.m_axi_rvalid)]
                with m.If(self.m_axi_rvalid):
                    m.d.sync += [beat.eq(Mux(self.m_axi_rlast, 0, beat + 1)),
                                 registers["response"].eq(registers["response"] | self.m_axi_rresp)]
                    with m.If(self.m_axi_rlast):
                        m.next = "AW"
            with m.State("AW"):
                m.d.comb += self.m_axi_awvalid.eq(1)
                with m.If(self.m_axi_awready):
                    m.next = "W"
            with m.State("W"):
                m.d.comb += self.m_axi_wvalid.eq(1)
                m.d.sync += held.eq(held + 1)
                with m.If(self.m_axi_wready):
                    m.d.sync += [held.eq(0), beat.eq(beat + 1)]
                    with m.If(last):
                        m.next = "B"
            with m.State("B"):
                m.d.comb += self.m_axi_bready.eq(1)
                with m.If(self.m_axi_bvalid):
                    m.d.sync += [
                        registers["response"].eq(registers["response"] | self.m_axi_bresp), beat.eq(0),
                        offset.eq(offset + registers["beats"] * self._bus_bytes), left.eq(left - 1),
                    ]
                    with m.If(left == 1):
                        m.d.sync += self.irq.eq(1)
                        m.next = "IDLE"
                    with m.Else():
                        m.next = "AR"
        return m
