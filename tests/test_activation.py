"""Activation unit."""

import pytest
from macaw_hw.activation import ActivationUnit
from macaw_hw.config import Config
from macaw_sim.runner import run_cocotb, simulators

_SMALL = {"vector_banks": 2, "vector_bank_rows": 2048, "tile_banks": 2, "tile_bank_tiles": 32}


def _run(size, **options):
    fields = {"size": size, **_SMALL}
    parameters = {"config": fields, **options.pop("parameters", {})}
    run_cocotb(ActivationUnit(config=Config(**fields)), "activation", name="activation", parameters=parameters,
               **options)


@pytest.mark.parametrize("simulator", simulators())
@pytest.mark.parametrize("size, turns", [(4, (1, 1)), (8, (4, 2))])
def test_activation(size, turns, simulator):
    _run(size, simulator=simulator, parameters={"turns": turns})
