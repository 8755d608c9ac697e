"""Tile memory: bfp8 tiles that can be read by rows and by columns."""

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .delay import delayed
from .interfaces import EXPONENT, TileRead, TileWrite
from .memory_init import NO_COLLISION_CHECK

__all__ = ["TileMemory", "TileBank"]

_READS = ("x", "w", "store")
_WRITES = ("quantize", "load")


def _rotate(m, name, value, amount, size):
    """Bytes of ``value`` moved down by ``amount`` places, around the end: byte i becomes byte i + amount.

    One two-way choice per bit of ``amount`` (a barrel shifter).
    """
    for stage in range(ceil_log2(size)):
        rotated = Signal(8 * size, name=f"{name}{stage}")
        places = 8 << stage
        m.d.comb += rotated.eq(Mux(amount[stage], Cat(value[places:], value[:places]), value))
        value = rotated
    return value


class TileBank(wiring.Component):
    """One bank of tiles in skewed storage: a row or a column per cycle out, a row per cycle in.

    Element (r, c) of a tile lies in byte memory (r + c) mod N at address (tile, r). A row has one address in
    all byte memories. Of column c, byte memory b holds row (b - c) mod N, so each has its own address.
    Either way element i of the line comes from byte memory (line + i) mod N: one rotation serves both.

    Parameters
    ----------
    config : Config

    Members
    -------
    read_tile, read_line, transpose, read_enable : In
        Row ``read_line`` of a tile, or column ``read_line`` if ``transpose``.
    read_data, read_exponent : Out
        Two cycles later. The rotation follows a register, as block memory alone takes most of a cycle.
    write_tile, write_line, write_data, write_exponent, write_enable : In
        One row and the exponent of its tile.
    """

    def __init__(self, *, config):
        self._config = config
        tile, line = ceil_log2(config.tile_bank_tiles), ceil_log2(config.size)
        super().__init__({
            "read_tile": In(tile), "read_line": In(line), "transpose": In(1), "read_enable": In(1),
            "read_data": Out(8 * config.size), "read_exponent": Out(EXPONENT),
            "write_tile": In(tile), "write_line": In(line), "write_enable": In(1),
            "write_data": In(8 * config.size), "write_exponent": In(EXPONENT),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        size, tiles = self.config.size, self.config.tile_bank_tiles
        line = delayed(m, self.read_line, 2, "line")[-1]
        skewed = _rotate(m, "skew", self.write_data, -self.write_line, size)
        outputs = []
        for number in range(size):
            m.submodules[f"bytes{number}"] = memory = Memory(
                shape=8, depth=tiles * size, init=[], attrs=NO_COLLISION_CHECK)
            read, write = memory.read_port(), memory.write_port()
            row = Signal.like(self.read_line, name=f"row{number}")
            m.d.comb += [
                row.eq(Mux(self.transpose, number - self.read_line, self.read_line)),
                read.addr.eq(Cat(row, self.read_tile)), read.en.eq(self.read_enable),
                write.addr.eq(Cat(self.write_line, self.write_tile)), write.en.eq(self.write_enable),
                write.data.eq(skewed[8 * number:8 * number + 8]),
            ]
            outputs.append(delayed(m, read.data, 1, f"output{number}")[-1])
        m.submodules.exponents = memory = Memory(
            shape=EXPONENT, depth=tiles, init=[], attrs=NO_COLLISION_CHECK)
        read, write = memory.read_port(), memory.write_port()
        m.d.comb += [
            read.addr.eq(self.read_tile), read.en.eq(self.read_enable),
            self.read_exponent.eq(delayed(m, read.data, 1, "exponent")[-1]),
            write.addr.eq(self.write_tile), write.en.eq(self.write_enable), write.data.eq(self.write_exponent),
            self.read_data.eq(_rotate(m, "line", Cat(outputs), line, size)),
        ]
        return m


class TileMemory(wiring.Component):
    """Tiles of N x N int8 mantissas with one exponent each, in two or more banks.

    The upper address bits select the bank. Each bank does one read (a row or a column) and one write (a row) per
    cycle, each for the port with the highest priority among those that ask for it; the others see
    ``ready`` low. Priorities fall in the order below, so ``x`` and ``quantize`` are always ready.

    A tile read in the cycle in which one of its rows is written is the old one or garbage, depending on the
    technology; one cycle later it is the new one.

    Parameters
    ----------
    config : Config

    Members
    -------
    x, w, store : In(TileRead)
        Read ports, highest priority first; data two cycles after the transfer.
    quantize, load : In(TileWrite)
        Write ports, highest priority first.
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            **{name: In(TileRead(config)) for name in _READS},
            **{name: In(TileWrite(config)) for name in _WRITES},
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        reads = [getattr(self, name) for name in _READS]
        writes = [getattr(self, name) for name in _WRITES]
        banks = []
        for number in range(self.config.tile_banks):
            m.submodules[f"bank{number}"] = bank = TileBank(config=self.config)
            self._connect_read(m, bank, reads, number)
            self._connect_write(m, bank, writes, number)
            banks.append(bank)
        for name, port in zip(_READS, reads, strict=True):
            number = delayed(m, self._bank(port), 2, f"{name}_bank")[-1]
            m.d.comb += [
                port.data.as_value().eq(Array(bank.read_data for bank in banks)[number]),
                port.exponent.eq(Array(bank.read_exponent for bank in banks)[number]),
            ]
        for ports in (reads, writes):
            for i, port in enumerate(ports):
                blocked = Const(0)
                for other in ports[:i]:
                    blocked |= other.valid & (self._bank(other) == self._bank(port))
                m.d.comb += port.ready.eq(~blocked)
        return m

    def _bank(self, port):
        return port.tile[ceil_log2(self.config.tile_bank_tiles):]

    def _connect_read(self, m, bank, ports, number):
        condition = m.If
        for port in ports:
            with condition(port.valid & (self._bank(port) == number)):
                m.d.comb += [bank.read_tile.eq(port.tile), bank.read_line.eq(port.line),
                             bank.transpose.eq(port.transpose), bank.read_enable.eq(1)]
            condition = m.Elif

    def _connect_write(self, m, bank, ports, number):
        condition = m.If
        for port in ports:
            with condition(port.valid & (self._bank(port) == number)):
                m.d.comb += [bank.write_tile.eq(port.tile), bank.write_line.eq(port.line),
                             bank.write_data.eq(port.data), bank.write_exponent.eq(port.exponent),
                             bank.write_enable.eq(1)]
            condition = m.Elif
