"""Every counter after fixed programs is as recorded: a change that costs cycles does not pass unseen."""

import re

import pytest
from macaw_hw.config import named_config
from macaw_hw.registers import COUNTERS
from macaw_sim import timing
from macaw_sim.fuzz.case import Mismatch

CONFIGS = ("n4", "n16")


@pytest.mark.parametrize("name", CONFIGS)
def test_counters_are_as_recorded(name):
    timing.check(named_config(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_every_counter_counts(name):
    _, measured = timing.load(named_config(name))
    reached = {counter for rows in measured for row in rows for counter, value in row.items() if value}
    assert reached == set(COUNTERS)


def test_another_count_is_a_mismatch(monkeypatch):
    config = named_config("n4")
    programs, measured = timing.load(config)
    cycles = measured[1][2]["cycles"]
    measured[1][2]["cycles"] += 1
    monkeypatch.setattr(timing, "load", lambda config: (programs, measured))
    with pytest.raises(Mismatch, match=re.escape(f"program 2 with memory {{}}: cycles {cycles} instead of "
                                                 f"{cycles + 1}; if the change is meant, record it: ")):
        timing.check(config)
