"""Training on the RTL: all weights equal to the emulator's bit for bit, whatever the memory does; faults and recovery.

The emulator itself agrees with plain NumPy, see test_kernels.
"""

import numpy as np
import pytest
from macaw import Device, Model, Trainer, manual_seed, nn, optim
from macaw.faults import BusReadFault, BusWriteFault, DeviceTimeout, NonFiniteFault, WindowFault
from macaw.program import Program
from macaw_hw.isa import DataFormat
from macaw_hw.registers import COUNTERS

SIZES = (50, 33, 7)
MEMORY = 4 << 20


def trainer_of(device, batch_size, lr=0.25):
    manual_seed(5)
    model = nn.Sequential(nn.Linear(SIZES[0], SIZES[1]), nn.ReLU(), nn.Linear(SIZES[1], SIZES[2]))
    return Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr), device, batch_size=batch_size)


def batch(rng, samples):
    return rng.integers(0, 256, (samples, SIZES[0]), dtype=np.uint8), rng.integers(0, SIZES[2], samples)


@pytest.fixture(scope="module", params=["n4", "n8"])
def config(request):
    return request.param


@pytest.mark.parametrize("options", [
    {}, {"stalls": 0.3, "read_latency": 7, "write_latency": 60},
    {"stalls": 0.6, "read_bandwidth": 0.5, "write_bandwidth": 0.4, "reorder": True, "interleave": True}],
    ids=["plain", "stalls", "slow and out of order"])
@pytest.mark.parametrize("samples", [1, 5, 64])
def test_weights_equal_the_emulators(config, samples, options, rng, seed):
    """Two full batches (the second finds weights on chip), then a smaller one; then inference."""
    data = [batch(rng, count) for count in (samples, samples, max(1, samples - 3))]
    results = []
    for backend, given in (("verilator", {**options, "seed": seed % 1000}), ("emulator", {})):
        with Device(config, backend, dram_bytes=MEMORY, **given) as device:
            trainer = trainer_of(device, samples)
            steps = [trainer.train_step(x, y) for x, y in data]
            results.append((steps, trainer.model.state_dict(), trainer.predict(data[0][0])))
            if backend == "verilator":
                assert all(step.counters["cycles"] > 0 and 0 < step.utilization < 1 for step in steps)
                assert set(steps[0].counters) == set(COUNTERS)
    (rtl, weights, outputs), (emulator, expected, expected_outputs) = results
    assert [(step.loss, step.correct) for step in rtl] == [(step.loss, step.correct) for step in emulator]
    assert all(np.array_equal(weights[name].view("<u4"), expected[name].view("<u4")) for name in expected)
    assert np.array_equal(outputs, expected_outputs)


@pytest.fixture(scope="module")
def device():
    with Device("n4", "verilator", dram_bytes=MEMORY) as device:
        yield device


def assert_trains(device, rng):
    """A step on ``device`` equals one on the emulator."""
    x, y = batch(rng, 5)
    states = []
    with Device("n4", "emulator", dram_bytes=MEMORY) as emulator:
        for used in (device, emulator):
            trainer = trainer_of(used, 5)
            trainer.train_step(x, y)
            states.append(trainer.model.state_dict())
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[1])


def test_access_outside_the_window(device, rng):
    program = Program(device.config)
    program.load(format=DataFormat.FLOAT32, address=0, local=0, run=4)
    with pytest.raises(WindowFault, match=r"WINDOW, load unit, instruction 0: LOAD   FLOAT32 \[0x0\]"):
        device.run(program)
    assert_trains(device, rng)


@pytest.mark.parametrize("on, fault", [("read", BusReadFault), ("write", BusWriteFault)])
def test_bus_errors(device, on, fault, rng):
    trainer = trainer_of(device, 5)
    x, y = batch(rng, 5)
    trainer.train_step(x, y)
    home = trainer._session.plan.layers[0].master
    device.backend.inject_error(home.address, home.size, on=on)
    with pytest.raises(fault):
        trainer.train_step(x, y)
    device.backend.clear_errors()
    assert_trains(device, rng)


def test_divergence(device, rng):
    trainer = trainer_of(device, 5, lr=3e38)
    with pytest.raises(NonFiniteFault, match="lower the learning rate"):
        for _ in range(5):
            trainer.train_step(*batch(rng, 5))
    assert_trains(device, rng)


def test_timeout(device, rng):
    trainer = trainer_of(device, 64)
    x, y = batch(rng, 64)
    trainer.train_step(x, y)
    program, _ = list(trainer._session._programs.values())[-1]
    with pytest.raises(DeviceTimeout, match="did not end within 500 cycles"):
        device.run(program, max_cycles=500)
    assert_trains(device, rng)


def test_array_is_busy_in_a_wide_layer(device, rng):
    """Inference with 64 samples and 200 x 60 weights: the array works at least 85 % of the cycles."""
    model = Model(nn.Sequential(nn.Linear(200, 60, generator=rng)), device, batch_size=64)
    model.predict(rng.integers(0, 256, (64, 200), dtype=np.uint8))
    model.predict(rng.integers(0, 256, (64, 200), dtype=np.uint8))
    assert model.useful_macs == 64 * 200 * 60
    assert model.useful_macs / (model.counters["cycles"] * device.config.peak_macs) > 0.85


def test_the_largest_configuration(rng):
    """n32 is built nowhere else in the tests: a training step and inference, equal to the emulator's."""
    x, y = batch(rng, 5)
    results = []
    for backend in ("verilator", "emulator"):
        with Device("n32", backend, dram_bytes=MEMORY) as device:
            trainer = trainer_of(device, len(x))
            loss = trainer.train_step(x, y).loss
            weights = trainer.model.state_dict().values()
            results.append((loss, trainer.predict(x).tobytes(), [value.tobytes() for value in weights]))
    assert results[0] == results[1]
