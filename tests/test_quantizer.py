"""Quantizer: float32 rows to bfp8 tiles."""

import pytest
from macaw_hw import quantizer
from macaw_hw.config import Config
from macaw_hw.quantizer import Quantizer
from macaw_sim.runner import SimulationError, run_cocotb, simulators


def _run(size, turns, **options):
    fields = {"size": size, "tile_banks": 2, "tile_bank_tiles": 8}
    run_cocotb(Quantizer(config=Config(**fields)), "quantizer", name="quantizer",
               parameters={"config": fields, "turns": turns}, **options)


@pytest.mark.parametrize("size, turns", [(4, 12), (16, 2)])
def test_quantizer(size, turns):
    _run(size, turns)


@pytest.mark.skipif("icarus" not in simulators(), reason="Icarus Verilog is not installed")
def test_quantizer_icarus():
    _run(8, 1, simulator="icarus")


def test_wrong_exponent_is_found(monkeypatch):
    monkeypatch.setattr(quantizer, "_BIAS", quantizer._BIAS - 1)
    with pytest.raises(SimulationError, match="failed"):
        _run(4, 1)
