"""Decoder, queues and tokens."""

import pytest
from macaw_hw.config import named_config
from macaw_hw.sequencer import Sequencer
from macaw_sim.runner import run_cocotb, simulators


@pytest.mark.parametrize("simulator", simulators())
def test_sequencer(simulator):
    run_cocotb(Sequencer(config=named_config("n4")), "sequencer", name="sequencer", simulator=simulator)
