"""Matrix unit."""

import pytest
from macaw_hw.config import named_config
from macaw_hw.delay import DelayLine
from macaw_hw.matrix import MatrixUnit
from macaw_sim.runner import run_cocotb, simulators


@pytest.mark.parametrize("simulator", simulators())
@pytest.mark.parametrize(("name", "instructions"), [("n4", 60), ("n8", 30)])
def test_matrix(name, instructions, simulator):
    run_cocotb(MatrixUnit(config=named_config(name)), "matrix", name="matrix", simulator=simulator,
               parameters={"config": name, "instructions": instructions})


@pytest.mark.parametrize("cycles", [0, 1, 3, 12])
def test_delay_of_no_power_of_two(cycles):
    with pytest.raises(ValueError, match=f"^cycles must be a power of two and at least 2, not {cycles}$"):
        DelayLine(width=4, cycles=cycles)
