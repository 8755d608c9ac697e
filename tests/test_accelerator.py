"""The whole accelerator: the driver over cocotb, with real weights."""

import numpy as np
import pytest
from macaw_hw.config import named_config
from macaw_hw.verilog import MODULE, generate
from macaw_sim.runner import build_and_run, simulators

CASES = {
    "verilator": [("n8", [784, 128, 10], 8, 5)],
    "icarus": [("n4", [50, 33, 7], 3, 5)],
}


@pytest.fixture
def samples(tmp_path, dataset):
    """Test images and labels in a file for the testbench; random where there is no MNIST."""
    x, y = dataset.test_x[:64], dataset.test_y[:64]
    if x.shape[1] != 784:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (64, 784), dtype=np.uint8)
    np.savez(tmp_path / "samples.npz", x=x.reshape(64, 784), y=y)
    return tmp_path / "samples.npz"


@pytest.mark.parametrize("stall", [0.0, 0.3])
@pytest.mark.parametrize("simulator", simulators())
def test_driver_over_cocotb(simulator, stall, samples, dataset, trained_weights):
    for config, widths, images, batch in CASES[simulator]:
        build_and_run(generate(named_config(config)), "accelerator", name=MODULE, simulator=simulator, parameters={
            "config": config, "widths": widths, "images": images, "batch": batch, "stall": stall,
            "data": str(samples), "weights": str(trained_weights),
            "mnist": dataset.test_x[0].size == 784})
