"""Trainer and Model: learning, evaluation, wrong inputs, several users of one device."""

import gc

import numpy as np
import pytest
from macaw import Device, Model, Trainer, manual_seed, nn, optim
from macaw.data import load_digits
from macaw.faults import NonFiniteFault
from macaw.plan import NetworkError
from macaw.session import InputError


@pytest.fixture
def device():
    with Device("n8", "emulator", dram_bytes=16 << 20) as device:
        yield device


def network(*sizes, seed=0):
    manual_seed(seed)
    modules = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        modules += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*modules[:-1])


def trainer_of(model, device, lr=0.1, batch_size=16):
    return Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=lr), device, batch_size=batch_size)


def float32_outputs(model, x):
    for module in model:
        x = np.maximum(x, 0) if isinstance(module, nn.ReLU) else x @ module.weight.data.T + module.bias.data
    return x


def train_in_float32(state, order, x, y, lr, batch_size):
    """Plain NumPy SGD on a 2-layer network from ``state``; returns the trained parameters."""
    w1, b1, w2, b2 = (value.copy() for value in state.values())
    for start in range(0, len(order), batch_size):
        part = order[start:start + batch_size]
        inputs, labels = x[part], y[part]
        hidden = np.maximum(inputs @ w1.T + b1, 0)
        logits = hidden @ w2.T + b2
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        p[np.arange(len(part)), labels] -= 1
        p /= np.float32(len(part))
        back = (p @ w2) * (hidden > 0)
        w2 -= lr * p.T @ hidden
        b2 -= lr * p.sum(0)
        w1 -= lr * back.T @ inputs
        b1 -= lr * back.sum(0)
    return w1, b1, w2, b2


def test_learns_digits_as_well_as_float32(device, seed):
    """scikit-learn's digits, 64-32-10, 4 epochs: the accuracy of float32 from the same start and batches."""
    data = load_digits()
    train_x, test_x = (x.reshape(len(x), -1) for x in (data.train_x, data.test_x))
    model = network(64, 32, 10, seed=seed)
    trainer = trainer_of(model, device, lr=0.25, batch_size=32)
    start = model.state_dict()
    order = np.concatenate([np.random.default_rng([seed, epoch]).permutation(len(train_x)) for epoch in range(4)])
    for first in range(0, len(order), 32):
        part = order[first:first + 32]
        result = trainer.train_step(train_x[part], data.train_y[part])
    assert result.loss < 0.8
    evaluation = trainer.evaluate(test_x, data.test_y)
    w1, b1, w2, b2 = train_in_float32(start, order, (train_x / np.float32(255)).astype(np.float32),
                                      data.train_y.astype(int), np.float32(0.25), 32)
    logits = np.maximum(test_x / 255 @ w1.T + b1, 0) @ w2.T + b2
    expected = (logits.argmax(axis=1) == data.test_y).mean()
    assert expected > 0.85
    assert abs(evaluation.accuracy - expected) < 0.03
    assert evaluation.correct == (evaluation.predictions == data.test_y).sum() == round(
        evaluation.accuracy * len(test_x))


def test_step_result_is_about_the_batch_before_the_update(device, rng):
    model = network(20, 12, 5)
    trainer = trainer_of(model, device)
    x = rng.normal(size=(16, 20)).astype(np.float32)
    y = rng.integers(0, 5, 16)
    outputs = trainer.predict(x).astype(np.float64)
    result = trainer.train_step(x, y)
    log_sum = np.log(np.exp(outputs).sum(axis=1))
    assert result.loss == pytest.approx((log_sum - outputs[np.arange(16), y]).mean(), abs=1e-6)
    assert result.correct == (outputs.argmax(axis=1) == y).sum() and result.samples == 16
    assert result.useful_macs == 16 * (2 * (20 * 12 + 12 * 5) + 12 * 5)
    assert result.utilization == 0 and result.counters["instructions"] > 0


def test_evaluation_equals_predictions_in_batches_of_any_size(device, rng):
    model = network(20, 12, 5)
    trainer = trainer_of(model, device)
    x = rng.integers(0, 256, (37, 4, 5), dtype=np.uint8)
    y = rng.integers(0, 5, 37)
    outputs = [trainer.predict(x, batch_size=size) for size in (None, 8, 40, 64)]
    assert all(np.array_equal(outputs[0], other) for other in outputs)
    # Samples of one tile share exponents: with other neighbours, a result differs a little.
    for size in (1, 5):
        assert np.abs(outputs[0] - trainer.predict(x, batch_size=size)).max() < 0.02
    assert np.abs(outputs[0] - float32_outputs(model, x.reshape(37, 20) / np.float32(255))).max() < 0.02
    evaluation = trainer.evaluate(x, y)
    assert evaluation.samples == 37 and np.array_equal(evaluation.predictions, outputs[0].argmax(axis=1))
    assert evaluation.useful_macs == 37 * (20 * 12 + 12 * 5)
    shifted = outputs[0].astype(np.float64)
    assert evaluation.loss == pytest.approx((np.log(np.exp(shifted).sum(1)) - shifted[np.arange(37), y]).mean())


def test_training_goes_on_as_if_never_interrupted(device, rng):
    """Evaluation, another model on the same device, reading parameters: none changes the course of training."""
    x = rng.integers(0, 256, (48, 20), dtype=np.uint8)
    y = rng.integers(0, 5, 48)
    plain = network(20, 12, 5)
    trainer = trainer_of(plain, device)
    for _ in range(2):
        for start in (0, 16, 32, 40):
            trainer.train_step(x[start:start + 16], y[start:start + 16])
    disturbed = network(20, 12, 5)
    trainer = trainer_of(disturbed, device)
    other = Model(network(7, 3, seed=5), device)
    for _ in range(2):
        for start in (0, 16, 32, 40):
            trainer.train_step(x[start:start + 16], y[start:start + 16])
            trainer.evaluate(x, y)
            other.predict(np.zeros((2, 7), np.float32))
            disturbed.state_dict()
    assert all(np.array_equal(value, disturbed.state_dict()[name]) for name, value in plain.state_dict().items())


def test_state_goes_to_another_device_and_on(rng):
    x = rng.integers(0, 256, (16, 20), dtype=np.uint8)
    y = rng.integers(0, 5, 16)
    model = network(20, 12, 5)
    with Device("n4", "emulator", dram_bytes=8 << 20) as device:
        trainer = trainer_of(model, device)
        trainer.train_step(x, y)
    state = model.state_dict()          # fetched when the device was closed
    twin = network(20, 12, 5)
    with Device("n4", "emulator", dram_bytes=8 << 20) as device:
        trainer = trainer_of(twin, device)
        trainer.train_step(x, y)
        assert all(np.array_equal(state[name], value) for name, value in twin.state_dict().items())
        trainer.train_step(x, y)
    again = network(20, 12, 5, seed=9)
    again.load_state_dict(state)
    with Device("n4", "emulator", dram_bytes=8 << 20) as device:
        trainer_of(again, device).train_step(x, y)
    assert all(np.array_equal(again.state_dict()[name], value) for name, value in twin.state_dict().items())


def test_new_parameters_are_used_from_the_next_call_on(device, rng):
    model = network(20, 12, 5)
    trainer = trainer_of(model, device)
    x = rng.normal(size=(5, 20)).astype(np.float32)
    trainer.train_step(x, np.zeros(5, int))
    fresh = network(20, 12, 5, seed=3)
    expected = Model(fresh, device).predict(x)
    model.load_state_dict(fresh.state_dict())
    assert np.array_equal(trainer.predict(x), expected)
    trainer.train_step(x, np.zeros(5, int))
    assert not np.array_equal(model.state_dict()["0.weight"], fresh.state_dict()["0.weight"])
    assert np.abs(model.state_dict()["0.weight"] - fresh.state_dict()["0.weight"]).max() < 0.2


def test_weights_that_stay_on_chip_are_never_lost(device, rng):
    """Two trainers take turns on one device, one is looked at after each step; both train as if alone."""
    batches = [(rng.integers(0, 256, (16, 50), dtype=np.uint8), rng.integers(0, 10, 16)) for _ in range(4)]
    def alone(seed):
        model = network(50, 20, 10, seed=seed)
        trainer = trainer_of(model, device)
        for x, y in batches:
            trainer.train_step(x, y)
        return model.state_dict()
    expected = [alone(seed) for seed in (1, 2)]
    models = [network(50, 20, 10, seed=seed) for seed in (1, 2)]
    trainers = [trainer_of(model, device) for model in models]
    for x, y in batches:
        for trainer in trainers:
            trainer.train_step(x, y)
        before = models[1].state_dict()
        trainers[1].predict(x)
        assert all(np.array_equal(value, before[name]) for name, value in models[1].state_dict().items())
    for model, state in zip(models, expected, strict=True):
        assert all(np.array_equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_parameter_replaced_between_steps_is_not_overwritten(device, rng):
    """The others, newer on chip than in memory, are stored all the same."""
    x, y = rng.integers(0, 256, (16, 50), dtype=np.uint8), rng.integers(0, 10, 16)
    results = []
    for look in (True, False):
        model = network(50, 20, 10)
        trainer = trainer_of(model, device)
        trainer.train_step(x, y)
        if look:
            model.state_dict()
        model[0].weight.data = np.full((20, 50), 0.01, np.float32)
        trainer.train_step(x, y)
        results.append(model.state_dict())
    assert all(np.array_equal(results[0][name], results[1][name]) for name in results[0])


def test_learning_rate_may_change(device, rng):
    x, y = rng.normal(size=(8, 20)).astype(np.float32), rng.integers(0, 5, 8)
    model = network(20, 12, 5)
    trainer = trainer_of(model, device, lr=0.0)
    before = model.state_dict()
    trainer.train_step(x, y)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    trainer.optimizer.lr = 0.5
    trainer.train_step(x, y)
    half = before["2.bias"] - model.state_dict()["2.bias"]
    model.load_state_dict(before)
    trainer.optimizer.lr = 1.0
    trainer.train_step(x, y)
    assert np.allclose(before["2.bias"] - model.state_dict()["2.bias"], 2 * half, rtol=1e-5)


def test_softmax_model_gives_probabilities(device, rng):
    model = network(20, 12, 5)
    x = rng.normal(size=(30, 20)).astype(np.float32)
    logits = Model(model, device).predict(x).astype(np.float64)
    probabilities = Model(nn.Sequential(*model, nn.Softmax(dim=1)), device).predict(x)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(probabilities - expected).max() < 1e-6


def test_counters_add_up_over_batches(device, rng):
    model = Model(network(20, 5), device, batch_size=4)
    for _ in range(2):      # the second time, the weights are on chip
        model.predict(np.zeros((4, 20), np.uint8))
    once = model.counters["instructions"]
    model.predict(np.zeros((12, 20), np.uint8))
    assert model.counters["instructions"] == 3 * once and model.useful_macs == 12 * 100
    assert model.predict(np.zeros((0, 20), np.uint8)).shape == (0, 5)


X, Y = np.zeros((4, 20), np.float32), np.zeros(4, int)


@pytest.mark.parametrize("x, y, message", [
    (X.astype(np.float64), Y, r"x must be uint8 .* or float32, not float64; convert with x.astype\('float32'\)"),
    (X[:, :19], Y, r"x must have shape \(samples, 20\), .* not \(4, 19\)"),
    (X[0], Y, r"x must have shape .* not \(20,\); give one sample as x\[None\]"),
    (np.where(np.arange(20) == 3, np.nan, X).astype(np.float32), Y, "sample 0 has nan at feature 3; remove or replace"),
    (np.where(np.arange(20) == 7, -np.inf, X).astype(np.float32), Y, "sample 0 has -inf at feature 7"),
    (X, Y.astype(float), "y must be integer labels, not float64"),
    (X, Y[:3], r"y must have shape \(4,\), one label for each sample, not \(3,\)"),
    (X, np.array([0, 5, 0, 0]), "y must be from 0 to 4, but sample 1 has 5"),
    (X, np.array([0, 0, -1, 0]), "y must be from 0 to 4, but sample 2 has -1"),
    (np.zeros((17, 20), np.uint8), np.zeros(17, int), "a batch must have 1 to 16 samples, not 17"),
    (X[:0], Y[:0], "a batch must have 1 to 16 samples, not 0"),
])
def test_wrong_data_is_refused_and_the_trainer_works_on(device, x, y, message):
    model = network(20, 12, 5)
    trainer = trainer_of(model, device)
    before = model.state_dict()
    with pytest.raises(InputError, match=message):
        trainer.train_step(x, y)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    trainer.train_step(X, Y)
    assert not np.array_equal(before["0.bias"], model.state_dict()["0.bias"])


def test_divergence_is_a_fault_and_a_checkpoint_brings_the_model_back(device, rng):
    model = network(20, 12, 5)
    start = model.state_dict()
    trainer = trainer_of(model, device, lr=3e38)
    x, y = rng.normal(size=(16, 20)).astype(np.float32), rng.integers(0, 5, 16)
    with pytest.raises(NonFiniteFault, match="training, it diverged"):
        for _ in range(5):
            trainer.train_step(x, y)
    model.load_state_dict(start)
    trainer.optimizer.lr = 0.1
    assert np.isfinite(trainer.train_step(x, y).loss)
    assert np.isfinite(model.state_dict()["0.weight"]).all()


@pytest.mark.parametrize("make, error, message", [
    (lambda m, d: trainer_of(m, d, batch_size=0), InputError, "batch_size must be a positive integer, not 0"),
    (lambda m, d: trainer_of(m, d, batch_size=2.5), InputError, "batch_size must be a positive integer, not 2.5"),
    (lambda m, d: Model(m, d, batch_size=-1), InputError, "batch_size must be a positive integer, not -1"),
    (lambda m, d: trainer_of(nn.Sequential(*m, nn.Softmax()), d), NetworkError, "leave nn.Softmax out"),
    (lambda m, d: trainer_of(nn.Sequential(*m, nn.ReLU()), d), NetworkError, "leave out the ReLU behind it"),
    (lambda m, d: trainer_of(nn.Linear(3, 4), d), NetworkError, "must be a macaw.nn.Sequential, not Linear"),
    (lambda m, d: Trainer(m, nn.ReLU(), optim.SGD(m.parameters()), d), TypeError, "loss must be nn.CrossEntropyLoss"),
    (lambda m, d: Trainer(m, nn.CrossEntropyLoss(), 0.1, d), TypeError, "optimizer must be optim.SGD, not float"),
    (lambda m, d: Trainer(m, nn.CrossEntropyLoss(), optim.SGD(m[0].parameters()), d), InputError,
     "make it with model.parameters()"),
])
def test_wrong_arguments(device, make, error, message):
    with pytest.raises(error, match=message):
        make(network(20, 12, 5), device)


def test_memory_is_freed_with_its_user(device):
    model = network(20, 12, 5)
    empty = device.window
    for _ in range(3):
        Model(model, device).predict(np.zeros((4, 20), np.uint8))
    trainer = trainer_of(model, device)
    trainer.train_step(X, Y)
    expected = [parameter.data.copy() for parameter in model.parameters()]
    trainer.train_step(X, Y)
    del trainer
    gc.collect()
    assert device.window == empty
    changed = [parameter.data for parameter in model.parameters()]
    assert not any(np.array_equal(a, b) for a, b in zip(expected[1:2], changed[1:2], strict=True))


def test_mnist_reaches_the_accuracy_of_float32(mnist_folder, dataset):
    """A first taste of MNIST: 60 batches of 64, on n16."""
    if mnist_folder is None:
        pytest.skip("no MNIST: set MACAW_DATA to a folder with its four idx files")
    model = network(784, 32, 10, seed=1)
    start = model.state_dict()
    order = np.random.default_rng(0).permutation(len(dataset.train_x))[:60 * 64]
    flat = dataset.train_x.reshape(len(dataset.train_x), -1)
    test_x, test_y = dataset.test_x[:2000].reshape(2000, -1), dataset.test_y[:2000]
    with Device("n16", "emulator") as device:
        trainer = trainer_of(model, device, lr=0.1, batch_size=64)
        for first in range(0, len(order), 64):
            trainer.train_step(flat[order[first:first + 64]], dataset.train_y[order[first:first + 64]])
        accuracy = trainer.evaluate(test_x, test_y).accuracy
    w1, b1, w2, b2 = train_in_float32(start, np.arange(len(order)), (flat[order] / np.float32(255)).astype(np.float32),
                                      dataset.train_y[order].astype(int), np.float32(0.1), 64)
    expected = ((np.maximum(test_x / 255 @ w1.T + b1, 0) @ w2.T + b2).argmax(axis=1) == test_y).mean()
    assert expected > 0.7
    assert abs(accuracy - expected) < 0.02
