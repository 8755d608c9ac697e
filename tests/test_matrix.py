"""Matrix unit, alone and with the memories."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In
from macaw_hw.config import Config, named_config
from macaw_hw.delay import DelayLine
from macaw_hw.interfaces import TileRead, TileWrite, Unit, VectorRead, VectorWrite
from macaw_hw.isa import MATRIX
from macaw_hw.matrix import MatrixUnit
from macaw_hw.tile_memory import TileMemory
from macaw_hw.vector_memory import VectorMemory
from macaw_sim.runner import run_cocotb, simulators


class MatrixWithMemories(wiring.Component):
    """The matrix unit and both memories, with the ports of the DMA engine outside."""

    def __init__(self, config):
        self.config = config
        super().__init__({
            "control": In(Unit(MATRIX)),
            "tile_load": In(TileWrite(config)), "tile_store": In(TileRead(config)),
            "vector_load": In(VectorWrite(config)), "vector_store": In(VectorRead(config)),
        })

    def elaborate(self, platform):
        m = Module()
        m.submodules.matrix = matrix = MatrixUnit(config=self.config)
        m.submodules.tile_memory = tile_memory = TileMemory(config=self.config)
        m.submodules.vector_memory = vector_memory = VectorMemory(config=self.config)
        for outside, inside in (
                (self.control, matrix.control),
                (self.tile_load, tile_memory.load), (self.tile_store, tile_memory.store),
                (self.vector_load, vector_memory.load), (self.vector_store, vector_memory.store)):
            wiring.connect(m, wiring.flipped(outside), inside)
        for master, slave in ((matrix.x, tile_memory.x), (matrix.w, tile_memory.w),
                              (matrix.acc_read, vector_memory.acc_read), (matrix.acc_write, vector_memory.acc_write)):
            wiring.connect(m, master, slave)
        return m


@pytest.mark.parametrize(("name", "instructions", "simulator"), [
    *(("n4", 60, simulator) for simulator in simulators()), ("n8", 30, "verilator")])
def test_matrix(name, instructions, simulator, trained_layer):
    run_cocotb(MatrixUnit(config=named_config(name)), "matrix", name="matrix", simulator=simulator,
               parameters={"config": name, "instructions": instructions, "npz": str(trained_layer)})


@pytest.mark.parametrize("simulator", simulators())
def test_matrix_with_memories(simulator):
    config = Config(size=4, vector_bank_rows=64, tile_bank_tiles=16)
    run_cocotb(MatrixWithMemories(config), "matrix_memories", name="matrix_memories", simulator=simulator,
               parameters={"config": config.to_dict(), "instructions": 80})


@pytest.mark.parametrize("cycles", [0, 1, 3, 12])
def test_delay_of_no_power_of_two(cycles):
    with pytest.raises(ValueError, match=f"^cycles must be a power of two and at least 2, not {cycles}$"):
        DelayLine(width=4, cycles=cycles)
