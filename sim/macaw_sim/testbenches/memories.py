"""Vector memory and tile memory: every port at random, against arrays and a model of the priorities.

Parameters: ``config`` (name), ``kind`` (``vector`` or ``tile``), ``depth`` (rows or tiles used per bank), ``cycles``.
"""

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge
from macaw_hw.config import named_config
from macaw_hw.vector_memory import shared_wires

from . import generator, parameters
from .mac_array import packed

__all__ = ["VectorModel", "TileModel"]


class VectorModel:
    """What the ports of the vector memory carry, and rows as integers."""
    reads, writes = ("acc_read", "store", "a", "b"), ("acc_write", "load", "d")
    read_latency = 1

    def __init__(self, config):
        self.bank_depth, self.banks = config.vector_bank_rows, config.vector_banks
        self.size = config.size
        self.shared = shared_wires(config)
        self.rows = {}

    def request(self, rng, port, address):
        """Fields of a read of ``address``."""
        return {"row": address}

    def update(self, rng, port, address):
        """Fields of a write."""
        return {"row": address, "data": packed(rng.integers(0, 1 << 32, self.size, np.uint32))}

    def read(self, fields):
        """What the port answers, None where it was never written; and the unit of storage that is read."""
        return {"data": self.rows.get(fields["row"])}, fields["row"]

    def write(self, fields):
        self.rows[fields["row"]] = fields["data"]
        return fields["row"]

    def may_share(self, port, fields, other, other_fields):
        return (other, port) == ("a", "b") and fields["row"] == other_fields["row"]

    def address(self, fields):
        return fields["row"]


class TileModel:
    """What the ports of the tile memory carry, and tiles as arrays of bytes."""
    reads, writes = ("x", "w", "store"), ("quantize", "load")
    read_latency = 2
    shared: dict[str, str] = {}

    def __init__(self, config):
        self.bank_depth, self.banks = config.tile_bank_tiles, config.tile_banks
        self.size = config.size
        self.tiles, self.known, self.exponents = {}, {}, {}

    def request(self, rng, port, address):
        return {"tile": address, "line": int(rng.integers(0, self.size)), "transpose": int(rng.integers(0, 2))}

    def update(self, rng, port, address):
        return {"tile": address, "line": int(rng.integers(0, self.size)), "exponent": int(rng.integers(0, 512)),
                "data": packed(rng.integers(0, 256, self.size, np.uint8))}

    def read(self, fields):
        tile = fields["tile"]
        if tile not in self.tiles or not self.known[tile].all():
            return {"exponent": self.exponents.get(tile), "data": None}, tile
        content = self.tiles[tile].T if fields["transpose"] else self.tiles[tile]
        return {"exponent": self.exponents[tile], "data": packed(content[fields["line"]])}, tile

    def write(self, fields):
        tile = fields["tile"]
        if tile not in self.tiles:
            self.tiles[tile] = np.zeros((self.size, self.size), np.uint8)
            self.known[tile] = np.zeros(self.size, bool)
        row = fields["data"].to_bytes(self.size, "little")
        self.tiles[tile][fields["line"]] = np.frombuffer(row, np.uint8)
        self.known[tile][fields["line"]] = True
        self.exponents[tile] = fields["exponent"]
        return tile

    def may_share(self, port, fields, other, other_fields):
        return False

    def address(self, fields):
        return fields["tile"]


class Bench:
    """Ports hold their request until it is granted; the model says who is granted and what is read."""

    def __init__(self, dut, model, rng):
        self.dut, self.model, self.rng = dut, model, rng
        self.pending = dict.fromkeys((*model.reads, *model.writes))
        self.granted = dict.fromkeys(self.pending, 0)
        self.refused = dict.fromkeys(self.pending, 0)
        self.checked = 0
        self.due = [{}] * model.read_latency

    async def start(self):
        for port in self.pending:
            getattr(self.dut, f"{port}__valid").value = 0
        Clock(self.dut.clk, 10, unit="ns").start()
        self.dut.rst.value = 1
        for _ in range(2):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        await RisingEdge(self.dut.clk)

    def _winners(self, ports):
        """Of these ports those that must be granted, by priority within each bank."""
        taken, winners = {}, []
        for port in ports:
            fields = self.pending[port]
            if fields is None:
                continue
            bank = self.model.address(fields) // self.model.bank_depth
            first = self.model.shared.get(port)
            free = first is None or self.pending[first] is None
            if free and all(self.model.may_share(port, fields, *other) for other in taken.get(bank, [])):
                winners.append(port)
            taken.setdefault(bank, []).append((port, fields))
        return winners

    async def step(self):
        """Drive what is pending, check who is ready and what was read before, account for the transfers."""
        dut, model = self.dut, self.model
        for port, fields in self.pending.items():
            getattr(dut, f"{port}__valid").value = int(fields is not None)
            for name, value in (fields or {}).items():
                getattr(dut, f"{port}__{name}").value = value
        await ReadOnly()
        for port, answer in self.due.pop(0).items():
            for name, value in answer.items():
                if value is not None:
                    got = int(getattr(dut, f"{port}__{name}").value)
                    assert got == value, f"{port} {name}: {got:#x} instead of {value:#x}"
                    self.checked += name == "data"
        winners = self._winners(model.reads) + self._winners(model.writes)
        for port, fields in self.pending.items():
            if fields is not None:
                ready = bool(getattr(dut, f"{port}__ready").value)
                assert ready == (port in winners), f"{port} ready {ready}, granted are {winners}, {self.pending}"
                self.refused[port] += not ready
        reads = {port: model.read(self.pending[port]) for port in model.reads if port in winners}
        written = [model.write(self.pending[port]) for port in model.writes if port in winners]
        # A read of what is written in the same cycle gives anything.
        self.due.append({port: answer for port, (answer, place) in reads.items() if place not in written})
        for port in winners:
            self.pending[port] = None
            self.granted[port] += 1
        await RisingEdge(dut.clk)


def _model():
    options = parameters()
    kind = {"vector": VectorModel, "tile": TileModel}[options["kind"]]
    return kind(named_config(options["config"])), options


def _addresses(model, depth):
    """The first ``depth - 1`` and the last address of each bank, so that all address bits matter."""
    offsets = [*range(depth - 1), model.bank_depth - 1]
    return [bank * model.bank_depth + offset for bank in range(model.banks) for offset in offsets]


@cocotb.test()
@cocotb.parametrize(pace=[0.25, 0.9])
async def serves_random_traffic(dut, pace):
    """All ports at once, on few addresses so that they meet."""
    model, options = _model()
    rng = generator(int(100 * pace))
    bench = Bench(dut, model, rng)
    await bench.start()
    addresses = _addresses(model, options["depth"])
    for _ in range(options["cycles"]):
        meeting = int(rng.choice(addresses))
        for port, fields in bench.pending.items():
            if fields is None and rng.random() < pace:
                address = meeting if rng.random() < 0.3 else int(rng.choice(addresses))
                make = model.request if port in model.reads else model.update
                bench.pending[port] = make(rng, port, address)
        await bench.step()
    assert min(bench.granted.values()) > options["cycles"] * pace / 80, bench.granted
    assert [port for port, count in bench.refused.items() if not count] == [model.reads[0], model.writes[0]]
    assert bench.checked > options["cycles"] * pace / 4


@cocotb.test()
async def keeps_every_address(dut):
    """Writes all addresses in use through each port in turn, then reads them through each port."""
    model, options = _model()
    rng = generator(1)
    bench = Bench(dut, model, rng)
    await bench.start()
    lines = range(model.size if options["kind"] == "tile" else 1)
    for writer in model.writes:
        for address in _addresses(model, options["depth"]):
            for line in lines:
                fields = model.update(rng, writer, address)
                bench.pending[writer] = fields | ({"line": line} if "line" in fields else {})
                await bench.step()
        before = bench.checked
        for reader in model.reads:
            for address in _addresses(model, options["depth"]):
                for line in lines:
                    for transpose in (0, 1) if options["kind"] == "tile" else (0,):
                        fields = model.request(rng, reader, address)
                        change = {"line": line, "transpose": transpose} if "line" in fields else {}
                        bench.pending[reader] = fields | change
                        await bench.step()
        for _ in range(model.read_latency):
            await bench.step()
        count = len(model.reads) * len(_addresses(model, options["depth"])) * len(lines)
        assert bench.checked - before == count * (2 if options["kind"] == "tile" else 1)
