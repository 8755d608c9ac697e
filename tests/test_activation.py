"""Activation unit."""

from pathlib import Path

import pytest
from macaw_hw import lane
from macaw_hw.activation import ActivationUnit
from macaw_hw.config import Config
from macaw_hw.isa import VectorOp
from macaw_sim.runner import SimulationError, run_cocotb, simulators

_WEIGHTS = Path(__file__).parent / "data" / "mnist-784-128-10.safetensors"
_SMALL = {"vector_banks": 2, "vector_bank_rows": 2048, "tile_banks": 2, "tile_bank_tiles": 32}


def _run(size, **options):
    fields = {"size": size, **_SMALL}
    parameters = {"config": fields, "weights": str(_WEIGHTS), **options.pop("parameters", {})}
    run_cocotb(ActivationUnit(config=Config(**fields)), "activation", name="activation", parameters=parameters,
               **options)


@pytest.mark.parametrize("size, turns", [(4, (1, 1)), (8, (4, 2))])
def test_verilator(size, turns):
    _run(size, parameters={"turns": turns, "instructions": 200})


@pytest.mark.skipif("icarus" not in simulators(), reason="Icarus Verilog is not installed")
def test_icarus():
    _run(4, simulator="icarus", parameters={"turns": (0, 1), "instructions": 24, "pairs": 400})


def test_wrong_sign_is_found(monkeypatch):
    """SUB that adds."""
    monkeypatch.setitem(lane._CONTROLS, VectorOp.SUB, lane._CONTROLS[VectorOp.ADD])
    with pytest.raises(SimulationError, match="SUB"):
        _run(4, testcase="operations", parameters={"turns": (1, 0), "pairs": 400})
