"""Quantizer against `macaw_sim.arithmetic.quantize_tile`: roundings, partial tiles, gaps, stalls, rate, faults.

Parameter ``config``: fields of the `Config`.
"""

from collections import deque

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import FallingEdge, RisingEdge
from macaw_hw.config import Config
from macaw_hw.lane import Lane

from macaw_sim import arithmetic

from . import generator, parameters
from .local_memory import LocalMemory

__all__ = []

_DELAY = Lane.latency + 2
"""From the reservation of a row to the row, as in the activation unit."""


class Bench:
    """Drives rows and counts up the tile addresses."""

    def __init__(self, dut, salt):
        self.dut = dut
        self.config = Config(**parameters()["config"])
        self.rng = generator(salt)
        self.memory = LocalMemory(dut, self.config, self.rng)
        self.address = self.finished = 0

    async def start(self):
        for name in ("reserve", "valid", "end", "last", "address", "hold"):
            getattr(self.dut, name).value = 0
        Clock(self.dut.clk, 10, unit="ns").start()
        cocotb.start_soon(self.memory.run())
        cocotb.start_soon(self._watch())
        await self.reset()

    async def reset(self):
        self.dut.rst.value = 1
        for _ in range(2):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        self.address = self.finished = 0
        self.dut.address.value = 0
        for port in self.memory.ports:
            port.held = None

    async def _watch(self):
        while True:
            await RisingEdge(self.dut.clk)
            self.finished += int(self.dut.finished.value)
            if int(self.dut.next.value):
                self.address += 1
                self.dut.address.value = self.address

    async def send(self, tiles, gap=0.0):
        """The rows of ``tiles`` (uint32 [rows, N] each), as soon as there is room but for random gaps."""
        rows = deque()
        for index, tile in enumerate(tiles):
            for i, row in enumerate(tile):
                end = i == len(tile) - 1
                rows.append((row, end and len(tile) < self.config.size, end and index == len(tiles) - 1))
        under_way = deque([None] * _DELAY)
        while rows or any(row is not None for row in under_way):
            await FallingEdge(self.dut.clk)
            reserve = rows and int(self.dut.room.value) and self.rng.random() >= gap
            self.dut.reserve.value = int(bool(reserve))
            under_way.append(rows.popleft() if reserve else None)
            row, end, last = under_way.popleft() or (None, 0, 0)
            self.dut.valid.value, self.dut.end.value, self.dut.last.value = int(row is not None), int(end), int(last)
            if row is not None:
                self.dut.row.value = int.from_bytes(row.tobytes(), "little")
        await FallingEdge(self.dut.clk)
        self.dut.valid.value = self.dut.reserve.value = 0

    async def written(self, count):
        """Wait until ``count`` tiles have gone, and a while longer."""
        for _ in range(100 * count * self.config.size + 100):
            await RisingEdge(self.dut.clk)
            if self.address == count and self.finished and int(self.dut.idle.value):
                return
        raise AssertionError(f"{self.address} of {count} tiles went")

    def check(self, tiles):
        """Compare what was written, and its order, with the model."""
        expected = []
        for index, tile in enumerate(tiles):
            mantissas, exponent = arithmetic.quantize_tile(arithmetic.from_bits(tile))
            expected += [(index, line, int(exponent)) for line in range(self.config.size)]
            difference = np.argwhere(self.memory.mantissas[index] != mantissas)
            for line, lane in difference[:5]:
                value = tile[line, lane] if line < len(tile) else 0
                self.dut._log.error(f"tile {index}[{line}, {lane}]: {value:08x} * 2^{-exponent} became "
                                    f"{self.memory.mantissas[index, line, lane]}, not {mantissas[line, lane]}")
            assert not len(difference)
        assert self.memory.tile_writes == expected


def random_tile(rng, rows, size):
    """float32 patterns that meet every rounding: halves, neighbours of halves, 127.5, far smaller ones, zeros."""
    exponent = int(rng.choice([1, 2, 7, 8, 60, 126, 127, 128, 200, 253, 254]))
    quarters = rng.integers(-512, 513, (rows, size)) / 4
    values = quarters.astype(np.float32) + np.float32(0)
    kind = rng.integers(0, 6, (rows, size))
    nudge = np.where(kind == 1, np.nextafter(values, np.float32(0)), np.where(
        kind == 2, np.nextafter(values, np.float32(1000)), values))
    tiny = np.ldexp(nudge, -rng.integers(0, 12, (rows, size))).astype(np.float32)
    values = np.where(kind == 3, tiny, np.where(kind == 4, np.float32(0), nudge)).astype(np.float32)
    with np.errstate(all="ignore"):
        scaled = np.ldexp(values.astype(np.float64), exponent - 127 - 6).astype(np.float32)
    return arithmetic.to_bits(np.where(np.isfinite(scaled), arithmetic.normalise(scaled), np.float32(0)))


@cocotb.test()
async def random_tiles(dut):
    """Full and partial tiles, with gaps between rows and stalls of the memory."""
    bench = Bench(dut, 1)
    await bench.start()
    size = bench.config.size
    for gap, stall in ((0, 0), (0.5, 0), (0, 0.8), (0.2, 0.2)):
        for _ in range(parameters().get("turns", 4)):
            tiles = [random_tile(bench.rng, int(bench.rng.choice([1, 2, size - 1, size, size])), size)
                     for _ in range(bench.config.tiles)]
            tiles[3][:] = bench.rng.choice(np.array([0, 0x80000000], np.uint32), tiles[3].shape)
            bench.memory.forget_writes()
            bench.memory.tile.stall = stall
            await bench.send(tiles, gap)
            await bench.written(len(tiles))
            bench.check(tiles)
            await bench.reset()


@cocotb.test()
async def rate(dut):
    """Full tiles leave at one row per cycle, without a gap between them."""
    bench = Bench(dut, 2)
    await bench.start()
    size = bench.config.size
    tiles = [random_tile(bench.rng, size, size) for _ in range(12)]
    await bench.send(tiles)
    await bench.written(len(tiles))
    bench.check(tiles)
    times = bench.memory.tile_times
    assert round((times[-1] - times[0]) / 10) == 12 * size - 1


@cocotb.test()
async def faults(dut):
    """No tile with an infinity or NaN, nor any later one, is written; an address outside ends everything."""
    bench = Bench(dut, 3)
    await bench.start()
    size = bench.config.size
    for bits in (0x7F800000, 0xFF800000, 0x7FC00000):
        for position in (0, 2, 5):
            tiles = [random_tile(bench.rng, size, size) for _ in range(6)]
            tiles[position][bench.rng.integers(size), bench.rng.integers(size)] = bits
            bench.memory.forget_writes()
            bench.memory.stalls(0.5)
            await bench.send(tiles)
            await bench.written(len(tiles))
            assert int(dut.non_finite.value)
            bench.check(tiles[:position])
            await bench.reset()
            assert not int(dut.non_finite.value)
    count = bench.config.tiles
    tiles = [random_tile(bench.rng, size, size) for _ in range(count + 1)]
    bench.memory.forget_writes()
    await bench.send(tiles)
    for _ in range(20 * size):
        await RisingEdge(dut.clk)
    assert int(dut.outside.value) and int(dut.idle.value) and not bench.finished
    bench.check(tiles[:count])
