"""cocotb testbenches, one module for each unit; pytest starts them with `macaw_sim.runner`.

They run inside the simulator. What a run was started with arrives here: `parameters` (what pytest
passed to `run_cocotb`) and `generator` (random numbers that follow the printed seed).
"""

import json
import os

import numpy as np

__all__ = ["parameters", "generator"]


def parameters():
    """The ``parameters`` that `macaw_sim.runner.run_cocotb` was given."""
    return json.loads(os.environ.get("MACAW_PARAMETERS", "{}"))


def generator(*salt):
    """A NumPy random generator from the run's seed, independent for each ``salt`` (integers)."""
    return np.random.default_rng([int(os.environ.get("COCOTB_RANDOM_SEED", "0")), *salt])
