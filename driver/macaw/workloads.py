"""Work whose cycles are measured: networks and batches, with the cycles that no schedule can beat."""

from dataclasses import dataclass

import numpy as np
from macaw_hw.config import CONFIGS, Config

from . import nn, optim
from .model import Model
from .trainer import Trainer

__all__ = ["HARDWARE", "WORKLOADS", "Limit", "Workload"]

HARDWARE = {**CONFIGS, "n16-wide": Config(size=16, bus_bytes=32, vector_banks=8, vector_bank_rows=256)}
"""The supported configurations, and `n16` with a bus of 256 bits. Its vector memory is as large, in twice as many
banks: each direction of the bus takes a bank in every second cycle, not in every fourth."""

_WARM_UP = 2    # the first run quantizes, the second is the first that finds on chip what the one before left


@dataclass(frozen=True)
class Limit:
    """Cycles that a workload needs at least, and the part that needs them: ``array`` or ``bus``."""
    cycles: float
    part: str


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Training steps or inference of a network of Linear layers with ReLU between.

    Parameters
    ----------
    layers : tuple of int
        Features, from the input to the output.
    batch : int
    training : bool
        A step of SGD with cross entropy, or inference.
    pixels : bool
        The input is uint8, not float32.
    """
    layers: tuple
    batch: int
    training: bool = True
    pixels: bool = True

    @property
    def title(self):
        what = "training step" if self.training else "inference"
        return f"{what}, {'-'.join(map(str, self.layers))}, batch {self.batch}"

    @property
    def macs(self):
        """Useful multiply-accumulates: without padding and without the first layer's input gradient."""
        products = self._products(lambda a, b: a * b)
        return self.batch * (2 * sum(products) + sum(products[1:]) if self.training else sum(products))

    def limit(self, config):
        """The `Limit` on the hardware ``config``: the array's MACs, or a row of weights per cycle in small batches, or
        the beats of the bus in one direction. On the bus travel the batch, in training the float32 weights once each
        way, and the bfp8 weights where they are more than the tile memory holds."""
        n = config.size
        tiles = sum(self._products(lambda a, b: -(-a // n) * -(-b // n)))
        array = max(self.macs / config.peak_macs, 0 if self.training else tiles * n)
        weights = 4 * sum(self._products(lambda a, b: a * b)) if self.training else 0
        tile_bytes = tiles * config.tile_bytes if tiles > config.tiles else 0
        read = weights + tile_bytes + self.batch * self.layers[0] * (1 if self.pixels else 4)
        written = weights + tile_bytes * self.training + 4 * self.batch * self.layers[-1]
        bus = max(read, written) / config.bus_bytes
        return Limit(bus, "bus") if bus > array else Limit(array, "array")

    @property
    def memory(self):
        """Bytes of device memory that are enough, a multiple of 4096."""
        weights = sum(self._products(lambda a, b: (a + 32) * (b + 32)))
        return (16 << 20) + 4096 * ((12 * weights + 32 * self.batch * sum(self.layers)) // 4096)

    def prepare(self, device, seed=1):
        """A function that does the work once, in the steady state, and returns the device's counters."""
        nn.manual_seed(seed)
        rng = np.random.default_rng(seed)
        modules = [module for a, b in zip(self.layers, self.layers[1:], strict=False)
                   for module in (nn.Linear(a, b), nn.ReLU())]
        network = nn.Sequential(*modules[:-1])
        x = rng.integers(0, 256, (self.batch, self.layers[0]), dtype=np.uint8)
        if not self.pixels:
            x = (x / np.float32(255)).astype(np.float32)
        if not self.training:
            model = Model(network, device, self.batch)
            def infer():
                model.predict(x)
                return model.counters
            for _ in range(_WARM_UP):
                infer()
            return infer
        y = rng.integers(0, self.layers[-1], self.batch)
        trainer = Trainer(network, nn.CrossEntropyLoss(), optim.SGD(network.parameters(), lr=0.01), device,
                          batch_size=self.batch)
        for _ in range(_WARM_UP):
            trainer.train_step(x, y)
        return lambda: trainer.train_step(x, y).counters

    def _products(self, f):
        return [f(a, b) for a, b in zip(self.layers, self.layers[1:], strict=False)]


_MNIST = (784, 128, 10)

WORKLOADS = {
    "train-64": Workload(layers=_MNIST, batch=64),
    "train-256": Workload(layers=_MNIST, batch=256),
    "train-32": Workload(layers=_MNIST, batch=32),
    "infer-64": Workload(layers=_MNIST, batch=64, training=False),
    "infer-1": Workload(layers=_MNIST, batch=1, training=False),
    "dense-1024": Workload(layers=(1024, 1024), batch=1024, training=False, pixels=False),
    "train-1024": Workload(layers=(784, 1024, 1024, 10), batch=64),
}
"""Workloads by name."""
