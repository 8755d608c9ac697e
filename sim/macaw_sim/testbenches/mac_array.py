"""MAC array: exact sums, at the promised latency, with tiles that change under the stream.

Parameters ``size`` and ``npz`` (a layer: inputs ``x``, weights ``w``). The array's ports are driven directly,
weights in the same cycles as the matrix unit does.
"""

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from ..arithmetic import quantize_tile
from . import generator, parameters

__all__ = ["packed", "random_mantissas"]


def packed(values):
    """An array as the integer that a port takes, element 0 lowest."""
    return int.from_bytes(np.ascontiguousarray(values).tobytes(), "little")


def random_mantissas(rng, shape):
    """int8 with many extremes, so that sums reach both ends of their range."""
    kind = rng.integers(0, 4)
    if kind == 0:
        return rng.choice(np.array([-128, 127], np.int8), shape)
    if kind == 1:
        return np.full(shape, rng.choice([-128, -1, 0, 1, 127]), np.int8)
    return rng.integers(-128, 128, shape).astype(np.int8)


class Bench:
    """Drives schedules and collects sums with the cycle in which they appear."""

    def __init__(self, dut, size):
        self.dut, self.size = dut, size
        self.sums = []
        self.cycle = 0

    async def start(self):
        self.dut.valid.value = 0
        self.dut.load.value = 0
        Clock(self.dut.clk, 10, unit="ns").start()
        self.dut.rst.value = 1
        for _ in range(2):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0

    async def step(self, x=None, first=False, weights=None, weight_row=0):
        """One cycle with these inputs."""
        dut = self.dut
        dut.valid.value = int(x is not None)
        dut.first.value = int(first)
        if x is not None:
            dut.x.value = packed(x)
        dut.load.value = int(weights is not None)
        if weights is not None:
            dut.weights.value = packed(weights)
            dut.weight_row.value = weight_row
        await RisingEdge(dut.clk)
        if dut.o_valid.value:
            self.sums.append((self.cycle, [getattr(dut, f"o_sum__{c}").value.to_signed()
                                           for c in range(self.size)]))
        self.cycle += 1


@cocotb.test()
async def multiplies_streams(dut):
    """Tiles of random length and with random gaps; the next tile is loaded as early or as late as allowed."""
    rng, size = generator(), parameters()["size"]
    bench = Bench(dut, size)
    await bench.start()
    expected = []
    tile = random_mantissas(rng, (size, size))
    for row in range(size):
        await bench.step(weights=tile[row], weight_row=row)
    for _ in range(parameters().get("tiles", 60)):
        rows = random_mantissas(rng, (int(rng.integers(1, 3 * size)), size))
        gaps = rng.random() < 0.5
        following = random_mantissas(rng, (size, size))
        # The first line of the next tile may come in the cycle in which the first row enters.
        lead = int(rng.choice([0, 0, 1, len(rows)]))
        streamed = loaded = cycle = 0
        while streamed < len(rows) or loaded < size:
            x = rows[streamed] if streamed < len(rows) and not (gaps and rng.random() < 0.3) else None
            load = loaded < size and (streamed or x is not None) and cycle >= lead
            before = streamed
            if x is not None:
                expected.append((bench.cycle + size + 2, rows[streamed].astype(int) @ tile.astype(int)))
                streamed += 1
            await bench.step(x, x is not None and before == 0, following[loaded] if load else None, loaded)
            loaded += load
            cycle += streamed > 0
        tile = following
    for _ in range(size + 5):
        await bench.step()
    assert [(cycle, list(sums)) for cycle, sums in expected] == bench.sums


@cocotb.test()
async def reaches_both_extremes(dut):
    """All products -128 * -128, then all -128 * 127."""
    size = parameters()["size"]
    bench = Bench(dut, size)
    await bench.start()
    for weight in (-128, 127):
        for row in range(size):
            await bench.step(weights=np.full(size, weight, np.int8), weight_row=row)
        await bench.step(np.full(size, -128, np.int8), first=True)
        for _ in range(size + 5):
            await bench.step()
        assert bench.sums.pop()[1] == [-128 * weight * size] * size
        assert not bench.sums


@cocotb.test()
async def multiplies_trained_weights(dut):
    """Tiles of a trained layer against quantized images, through the whole reduction of one tile column."""
    size = parameters()["size"]
    bench = Bench(dut, size)
    await bench.start()
    with np.load(parameters()["npz"]) as file:
        x, w = file["x"][:size], file["w"][:, :size]
    total, expected = np.zeros((size, size)), []
    for k in range(0, len(w) - size + 1, size):
        (rows, rows_exponent), (tile, tile_exponent) = (
            quantize_tile(np.ascontiguousarray(part, np.float32)) for part in (x[:, k:k + size], w[k:k + size]))
        for row in range(size):
            await bench.step(weights=tile[row], weight_row=row)
        for number, row in enumerate(rows):
            await bench.step(row, first=number == 0)
        products = rows.astype(int) @ tile.astype(int)
        expected += products.tolist()
        total += products * 2.0 ** (int(rows_exponent) + int(tile_exponent))
    for _ in range(size + 5):
        await bench.step()
    assert [sums for _, sums in bench.sums] == expected
    exact = x[:, :k + size] @ w[:k + size]
    assert np.abs(total - exact).max() < 0.05 * np.abs(exact).max()
