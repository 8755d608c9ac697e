"""The whole accelerator, with the unmodified driver and the weights of the trained reference network.

The driver talks to the device under test through `macaw_sim.cocotb_backend`, so that bus master and
memory are those of `cocotbext-axi`. It then does the same with the emulator: everything in memory must be
equal, bit for bit.
"""

import cocotb
import numpy as np
from cocotb.task import bridge
from macaw import Device, Model, Trainer, nn, optim
from macaw.weights import load_weights

from . import generator, parameters

__all__ = ["middle", "network", "same"]

_DRAM_BYTES = 4 << 20


def network(path, widths):
    """Linear and ReLU modules of ``widths``, with the weights in the safetensors file ``path``.

    Narrower than the file, it is a part of the trained network, around the middle of the images.
    """
    modules = []
    for inputs, outputs in zip(widths, widths[1:], strict=False):
        modules += [nn.Linear(inputs, outputs), nn.ReLU()]
    model = nn.Sequential(*modules[:-1])
    trained = load_weights(path)
    trained["0.weight"] = middle(trained["0.weight"], widths[0])
    model.load_state_dict({name: np.ascontiguousarray(trained[name][tuple(map(slice, value.shape))])
                           for name, value in model.state_dict().items()})
    return model


def middle(array, width):
    """The ``width`` columns in the middle: the first pixels of an image are never anything but black."""
    start = (array.shape[1] - width) // 2
    return np.ascontiguousarray(array[:, start:start + width])


def same(work, config, **options):
    """Do ``work(device)`` on the device under test and on the emulator; compare results and memory."""
    results, memories = [], []
    for backend in ("cocotb", "emulator"):
        with Device(config, backend=backend, dram_bytes=_DRAM_BYTES, **options) as device:
            results.append(work(device))
            memories.append(device.dram.copy())
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(*memories)
    return results[0]


@cocotb.test()
async def infers_with_trained_weights(dut):
    """Logits of real images (or random ones), bit-equal to the emulator's, and mostly right."""
    p = parameters()
    images, labels = np.load(p["data"])["x"][:p["images"]], np.load(p["data"])["y"][:p["images"]]
    images = middle(images, p["widths"][0])

    def work(device):
        return (Model(network(p["weights"], p["widths"]), device, batch_size=p["images"]).predict(images),)

    seed = int(generator().integers(1 << 30))
    (logits,) = await bridge(same)(work, p["config"], stall=p["stall"], seed=seed)
    if p["widths"] == [784, 128, 10] and p["mnist"]:
        assert (logits.argmax(axis=1) == labels).mean() >= 0.8


@cocotb.test()
async def trains_from_trained_weights(dut):
    """Training steps: losses, all weights and all of memory bit-equal to the emulator's."""
    p = parameters()
    images, labels = middle(np.load(p["data"])["x"], p["widths"][0]), np.load(p["data"])["y"] % p["widths"][-1]
    batch = p["batch"]

    def work(device):
        model = network(p["weights"], p["widths"])
        trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1), device, batch)
        losses = [trainer.train_step(images[i:i + batch], labels[i:i + batch]).loss
                  for i in range(0, p["steps"] * batch, batch)]
        return losses, *model.state_dict().values()

    before = network(p["weights"], p["widths"]).state_dict()
    seed = int(generator(1).integers(1 << 30))
    _, *after = await bridge(same)(work, p["config"], stall=p["stall"], seed=seed)
    assert all((old != new).any() for old, new in zip(before.values(), after, strict=True))
