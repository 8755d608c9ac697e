"""DMA engine: load and store units behind the read arbiter."""

import pytest
from macaw_hw.axi import ReadArbiter
from macaw_hw.config import CONFIGS, Config
from macaw_sim.runner import run_cocotb, simulators
from macaw_sim.testbenches.dma_top import DmaTop

# Small local memories, so that their ends are near; buses of N and 2 N bytes; narrow and wide addresses.
SHAPES = {
    "n4": dict(size=4, bus_bytes=4, address_width=32),
    "n4-wide": dict(size=4, bus_bytes=8, address_width=40),
    "n8": dict(size=8, bus_bytes=8, address_width=20),
}


def run(shape, **options):
    parameters = {"config": {"vector_banks": 2, "vector_bank_rows": 512, "tile_banks": 2, "tile_bank_tiles": 64,
                             **SHAPES[shape]}}
    run_cocotb(DmaTop(config=Config(**parameters["config"])), "dma", name="dma", parameters=parameters, **options)


@pytest.mark.parametrize("shape", SHAPES)
def test_dma(shape):
    run(shape)


@pytest.mark.skipif("icarus" not in simulators(), reason="Icarus Verilog is not installed")
def test_dma_in_icarus():
    tests = ("aligns_everything.*=4", "runs_nested_loops.*=all", "reports_bus_errors.*=all", "halts_at_any_time")
    run("n4", simulator="icarus", env={"COCOTB_TEST_FILTER": "|".join(tests)})


def test_arbiter_rejects_one_master():
    with pytest.raises(ValueError, match="^masters must be at least 2, not 1$"):
        ReadArbiter(config=CONFIGS["n4"], masters=1)
