"""Block memory behind AXI4, which a host can reach byte by byte."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from ..interfaces import AxiRead, AxiWrite
from ..memory_init import NO_COLLISION_CHECK
from .protocol import CHANGE_BYTES

__all__ = ["BoardMemory"]

_OKAY, _SLVERR = 0, 2


class BoardMemory(wiring.Component):
    """Memory for the accelerator: an AXI4 slave for its bursts, a byte port for the host.

    One burst at a time in each direction, one beat per cycle, full-width incrementing bursts. A
    beat beyond the end is answered with SLVERR and has no effect. The host's access waits for the
    burst that is under way in its direction, and the next one waits for the host. A row that is
    read in the cycle in which it is written is the old row or garbage.

    Parameters
    ----------
    config : Config
        Of the accelerator, for the widths of the bus.
    size : int
        Bytes, a power of two from 4096.

    Members
    -------
    read, write : In(AxiRead), In(AxiWrite)
    arid, rid, awid, bid
        Their ids.
    address : In
        Of the host's byte.
    valid, ready : In(1), Out(1)
        The host's access is done in a cycle where both are set.
    store : In(1)
        It is a write, of ``data``.
    data, q : In(8), Out(8)
        What to write; what was read, one cycle after the access.
    block : In
        A block of `CHANGE_BYTES` bytes.
    changed : Out(1)
        Whether the accelerator has written to it.
    forget, forgotten : In(1), Out(1)
        Clear ``changed`` of the block; done in a cycle where both are set. An access of the
        accelerator goes before.

    Raises
    ------
    ValueError
        For a size that is no power of two, or below 4096.
    """

    def __init__(self, *, config, size):
        if size < 4096 or size & size - 1:
            raise ValueError(f"size must be a power of two from 4096, not {size!r}")
        self._config, self._size = config, size
        super().__init__({
            "read": In(AxiRead(config)), "arid": In(1), "rid": Out(1),
            "write": In(AxiWrite(config)), "awid": In(1), "bid": Out(1),
            "address": In(ceil_log2(size)), "valid": In(1), "ready": Out(1), "store": In(1),
            "data": In(8), "q": Out(8),
            "block": In(ceil_log2(size // CHANGE_BYTES)), "changed": Out(1),
            "forget": In(1), "forgotten": Out(1),
        })

    @property
    def config(self):
        return self._config

    @property
    def size(self):
        return self._size

    def elaborate(self, platform):
        m = Module()
        lanes = self._config.bus_bytes
        lane_bits = ceil_log2(lanes)
        lane = Signal(range(lanes))
        m.d.sync += lane.eq(self.address)
        reads, writes, outputs = [], [], []
        for number in range(lanes):
            m.submodules[f"lane{number}"] = memory = Memory(
                shape=8, depth=self._size // lanes, init=[], attrs=NO_COLLISION_CHECK)
            reads.append(memory.read_port())
            writes.append(memory.write_port())
            outputs.append(reads[-1].data)
        row, step, idle = self._read_side(m)
        m.d.comb += self.q.eq(Array(outputs)[lane])
        m.d.comb += self.read.rdata.eq(Cat(outputs))
        w_row, beat, closed = self._write_side(m)
        m.d.comb += self.ready.eq(Mux(self.store, closed, idle))
        for number in range(lanes):
            mine = self.valid & self.store & closed & (self.address[:lane_bits] == number)
            m.d.comb += [
                reads[number].en.eq(step | (self.valid & idle)),
                reads[number].addr.eq(Mux(step, row, self.address[lane_bits:])),
                writes[number].addr.eq(Mux(closed, self.address[lane_bits:], w_row)),
                writes[number].data.eq(
                    Mux(closed, self.data, self.write.wdata.word_select(number, 8))),
                writes[number].en.eq(mine | (beat & self.write.wstrb[number])),
            ]
        self._changes(m, w_row, beat & self.write.wstrb.any(), lane_bits)
        return m

    def _inside(self, address):
        return (address >> ceil_log2(self._size)) == 0

    def _read_side(self, m):
        """The row to fetch for the accelerator, whether to, and whether its side is idle."""
        axi, bus = self.read, self._config.bus_bytes
        left, address, step = Signal(9), Signal.like(axi.araddr), Signal()
        name = Signal()
        idle = (left == 0) & ~axi.rvalid
        m.d.comb += [axi.arready.eq((left == 0) & ~self.valid),
                     step.eq((left != 0) & (~axi.rvalid | axi.rready))]
        with m.If(axi.rvalid & axi.rready):
            m.d.sync += axi.rvalid.eq(0)
        with m.If(axi.arvalid & axi.arready):
            m.d.sync += [left.eq(axi.arlen + 1), address.eq(axi.araddr), name.eq(self.arid)]
        with m.If(step):
            m.d.sync += [
                axi.rvalid.eq(1), axi.rlast.eq(left == 1), self.rid.eq(name),
                axi.rresp.eq(Mux(self._inside(address), _OKAY, _SLVERR)),
                left.eq(left - 1), address.eq(address + bus),
            ]
        return address[ceil_log2(bus):ceil_log2(self._size)], step, idle

    def _write_side(self, m):
        """The row of the accelerator's beat, whether there is one, and whether no burst is open."""
        axi, bus = self.write, self._config.bus_bytes
        opened, address, beat = Signal(), Signal.like(axi.awaddr), Signal()
        inside = self._inside(address)
        m.d.comb += [axi.awready.eq(~opened & ~axi.bvalid & ~self.valid), axi.wready.eq(opened),
                     beat.eq(axi.wvalid & opened & inside)]
        with m.If(axi.bvalid & axi.bready):
            m.d.sync += axi.bvalid.eq(0)
        with m.If(axi.awvalid & axi.awready):
            m.d.sync += [opened.eq(1), address.eq(axi.awaddr), self.bid.eq(self.awid),
                         axi.bresp.eq(_OKAY)]
        with m.If(axi.wvalid & axi.wready):
            m.d.sync += address.eq(address + bus)
            with m.If(~inside):
                m.d.sync += axi.bresp.eq(_SLVERR)
            with m.If(axi.wlast):
                m.d.sync += [opened.eq(0), axi.bvalid.eq(1)]
        return address[ceil_log2(bus):ceil_log2(self._size)], beat, ~opened

    def _changes(self, m, row, beat, lane_bits):
        """One bit for each block: set by the accelerator, cleared by the host."""
        m.submodules.changes = memory = Memory(shape=1, depth=self._size // CHANGE_BYTES, init=[])
        read, write = memory.read_port(domain="comb"), memory.write_port()
        m.d.comb += [
            read.addr.eq(self.block), self.changed.eq(read.data), self.forgotten.eq(~beat),
            write.en.eq(beat | self.forget), write.data.eq(beat),
            write.addr.eq(Mux(beat, row[ceil_log2(CHANGE_BYTES) - lane_bits:], self.block)),
        ]
