"""Training steps whose weights do not stay on chip: the order of the products, and that the array is busy.

That their results are right is in test_kernels, which has such shapes for every configuration.
"""

import numpy as np
import pytest
import test_kernels
from macaw import Device
from macaw.kernels import Workspace, training_program
from macaw.kernels.job import Job
from macaw.kernels.products import Product, weave
from macaw.plan import Plan
from macaw_hw.config import Config


def products(cycles, releases=()):
    return [Product(cycles, (), None, [Product(count, (), None) for count in counts]) for counts in releases]


@pytest.mark.parametrize("releases", [[[]], [[5]], [[10, 10], [], [], [40], [3] * 7, []], [[]] * 3 + [[100] * 9]])
def test_weave_keeps_both_orders_and_brings_nothing_before_its_release(releases):
    given = products(10, releases)
    later = [product for one in given for product in one.releases]
    woven = weave(given)
    assert [product for product in woven if product in given] == given
    assert [product for product in woven if product in later] == later
    assert len(woven) == len(given) + len(later)
    for one in given:
        assert all(woven.index(one) < woven.index(product) for product in one.releases)


def test_weave_spreads_what_is_released():
    """Twenty products that release as many at once, of half the length: two for one from the second on."""
    given = products(10, [[5] * 40] + [[]] * 20)
    woven = weave(given)
    kinds = "".join("g" if product in given else "r" for product in woven)
    assert "rrrr" not in kinds and "gg" not in kinds, kinds


# Small enough for the emulator, but the weights are several times the tile memory.
SMALL = Config(size=8, vector_bank_rows=256, tile_bank_tiles=128)


@pytest.mark.parametrize("config, sizes, samples, pixels", [
    (SMALL, (130, 250, 250, 10), 32, True),       # groups of several tiles, as large networks have them
    (SMALL, (90, 210, 110, 130, 9), 45, False),   # layers of one group between others; several blocks
    (SMALL, (500, 33), 20, True),                 # one layer
])
def test_steps_equal_numpy_to_the_last_bit(config, sizes, samples, pixels, rng):
    test_kernels.assert_steps_equal_reference(config, sizes, samples, rng, pixels)


@pytest.mark.parametrize("relu, bias", [(False, True), (True, False)])
def test_without_activation_or_bias(relu, bias, rng):
    """As the same network on a configuration that keeps the weights on chip."""
    sizes, samples = (60, 150, 90, 7), 24
    x, y = test_kernels.batch(rng, samples, sizes[0], sizes[-1])
    first = test_kernels.network(sizes, rng, bias, relu).state_dict()
    states = []
    for config in (SMALL, "n8"):
        model = test_kernels.network(sizes, rng, bias, relu)
        model.load_state_dict(first)
        with Device(config, "emulator", dram_bytes=16 << 20) as device:
            session = test_kernels.Session(model, device, samples, training=True)
            session.train(x, y, 0.25)
            assert session.plan.weights_fit(samples, True) == (config == "n8")
            states.append(model.state_dict())
    assert all(np.array_equal(states[0][name], states[1][name]) for name in first)
    assert all(not np.array_equal(states[0][name], first[name]) for name in first)


@pytest.mark.parametrize("options", [{}, {"stalls": 0.4, "read_latency": 7, "write_latency": 60, "reorder": True}],
                         ids=["plain", "stalls"])
def test_rtl_equals_emulator(options, rng, seed):
    """Two steps on n4: the second finds float32 weights that the first has left on chip."""
    sizes, samples = (110, 90, 60, 10), 24
    data = [test_kernels.batch(rng, samples, sizes[0], sizes[-1]) for _ in range(2)]
    first = test_kernels.network(sizes, rng).state_dict()
    states = []
    for backend, given in (("verilator", {**options, "seed": seed % 1000} if options else {}), ("emulator", {})):
        model = test_kernels.network(sizes, rng)
        model.load_state_dict(first)
        with Device("n4", backend, dram_bytes=8 << 20, **given) as device:
            session = test_kernels.Session(model, device, samples, training=True)
            assert not session.plan.weights_fit(samples, True)
            losses = [session.train(x, y, 0.25)[1] for x, y in data]
            states.append([np.array(losses), *model.state_dict().values()])
    assert all(np.array_equal(rtl.view("<u4"), emulated.view("<u4")) for rtl, emulated in zip(*states, strict=True))


def test_array_is_busy_most_of_a_step(rng):
    """By the builder's own estimate, which the RTL exceeds by some percent."""
    with Device("n16", "emulator", dram_bytes=32 << 20) as device:
        plan = Plan(test_kernels.network((400, 512, 512, 10), rng), device, training=64)
        workspace = Workspace(plan, 64, True)
        job = Job(plan, workspace, 64, True, True)
        assert job.streaming and [batch.rows for batch in job.batches] == [64]
        program = training_program(plan, workspace, 64, True, 0.1)[0]
        assert plan.macs(64, training=True) / 256 > 0.94 * program.estimate
