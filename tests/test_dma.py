"""DMA engine: load and store units behind the read arbiter."""

import pytest
from amaranth.hdl import Cat, Signal
from macaw_hw import dma_address, dma_bytes, dma_load, dma_store, dma_store_path
from macaw_hw.axi import ReadArbiter
from macaw_hw.config import CONFIGS, Config
from macaw_hw.dma_store_path import Cause
from macaw_hw.isa import Fault
from macaw_sim.runner import SimulationError, run_cocotb, simulators
from macaw_sim.testbenches.dma_top import DmaTop

# Small local memories, so that their ends are near; buses of N and 2 N bytes; narrow and wide addresses.
SHAPES = {
    "n4": dict(size=4, bus_bytes=4, address_width=32),
    "n4-wide": dict(size=4, bus_bytes=8, address_width=40),
    "n8": dict(size=8, bus_bytes=8, address_width=20),
}
BUSES = [(4, 4), (8, 16), (16, 32), (32, 32)]


def run(shape, *tests, simulator="verilator", npz=None):
    parameters = {"npz": str(npz), "config": {
        "vector_banks": 2, "vector_bank_rows": 512, "tile_banks": 2, "tile_bank_tiles": 64, **shape}}
    run_cocotb(DmaTop(config=Config(**parameters["config"])), "dma", name="dma", parameters=parameters,
               simulator=simulator, env={"COCOTB_TEST_FILTER": "|".join(tests)} if tests else None)


@pytest.mark.parametrize("shape", SHAPES)
def test_dma(shape, trained_layer):
    run(SHAPES[shape], npz=trained_layer)


@pytest.mark.skipif("icarus" not in simulators(), reason="Icarus Verilog is not installed")
def test_dma_in_icarus(trained_layer):
    tests = ("moves_trained_weights", "aligns_everything.*=4", "runs_nested_loops.*=all", "reports_bus_errors.*=all",
             "halts_at_any_time")
    run(SHAPES["n4"], *tests, simulator="icarus", npz=trained_layer)


def run_bursts(size, bus_bytes, simulator="verilator"):
    config = {"size": size, "bus_bytes": bus_bytes, "address_width": 32 if bus_bytes < 32 else 40}
    run_cocotb(dma_address.BurstGenerator(config=Config(**config)), "dma_bursts", name="dma_bursts",
               simulator=simulator, parameters={"config": config})


@pytest.mark.parametrize("size, bus_bytes", BUSES)
def test_bursts(size, bus_bytes):
    run_bursts(size, bus_bytes, simulators()[-1])


def test_bursts_in_verilator():
    run_bursts(16, 32)


def _too_far(m, bound, elements, width=8):
    return Cat((bound < i).replicate(width) for i in range(elements))


def _no_sign(m, value):
    result, bad = dma_bytes.float32_to_uint8(m, Cat(value[:31], 0))
    return result, bad


def _no_zero(m, value):
    result = Signal(32)
    m.d.comb += result.eq(dma_bytes.uint8_to_float32(m, value | (value == 0)))
    return result


MUTATIONS = {
    "bursts of 512 beats": (dma_address, "_BEATS", 512, "splits_long_runs"),
    "stride bits": (dma_address, "_STRIDE", 9, "runs_nested_loops"),
    "bytes lost while packing": (dma_bytes, "at_least", _too_far, "aligns_everything.*=0"),
    "bytes lost while aligning": (dma_store_path, "at_least", _too_far, "aligns_everything.*=0"),
    "sign of pixels": (dma_store_path, "float32_to_uint8", _no_sign, "converts_all_pixels"),
    "pixels of zero": (dma_load, "uint8_to_float32", _no_zero, "converts_all_pixels"),
    "name of a fault": (dma_store, "_FAULTS", {Cause.NON_FINITE: Fault.WINDOW}, "refuses_non_finite"),
    "one burst at a time": (dma_load, "OUTSTANDING", 2, "keeps_its_speed.*load"),
}


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_checks_see_mutations(mutation, monkeypatch):
    module, name, value, tests = MUTATIONS[mutation]
    monkeypatch.setattr(module, name, value)
    with pytest.raises(SimulationError, match="tests failed"):
        run(SHAPES["n4"], tests, simulator=simulators()[-1])


def test_checks_see_bursts_across_4_kib(monkeypatch):
    monkeypatch.setattr(dma_address, "_PAGE", 8192)
    with pytest.raises(SimulationError, match="tests failed"):
        run_bursts(16, 32, simulators()[-1])


def test_arbiter_rejects_one_master():
    with pytest.raises(ValueError, match="^masters must be at least 2, not 1$"):
        ReadArbiter(config=CONFIGS["n4"], masters=1)
