"""MAC array."""

import pytest
from macaw_hw.config import named_config
from macaw_hw.mac_array import MacArray, MacRow, sum_shape
from macaw_sim.runner import run_cocotb, simulators


@pytest.mark.parametrize("simulator", simulators())
@pytest.mark.parametrize("name", ["n4", "n16"])
def test_mac_array(name, simulator, trained_layer):
    config = named_config(name)
    run_cocotb(MacArray(config=config), "mac_array", name="mac_array", simulator=simulator,
               parameters={"size": config.size, "tiles": 40, "npz": str(trained_layer)})


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 8, 16, 32])
def test_sum_shape_is_as_wide_as_needed(rows):
    shape = sum_shape(rows)
    assert shape.signed
    assert -(1 << shape.width - 1) <= -128 * 127 * rows
    assert (1 << shape.width - 2) <= 128 * 128 * rows < 1 << shape.width - 1


def test_row_outside_the_array():
    with pytest.raises(ValueError, match="^index must be from 0 to 3, not 4$"):
        MacRow(size=4, index=4)
