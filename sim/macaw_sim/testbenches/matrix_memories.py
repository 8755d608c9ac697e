"""Matrix unit with the real memories: same-bank conflicts, and other traffic on the remaining ports.

Parameters: ``config`` (its fields), ``instructions``.
"""

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from macaw_hw.config import Config
from macaw_hw.isa import Fault

from . import generator, parameters
from .mac_array import packed
from .matrix import execute, payload, random_instruction, random_rows, random_tiles

__all__ = []


class Bench:
    """Fills the memories through their load ports, reads the vector memory through its store port."""

    def __init__(self, dut, rng, config):
        self.dut, self.rng, self.config = dut, rng, config
        self.mantissas, self.exponents = random_tiles(rng, config.tiles, config.size)
        self.vector = random_rows(rng, config.vector_rows, config.size)
        self.waits = 0

    async def start(self):
        for port in ("control__instruction", "tile_load", "tile_store", "vector_load", "vector_store"):
            getattr(self.dut, f"{port}__valid").value = 0
        Clock(self.dut.clk, 10, unit="ns").start()
        self.dut.rst.value = 1
        for _ in range(2):
            await RisingEdge(self.dut.clk)
        self.dut.rst.value = 0
        for tile, (mantissas, exponent) in enumerate(zip(self.mantissas, self.exponents, strict=True)):
            for line, row in enumerate(mantissas):
                await self.transfer("tile_load", tile=tile, line=line, data=packed(row),
                                    exponent=int(exponent) & 0x1FF)
        for row, data in enumerate(self.vector):
            await self.transfer("vector_load", row=row, data=packed(data))

    async def transfer(self, port, **fields):
        """One transfer; the answer of a read port is there after one more cycle."""
        for name, value in fields.items():
            getattr(self.dut, f"{port}__{name}").value = value
        getattr(self.dut, f"{port}__valid").value = 1
        while True:
            await RisingEdge(self.dut.clk)
            if getattr(self.dut, f"{port}__ready").value:
                break
        getattr(self.dut, f"{port}__valid").value = 0

    async def rows(self):
        """The vector memory as it is."""
        rows = []
        for row in range(self.config.vector_rows):
            await self.transfer("vector_store", row=row)
            await RisingEdge(self.dut.clk)
            rows.append(int(self.dut.vector_store__data.value).to_bytes(4 * self.config.size, "little"))
        return np.frombuffer(b"".join(rows), np.float32).reshape(len(rows), -1)

    async def disturb(self):
        """Reads of both memories, as many as they let through."""
        while True:
            tile, line = (int(self.rng.integers(0, n)) for n in (self.config.tiles, self.config.size))
            if self.rng.random() < 0.5:
                await self.transfer("tile_store", tile=tile, line=line, transpose=int(self.rng.integers(0, 2)))
            else:
                row = int(self.rng.integers(0, self.config.vector_rows))
                await self.transfer("vector_store", row=row)

    async def run(self, program, limit=50_000):
        dut, queue, done = self.dut, list(program), 0
        for _ in range(limit):
            if done == len(program):
                break
            dut.control__instruction__valid.value = int(bool(queue))
            if queue:
                dut.control__instruction__payload.value = payload(queue[0])
            await RisingEdge(dut.clk)
            if dut.control__instruction__valid.value and dut.control__instruction__ready.value:
                queue.pop(0)
            done += int(dut.control__done.value)
            self.waits += int(dut.control__wait_memory.value)
            assert dut.control__fault.value == Fault.NONE
        assert done == len(program), "the unit does not finish"
        dut.control__instruction__valid.value = 0


@cocotb.test()
async def runs_random_programs(dut):
    """Both operands anywhere, so often in one bank."""
    options = parameters()
    config, rng = Config(**options["config"]), generator()
    bench = Bench(dut, rng, config)
    await bench.start()
    program = [random_instruction(rng, config) for _ in range(options["instructions"])]
    expected = bench.vector.copy()
    for fields in program:
        execute(fields, bench.mantissas, bench.exponents, expected)
    traffic = cocotb.start_soon(bench.disturb())
    await bench.run(program)
    traffic.cancel()
    assert bench.waits > len(program), "no conflict arose"
    for port in ("tile_store", "vector_store"):
        getattr(dut, f"{port}__valid").value = 0
    got = await bench.rows()
    wrong = np.argwhere(got.view(np.uint32) != expected.view(np.uint32))
    assert not len(wrong), f"{len(wrong)} lanes differ, first at row {wrong[0][0]} lane {wrong[0][1]}"
