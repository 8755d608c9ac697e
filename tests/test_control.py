"""Registers, doorbell, faults, counters."""

import pytest
from macaw_hw.config import named_config
from macaw_hw.control import Control
from macaw_sim.runner import run_cocotb, simulators


@pytest.mark.parametrize("simulator", simulators())
def test_control(simulator):
    run_cocotb(Control(config=named_config("n4")), "control", name="control", simulator=simulator,
               parameters={"config": "n4"})
