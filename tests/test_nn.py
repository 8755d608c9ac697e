"""Networks, optimizers and weight files, without a device."""

import numpy as np
import pytest
from macaw import WeightsError, load_weights, manual_seed, nn, optim, save_weights
from macaw.plan import Boundary, NetworkError, blocked, describe, unblocked
from macaw_hw.config import named_config
from safetensors.numpy import load_file, save_file


@pytest.fixture
def model():
    manual_seed(7)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3, bias=False))


def test_names_shapes_and_order_are_those_of_pytorch(model):
    assert [(name, value.shape, value.dtype) for name, value in model.state_dict().items()] == [
        ("0.weight", (5, 6), np.float32), ("0.bias", (5,), np.float32), ("2.weight", (3, 5), np.float32)]
    assert repr(model) == ("Sequential(\n  (0): Linear(in_features=6, out_features=5, bias=True)\n  (1): ReLU()\n"
                           "  (2): Linear(in_features=5, out_features=3, bias=False)\n)")


def test_initial_values_depend_on_the_seed_alone_and_fill_their_range():
    manual_seed(3)
    one = nn.Linear(100, 400)
    manual_seed(3)
    again = nn.Linear(100, 400)
    assert np.array_equal(one.weight.data, again.weight.data) and np.array_equal(one.bias.data, again.bias.data)
    other = nn.Linear(100, 400)
    assert not np.array_equal(one.weight.data, other.weight.data)
    for values in (one.weight.data, one.bias.data):
        assert 0.09 < values.max() <= 0.1 and -0.1 <= values.min() < -0.09
    assert abs(one.weight.data.std() - 0.1 / np.sqrt(3)) < 1e-3
    by_generator = [nn.Linear(4, 4, generator=np.random.default_rng(1)).weight.data for _ in range(2)]
    assert np.array_equal(*by_generator)


def test_state_dict_is_a_copy_and_loads_back(model):
    state = model.state_dict()
    state["0.bias"][:] = 5
    assert not np.array_equal(model.state_dict()["0.bias"], state["0.bias"])
    version = model[0].bias.version
    model.load_state_dict(state)
    assert np.array_equal(model[0].bias.data, np.full(5, 5, np.float32)) and model[0].bias.version == version + 1


@pytest.mark.parametrize("change, error, message", [
    (lambda s: s.pop("0.bias"), KeyError, "missing 0.bias"),
    (lambda s: s.update(extra=s["0.bias"]), KeyError, "unexpected extra"),
    (lambda s: s.update({"0.weight": s["0.weight"].T}), ValueError, r"0.weight must have shape \(5, 6\), not \(6, 5\)"),
    (lambda s: s.update({"2.weight": s["2.weight"].astype("f8")}), TypeError, "2.weight must be float32, not float64"),
    (lambda s: s["2.weight"].__setitem__((1, 2), np.nan), ValueError, r"2.weight must be finite; .* \(1, 2\) is nan"),
])
def test_wrong_state_changes_nothing(model, change, error, message):
    before, state = model.state_dict(), model.state_dict()
    state["0.bias"] += 1
    change(state)
    with pytest.raises(error, match=message):
        model.load_state_dict(state)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())


def test_values_changed_on_a_device_are_fetched_once_when_looked_at(model):
    fetched = []
    bias = model[0].bias
    bias.changed_on_device(lambda: fetched.append(1) or np.arange(5.0))
    assert not fetched and bias.version == 1
    assert bias.data.tolist() == [0, 1, 2, 3, 4] and model.state_dict()["0.bias"].tolist() == [0, 1, 2, 3, 4]
    assert fetched == [1]
    bias.changed_on_device(lambda: 1 / 0)
    bias.data = np.zeros(5, np.float32)
    assert bias.data.tolist() == [0] * 5


@pytest.mark.parametrize("value, error, message", [
    (np.zeros(4, np.float32), ValueError, r"shape \(5,\), not \(4,\)"),
    (np.zeros(5), TypeError, "float32, not float64"),
    (np.array([0, 0, np.inf, 0, 0], np.float32), ValueError, r"at index \(2,\) is inf"),
])
def test_parameters_refuse_wrong_values(model, value, error, message):
    with pytest.raises(error, match=message):
        model[0].bias.data = value


@pytest.mark.parametrize("make, message", [
    (lambda: nn.Linear(0, 3), "in_features must be a positive integer, not 0"),
    (lambda: nn.Linear(3, True), "out_features must be a positive integer, not True"),
    (lambda: nn.Softmax(dim=0), "dim must be 1 or -1"),
    (lambda: optim.SGD([nn.Parameter([1.0])], lr=-1), "lr must be a finite number, 0 or more, not -1"),
    (lambda: optim.SGD([nn.Parameter([1.0])], lr=float("nan")), "lr must be a finite number"),
    (lambda: optim.SGD([]), "at least one parameter"),
])
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="module 0 must be a macaw.nn.Module, not int"):
        nn.Sequential(1)


def test_optimizer_state_goes_in_and_out(model):
    optimizer = optim.SGD(model.parameters(), lr=0.25)
    other = optim.SGD(model.parameters(), lr=1)
    other.load_state_dict(optimizer.state_dict())
    assert other.lr == 0.25


@pytest.mark.parametrize("modules, message", [
    ([nn.ReLU()], "must begin with Linear"),
    ([], "at least one Linear"),
    ([nn.Linear(3, 4), nn.Linear(5, 2)], "module 1 takes 5 features, but 4 come out of the layer before"),
    ([nn.Linear(3, 4), nn.Softmax(), nn.ReLU()], "Softmax must be the last module, but module 2 follows"),
    ([nn.Linear(3, 4), nn.Sequential()], "module 1 must be Linear, ReLU or Softmax"),
])
def test_networks_that_cannot_run(modules, message):
    with pytest.raises(NetworkError, match=message):
        describe(nn.Sequential(*modules))


def test_blocked_layout_goes_there_and_back(rng):
    matrix = rng.normal(size=(5, 10)).astype(np.float32)
    blocks = blocked(matrix, 4)
    assert blocks.shape == (3, 5, 4)
    assert np.array_equal(blocks[1, 2], matrix[2, 4:8]) and not blocks[2, :, 2:].any()
    assert np.array_equal(unblocked(blocks, 10), matrix)


@pytest.mark.parametrize("features", [1, 16, 50, 160, 784, 3000])
def test_groups_cover_every_tile_once(features):
    config = named_config("n16")
    for first in (False, True):
        boundary = Boundary.of(features, config, first=first)
        assert [tile for group in boundary.groups for tile in group] == list(range(-(-features // 16)))
        assert max(map(len, boundary.groups)) <= 10
        assert sum(boundary.rows(group, 16) for group in boundary.groups) == features


def test_weights_file_round_trip(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, model, {"origin": "test"})
    assert sorted(load_file(path)) == ["0.bias", "0.weight", "2.weight"]
    manual_seed(8)
    other = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3, bias=False))
    load_weights(path, other)
    assert all(np.array_equal(other.state_dict()[name], value) for name, value in model.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_bad_weight_files_say_why(model, tmp_path):
    path = tmp_path / "weights.safetensors"
    with pytest.raises(WeightsError, match="no such weights file"):
        load_weights(path)
    save_weights(path, model)
    content = path.read_bytes()
    before = model.state_dict()
    for length in (0, 4, 60, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsError, match="truncated, or not a safetensors file"):
            load_weights(path, model)
    save_file({**model.state_dict(), "0.weight": np.zeros((2, 2), np.float32)}, path)
    with pytest.raises(WeightsError, match=r"0.weight must have shape \(5, 6\), not \(2, 2\)"):
        load_weights(path, model)
    save_file({"0.weight": np.zeros((5, 6), np.float32)}, path)
    with pytest.raises(WeightsError, match="missing 0.bias, 2.weight"):
        load_weights(path, model)
    assert all(np.array_equal(before[name], value) for name, value in model.state_dict().items())
    with pytest.raises(WeightsError, match="cannot be read|truncated"):
        load_weights(tmp_path)
