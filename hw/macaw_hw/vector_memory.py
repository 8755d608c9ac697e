"""Vector memory: float32 rows in several one-read-one-write banks, shared by all units."""

from amaranth.hdl import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .interfaces import VectorRead, VectorWrite
from .memory_init import NO_COLLISION_CHECK

__all__ = ["shared_wires", "VectorBank", "VectorMemory"]

_READS = ("acc_read", "store", "a", "b")
_WRITES = ("acc_write", "load", "d")


def shared_wires(config):
    """Ports that share the wires of another, which comes first: each set of wires reaches all banks, and is large.

    In a training step, sharing those of ``b`` costs 0.1 % of the cycles, but 5 % where the bus is wide and stores take
    every second cycle. Those of ``d`` cost 1.5 %, and are shared in the smallest configuration only.
    """
    wide = config.bus_bytes > config.size
    return ({} if wide else {"b": "store"}) | ({"d": "load"} if config.size == 4 else {})


def _selected(values, number):
    """One of ``values``, a power of two of them, by two-way choices: half the logic of one choice among all."""
    for bit in number:
        values = [Mux(bit, odd, even) for even, odd in zip(values[::2], values[1::2], strict=True)]
    return values[0]


class VectorBank(wiring.Component):
    """Block memory of one bank: one read and one write per cycle, read data one cycle later.

    Parameters
    ----------
    config : Config
    """

    def __init__(self, *, config):
        self._config = config
        row, width = ceil_log2(config.vector_bank_rows), 32 * config.size
        super().__init__({
            "read_row": In(row), "read_enable": In(1), "read_data": Out(width),
            "write_row": In(row), "write_enable": In(1), "write_data": In(width),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(
            shape=32 * self.config.size, depth=self.config.vector_bank_rows, init=[], attrs=NO_COLLISION_CHECK)
        read = memory.read_port()
        write = memory.write_port()
        m.d.comb += [
            read.addr.eq(self.read_row), read.en.eq(self.read_enable), self.read_data.eq(read.data),
            write.addr.eq(self.write_row), write.en.eq(self.write_enable), write.data.eq(self.write_data),
        ]
        return m


class VectorMemory(wiring.Component):
    """Rows of N float32 lanes; any port reaches any bank.

    ::

        acc_read store a b --> priority --> bank 0 --> data
                               of each      bank 1     by registered
        acc_write load d ----> bank         ...        bank number

    The upper address bits select the bank. Each bank does one read and one write per cycle, each for the
    port with the highest priority among those that ask for it; the others see ``ready`` low and have to
    wait. Priorities fall in the order below, so ``acc_read`` and ``acc_write`` are always ready. The bus comes
    before the activation unit, since a beat that it loses is lost for good, and a float32 row takes it several beats.
    Ports ``a`` and ``b`` share one read when they ask for the same row. With `shared_wires`, ``b`` waits whenever
    ``store`` asks, ``d`` whenever ``load`` does, for whatever bank.

    A row read in the very cycle in which it is written is the old row or garbage, depending on the
    technology; one cycle later it is the new row.

    Parameters
    ----------
    config : Config

    Members
    -------
    acc_read, store, a, b : In(VectorRead)
        Read ports, highest priority first; data one cycle after the transfer.
    acc_write, load, d : In(VectorWrite)
        Write ports, highest priority first.
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({
            **{name: In(VectorRead(config)) for name in _READS},
            **{name: In(VectorWrite(config)) for name in _WRITES},
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        shared = shared_wires(self.config)
        reads = [getattr(self, name) for name in _READS]
        writes = [getattr(self, name) for name in _WRITES]
        # Address and data wires of the ports: a port that shares them follows the one that it shares them with.
        rows = {name: getattr(self, name).row for name in (*_READS, *_WRITES)}
        data = {name: getattr(self, name).data.as_value() for name in _WRITES}
        for wires in (rows, data):
            for name, first in shared.items():
                if name in wires:
                    wires[name] = wires[first] = Mux(getattr(self, first).valid, wires[first], wires[name])
        banks = []
        for number in range(self.config.vector_banks):
            m.submodules[f"bank{number}"] = bank = VectorBank(config=self.config)
            self._connect(m, bank, number, rows, data)
            banks.append(bank.read_data)
        for name, port in zip(_READS, reads, strict=True):
            if name not in shared.values():
                bank = Signal(ceil_log2(len(banks)), name=f"{name}_bank")
                m.d.sync += bank.eq(self._bank(rows[name]))
                m.d.comb += port.data.as_value().eq(_selected(banks, bank))
        m.d.comb += [getattr(self, first).data.eq(getattr(self, name).data)
                     for name, first in shared.items() if name in _READS]
        for ports in (reads, writes):
            for i, port in enumerate(ports):
                m.d.comb += port.ready.eq(~self._blocked(port, ports[:i]))
        return m

    def _bank(self, row):
        return row[ceil_log2(self.config.vector_bank_rows):]

    def _blocked(self, port, before):
        """Whether one of the ports ``before`` asks for the same bank (but `a`, of `b`, for another row) or wires."""
        blocked = Const(0)
        for other in before:
            conflict = other.valid & (self._bank(other.row) == self._bank(port.row))
            if port is self.b and other is self.a:
                conflict &= other.row != port.row
            blocked |= conflict
        for name, first in shared_wires(self.config).items():
            if port is getattr(self, name):
                blocked |= getattr(self, first).valid
        return blocked

    def _connect(self, m, bank, number, rows, data):
        """What the first port that asks for bank ``number`` wants is what the bank does."""
        shared = shared_wires(self.config)

        def asks(name):
            port = getattr(self, name)
            waits = getattr(self, shared[name]).valid if name in shared else Const(0)
            return port.valid & ~waits & (self._bank(port.row) == number)

        row = rows[_READS[-1]]
        for name in reversed(_READS[:-1]):
            row = Mux(asks(name), rows[name], row)
        write_row, write_data = rows[_WRITES[-1]], data[_WRITES[-1]]
        for name in reversed(_WRITES[:-1]):
            if name not in shared.values():
                write_row = Mux(asks(name), rows[name], write_row)
                write_data = Mux(asks(name), data[name], write_data)
        m.d.comb += [
            bank.read_row.eq(row), bank.read_enable.eq(Cat(asks(name) for name in _READS).any()),
            bank.write_row.eq(write_row), bank.write_data.eq(write_data),
            bank.write_enable.eq(Cat(asks(name) for name in _WRITES).any()),
        ]
