"""The whole accelerator with bus models that are not ours: the driver over cocotb, with real weights.

``make cocotb`` (``MACAW_LONG=1``) runs what takes minutes: the whole network in both simulators.
"""

import os

import numpy as np
import pytest
from macaw_hw.config import named_config
from macaw_hw.verilog import MODULE, generate
from macaw_sim.runner import build_and_run, simulators

MNIST = [784, 128, 10]
ODD = [50, 33, 7]

# Configuration, widths of the network, images, training steps and their batch, pauses on every channel.
SHORT = {
    "verilator": [("n4", ODD, 5, 2, 3, 0.2), ("n4", MNIST, 1, 1, 2, 0.0)],
    "icarus": [("n4", ODD, 3, 1, 3, 0.3)],
}
LONG = {
    "verilator": [("n8", ODD, 16, 3, 16, 0.3), ("n8", MNIST, 32, 3, 16, 0.0), ("n8", MNIST, 8, 2, 8, 0.3)],
    "icarus": [("n8", ODD, 5, 2, 5, 0.3), ("n4", MNIST, 4, 2, 4, 0.0), ("n4", MNIST, 2, 1, 2, 0.3)],
}
CASES = [pytest.param(simulator, *case, id="-".join([simulator, case[0], *map(str, case[1]), f"stall{case[5]}"]))
         for simulator, cases in (LONG if os.environ.get("MACAW_LONG") else SHORT).items() for case in cases]


@pytest.fixture
def samples(tmp_path, dataset):
    """Test images and labels in a file for the testbench; random where there is no MNIST."""
    x, y = dataset.test_x[:64], dataset.test_y[:64]
    if x.shape[1] != 784:
        rng = np.random.default_rng(0)
        x = rng.integers(0, 256, (64, 784), dtype=np.uint8)
    np.savez(tmp_path / "samples.npz", x=x.reshape(64, 784), y=y)
    return tmp_path / "samples.npz"


@pytest.mark.parametrize("simulator, config, widths, images, steps, batch, stall", CASES)
def test_driver_over_cocotb(simulator, config, widths, images, steps, batch, stall, samples, dataset, trained_weights):
    if simulator not in simulators():
        pytest.skip(f"{simulator} is not installed")
    build_and_run(generate(named_config(config)), "accelerator", name=MODULE, simulator=simulator, parameters={
        "config": config, "widths": widths, "images": images, "steps": steps, "batch": batch, "stall": stall,
        "data": str(samples), "weights": str(trained_weights), "mnist": dataset.test_x[0].size == 784})
