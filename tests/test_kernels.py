"""Kernels on the emulator, against a reference in plain NumPy float32 that knows no programs.

The emulator also checks that every program is synchronized.
"""

import numpy as np
import pytest
import training_reference as reference
from macaw import Device, nn
from macaw.kernels import Workspace, inference_program, quantize_program, training_program
from macaw.kernels.context import Block, Context, interleave
from macaw.kernels.math import exp, lane_reduce, log, reciprocal
from macaw.plan import NetworkError, Plan
from macaw.session import Session
from macaw_hw.config import Config, named_config
from macaw_hw.isa import DataFormat, VectorOp

LR = np.float32(0.25)


def network(sizes, rng, bias=True, relu=True):
    modules = []
    for inputs, outputs in zip(sizes, sizes[1:], strict=False):
        if modules and relu:
            modules.append(nn.ReLU())
        modules.append(nn.Linear(inputs, outputs, bias=bias, generator=rng))
    return nn.Sequential(*modules)


def reference_of(model, n):
    linear = [module for module in model if isinstance(module, nn.Linear)]
    return reference.Reference([m.weight.data.T for m in linear], [m.bias.data for m in linear], n)


def batch(rng, samples, features, classes, pixels=True):
    x = (rng.integers(0, 256, (samples, features), dtype=np.uint8) if pixels
         else rng.normal(size=(samples, features)).astype(np.float32))
    return x, rng.integers(0, classes, samples)


def assert_steps_equal_reference(config, sizes, samples, rng, pixels=True, steps=2):
    with Device(config, "emulator", dram_bytes=16 << 20) as device:
        model = network(sizes, rng)
        expected = reference_of(model, device.config.size)
        session = Session(model, device, samples, training=True)
        for _ in range(steps):
            x, y = batch(rng, samples, sizes[0], sizes[-1], pixels)
            outputs, losses, _ = session.train(x, y, float(LR))
            expected_outputs, expected_losses = expected.step(x, y, LR)
            assert np.array_equal(outputs, expected_outputs)
            assert np.array_equal(losses, expected_losses)
            for module, weight, bias in zip([m for m in model if isinstance(m, nn.Linear)], expected.weights,
                                            expected.biases, strict=True):
                assert np.array_equal(module.weight.data, weight.T)
                assert np.array_equal(module.bias.data, bias)


@pytest.mark.parametrize("config", ["n4", "n8", "n16"])
@pytest.mark.parametrize("samples", [1, 5, 64])
def test_training_steps_equal_numpy_to_the_last_bit(config, samples, rng):
    assert_steps_equal_reference(config, (50, 33, 7), samples, rng)


@pytest.mark.parametrize("config, sizes, samples, pixels", [
    ("n4", (9, 30), 11, True),                  # one layer, wide outputs
    ("n4", (30, 20, 40, 12), 13, False),        # float32 inputs, several groups
    ("n16", (16, 16, 16), 32, True),            # no padding at all
    ("n8", (3, 1, 2), 3, False),                # almost only padding
    ("n32", (70, 40, 33), 40, True),
    ("n32", (100, 40, 10), 250, True),          # blocks of three tiles
    ("n16", (7, 100, 150, 11), 100, False),     # several blocks, groups and layers at a time
    ("n4", (64, 100, 10), 64, True),            # weights fit on chip, but not beside all gradients
    ("n4", (16, 150, 20, 150, 3), 64, True),    # more gradients of biases at a time than rows for them
])
def test_other_shapes_equal_numpy_to_the_last_bit(config, sizes, samples, pixels, rng):
    assert_steps_equal_reference(config, sizes, samples, rng, pixels)


TIGHT = Config(size=4, vector_bank_rows=64, tile_bank_tiles=16)
TWO_BANKS = Config(size=4, vector_banks=2, vector_bank_rows=256, tile_bank_tiles=64)
MANY_BANKS = Config(size=16, vector_banks=8, vector_bank_rows=128, tile_banks=4, tile_bank_tiles=64, bus_bytes=32)


@pytest.mark.parametrize("config, sizes, samples", [
    (TWO_BANKS, (64, 150, 20, 7), 48), (MANY_BANKS, (150, 100, 11), 65), (TIGHT, (20, 150, 9), 65)])
def test_memories_of_other_shapes(config, sizes, samples, rng):
    assert_steps_equal_reference(config, sizes, samples, rng, steps=1)


def test_layers_larger_than_the_memories_are_tiled(rng):
    """780 weight tiles and 150 input tiles against 32 tiles; 40 samples by 60 hidden features against 256 rows."""
    assert_steps_equal_reference(TIGHT, (100, 60, 70, 5), 40, rng, steps=1)


def test_tiling_does_not_change_results(rng):
    """The same step on a configuration with less memory, and hence other blocks and groups, gives the same bits."""
    model = network((100, 60, 5), rng)
    x, y = batch(rng, 24, 100, 5)
    states, lengths = [], []
    for config in (TIGHT, named_config("n4")):
        copy = network((100, 60, 5), rng)
        copy.load_state_dict(model.state_dict())
        with Device(config, "emulator", dram_bytes=8 << 20) as device:
            Session(copy, device, 24, training=True).train(x, y, float(LR))
        states.append(copy.state_dict())
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[0])
    assert not np.array_equal(states[0]["0.weight"], model.state_dict()["0.weight"]), lengths


def test_what_a_step_leaves_on_chip_is_the_same_after_every_step(rng):
    """Weights in half of the rows that do not hold sums; so all steps are one program."""
    with Device("n16", "emulator", dram_bytes=8 << 20) as device:
        session = Session(network((784, 128, 10), rng), device, 64, training=True)
        left, states = (), []
        for kept in (False, True, True):
            program, left = training_program(session.plan, session.workspace, 64, True, float(LR), kept, left)
            states.append((left, program.to_bytes()))
    assert states[1] == states[2] and states[0][0] == states[1][0]
    assert sum(part.rows * part.count for part in left) == device.config.vector_rows // 4


def test_gradients_are_those_of_float32(rng):
    """Away from the kinks of ReLU (none here) and up to the 8 bits of the mantissas."""
    sizes, samples = (40, 24, 10), 32
    model = network(sizes, rng, relu=False)
    before = model.state_dict()
    x, y = batch(rng, samples, 40, 10)
    with Device("n8", "emulator", dram_bytes=8 << 20) as device:
        Session(model, device, samples, training=True).train(x, y, 1.0)
    w1, b1, w2, b2 = (value.astype(np.float64) for value in before.values())
    inputs = x / 255
    hidden = inputs @ w1.T + b1
    logits = hidden @ w2.T + b2
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    dy = p / p.sum(axis=1, keepdims=True)
    dy[np.arange(samples), y] -= 1
    dy /= samples
    back = dy @ w2
    for name, gradient in zip(before, (back.T @ inputs, back.sum(0), dy.T @ hidden, dy.sum(0)), strict=True):
        found = before[name] - model.state_dict()[name]
        assert np.abs(found - gradient).max() < 0.03 * np.abs(gradient).max(), name


@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize("sizes, samples, bias", [
    ((50, 33, 7), 21, True), ((12, 30), 5, False), ((20, 40, 90), 70, True)])
def test_inference(sizes, samples, bias, softmax, rng):
    if softmax and sizes[-1] == 90:
        sizes = (*sizes[:-1], 40)
    model = network(sizes, rng, bias=bias)
    x, _ = batch(rng, samples, sizes[0], 2, pixels=bias)
    for module in model:
        if isinstance(module, nn.Linear) and not bias:
            module.bias = nn.Parameter(np.zeros(module.out_features))
    expected = reference_of(model, 4)
    logits = expected.forward(x)[0]
    for module in model:
        if isinstance(module, nn.Linear) and not bias:
            module.bias = None
    if softmax:
        e = reference.exp(logits - reference.butterfly(np.maximum, logits, 4))
        logits = reference.flush(e * reference.reciprocal(reference.butterfly(np.add, e, 4)))
        model = nn.Sequential(*model, nn.Softmax())
    with Device("n4", "emulator", dram_bytes=8 << 20) as device:
        outputs, _ = Session(model, device, samples).infer(x)
    assert np.array_equal(outputs, logits[:, :sizes[-1]])


def test_relu_at_the_end(rng):
    model = nn.Sequential(nn.Linear(10, 9, generator=rng), nn.ReLU())
    x, _ = batch(rng, 6, 10, 2)
    expected = np.maximum(reference_of(model, 4).outputs(x), 0)
    with Device("n4", "emulator", dram_bytes=8 << 20) as device:
        outputs, _ = Session(model, device, 6).infer(x)
    assert np.array_equal(outputs, expected) and (outputs == 0).any() and (outputs > 0).any()


def test_softmax_limit_is_named(rng):
    with Device("n4", "emulator", dram_bytes=8 << 20) as device:
        plan = Plan(network((8, 2000), rng), device)
        with pytest.raises(NetworkError, match=r"a softmax on this configuration has at most \d+ classes, not 2000"):
            training_program(plan, Workspace(plan, 4, True), 4, True, 0.1)


def run_on_rows(x, emit, panels=1):
    """Run ``emit(context, block of x, new_block)``, a thread whose value is the block of results; gives its rows."""
    with Device("n4", "emulator", dram_bytes=1 << 20) as device:
        k = Context(device.config)
        rows = len(x)
        source, target = device.allocate("x", x.nbytes), device.allocate("y", x.nbytes)
        source.view("<f4", (panels, rows, 4))[:] = x.reshape(rows, panels, 4).transpose(1, 0, 2)

        def new(panels=panels):
            return k.block(rows, panels, rows)
        block = new()
        k.program.load(format=DataFormat.FLOAT32, address=source.address, local=block.start, run=x.size)
        thread = emit(k, block, new)
        while True:
            try:
                next(thread)
            except StopIteration as stop:
                result = stop.value
                break
        k.program.store(format=DataFormat.FLOAT32, address=target.address, local=result.start,
                        run=rows * result.panels * 4)
        device.run(k.program)
        return target.view("<f4", (result.panels, rows, 4)).transpose(1, 0, 2).reshape(rows, -1).copy()


def check_function(x, emit, expected, exact, tolerance, absolute=1e-37):
    """Bits as ``expected`` in NumPy float32; and relative to float64 ``exact`` within ``tolerance``."""
    found = run_on_rows(x, emit)
    assert np.array_equal(found, expected(x))
    true = exact(x.astype(np.float64))
    assert np.all(np.abs(found - true) <= tolerance * np.abs(true) + absolute)


def test_exp(rng):
    def emit(k, x, new):
        d = new()
        yield from exp(k, d, x, new(), new())
        return d
    x = np.concatenate([rng.uniform(-87, 1, 180), [0, -1e30, -104, -87.3, 88, 1e-8, -1e-8, -90, np.log(2) / 2, 60]])
    check_function(np.append(x, [0, 0]).astype(np.float32).reshape(-1, 4), emit, reference.exp, np.exp, 3e-7)


def test_log(rng):
    def emit(k, x, new):
        d = new()
        yield from log(k, d, x, new(), new())
        return d
    x = np.exp(rng.uniform(-80, 80, 100)).astype(np.float32).reshape(-1, 4)
    check_function(x, emit, reference.log, np.log, 2e-7, absolute=2e-7)
    assert np.abs(run_on_rows(np.ones((1, 4), np.float32), emit)).max() < 2e-7


def test_reciprocal(rng):
    def emit(k, x, new):
        d = new()
        yield from reciprocal(k, d, x, new())
        return d
    x = (rng.choice([-1, 1], 200) * np.exp(rng.uniform(-60, 60, 200))).astype(np.float32).reshape(-1, 4)
    check_function(x, emit, reference.reciprocal, lambda x: 1 / x, 2.4e-7)


def test_lane_reduce(rng):
    x = rng.normal(size=(7, 12)).astype(np.float32)
    for op, function in ((VectorOp.ADD, np.add), (VectorOp.MAX, np.maximum)):
        def emit(k, block, new, op=op):
            d = new(1)
            yield from lane_reduce(k, op, d, block)
            return d
        found = run_on_rows(x, emit, panels=3)
        assert np.array_equal(found, np.repeat(reference.butterfly(function, x, 4), 4, axis=1))


def test_blocks_of_unequal_shape_are_refused():
    k = Context(named_config("n4"))
    with pytest.raises(AssertionError, match="unequal shape"):
        k.op(VectorOp.ADD, Block(0, 4), Block(8, 4), Block(16, 5))


def test_interleave_advances_the_thread_that_is_behind():
    order = []

    def thread(name, times):
        for time in times:
            order.append(name)
            yield time
    interleave(thread("a", [10, 20, 30]), thread("b", [25, 26]), thread("c", []))
    assert "".join(order) == "abaab"


def test_interleave_fills_up_with_a_spare_thread_and_leaves_it_where_it_is():
    order = []
    def thread(name, times):
        for time in times:
            order.append(name)
            yield time
    spare = thread("s", [5, 15, 25, 35, 45, 55])
    interleave(thread("a", [10, 20, 30, 40]), thread("b", [12]), spare=spare)
    assert "".join(order) == "abasssasas"
    assert next(spare) == 55


def test_programs_are_the_same_every_time(rng):
    with Device("n8", "emulator", dram_bytes=8 << 20) as device:
        plan = Plan(network((50, 33, 7), rng), device)
        workspace = Workspace(plan, 20, True)
        for build in (lambda: training_program(plan, workspace, 20, True, 0.1)[0],
                      lambda: inference_program(plan, workspace, 20, True), lambda: quantize_program(plan)):
            assert build().to_bytes() == build().to_bytes()


def test_array_is_busy_most_of_an_mnist_step(rng):
    """By the builder's own estimate, which the RTL may exceed by some percent."""
    with Device("n16", "emulator", dram_bytes=8 << 20) as device:
        plan = Plan(network((784, 128, 10), rng), device)
        workspace = Workspace(plan, 64, True)
        for program, samples, training in ((training_program(plan, workspace, 64, True, 0.1)[0], 64, True),
                                           (inference_program(plan, workspace, 64, True), 64, False)):
            useful = plan.macs(samples, training) / 256
            assert program.estimate < useful / 0.8
    assert plan.macs(64, training=True) == 51136 * 256
    assert plan.macs(64) == 25408 * 256
