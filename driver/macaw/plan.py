"""Where everything of a network lives in the memory of a device, and in which panels it travels.

A network is a row of layers ``y = relu(x W + b)`` (ReLU or not). Between two layers lies a *boundary*: features in
tiles of N, gathered into groups of up to ten tiles, or 128 features where that is more. Vector operands are float32 in
blocks of N columns, ``[ceil(C / N)][R][N]``, padding lanes zero. Matrix operands are bfp8 tiles, panel after panel,
where a panel is one group of features by one block of the batch, or by one group of outputs.
"""

import math
from dataclasses import dataclass

import numpy as np

from . import nn
from .errors import MacawError
from .memory import Panel

__all__ = ["Boundary", "Layer", "NetworkError", "Plan", "blocked", "describe", "unblocked"]

_GROUP = 10
_GROUP_FEATURES = 128
_FIRST_GROUPS = (2, 4)


class NetworkError(MacawError, ValueError):
    """A network that the device cannot run."""


def blocked(matrix, n):
    """(R, C) as [ceil(C / n)][R][n], padded with zeros."""
    rows, columns = matrix.shape
    padded = np.zeros((rows, -(-columns // n) * n), dtype=matrix.dtype)
    padded[:, :columns] = matrix
    return padded.reshape(rows, -1, n).transpose(1, 0, 2)


def unblocked(array, columns):
    """The inverse of :func:`blocked`."""
    return array.transpose(1, 0, 2).reshape(array.shape[1], -1)[:, :columns]


@dataclass(frozen=True)
class Boundary:
    """Features between two layers.

    Attributes
    ----------
    features, tiles : int
    groups : tuple of range
        Tiles of each group.
    """
    features: int
    tiles: int
    groups: tuple

    @classmethod
    def of(cls, features, config, first=False, most=_GROUP):
        """Groups of nearly equal size; on the ``first`` boundary they start small, so that the array can."""
        tiles = -(-features // config.size)
        sizes, rest = [], tiles
        for size in _FIRST_GROUPS if first else ():
            if rest > most and size < most:
                sizes.append(size)
                rest -= size
        parts = -(-rest // most)
        sizes += [rest // parts + (i < rest % parts) for i in range(parts)]
        edges = np.cumsum([0, *sizes]).tolist()
        return cls(features, tiles, tuple(range(a, b) for a, b in zip(edges, edges[1:], strict=False)))

    def rows(self, group, n):
        """Features of a group."""
        return min(group.stop * n, self.features) - group.start * n


@dataclass(frozen=True, eq=False)
class Layer:
    """One linear layer with its activation, and the homes of its parameters.

    Attributes
    ----------
    index : int
    x, y : Boundary
    relu : bool
    weight, bias : macaw.nn.Parameter
        ``bias`` may be None.
    master, quantized, offsets : Tensor
        float32 weights [y.tiles][x.features][N]; bfp8 tiles; float32 bias, padded.
    """
    index: int
    x: Boundary
    y: Boundary
    relu: bool
    weight: nn.Parameter
    bias: nn.Parameter | None
    master: object = None
    quantized: object = None
    offsets: object = None


def describe(network):
    """The (Linear, relu) pairs of a network, and whether it ends with a Softmax. ``NetworkError`` for what
    the device cannot run."""
    if not isinstance(network, nn.Sequential):
        raise NetworkError(f"the network must be a macaw.nn.Sequential, not {type(network).__name__}")
    layers, softmax = [], False
    for index, module in enumerate(network):
        if softmax:
            raise NetworkError(f"Softmax must be the last module, but module {index} follows: {module!r}")
        if isinstance(module, nn.Linear):
            if layers and layers[-1][0].out_features != module.in_features:
                raise NetworkError(f"module {index} takes {module.in_features} features, but "
                                   f"{layers[-1][0].out_features} come out of the layer before")
            layers.append([module, False])
        elif isinstance(module, (nn.ReLU, nn.Softmax)) and not layers:
            raise NetworkError(f"the network must begin with Linear, not {module!r}")
        elif isinstance(module, nn.ReLU):
            layers[-1][1] = True
        elif isinstance(module, nn.Softmax):
            softmax = True
        else:
            raise NetworkError(f"module {index} must be Linear, ReLU or Softmax, not {module!r}")
    if not layers:
        raise NetworkError("the network must have at least one Linear")
    return [tuple(layer) for layer in layers], softmax


class Plan:
    """The layers of a network on a device, with their parameters in its memory.

    Parameters
    ----------
    network : macaw.nn.Sequential
    device : macaw.Device
    training : int
        Samples of the largest batch to train with; 0 for inference alone.

    Attributes
    ----------
    layers : list of Layer
    softmax : bool
        The network ends with a Softmax.
    settle : callable
        Stores what is newer on chip than in the float32 homes.
    """

    def __init__(self, network, device, training=0):
        pairs, self.softmax = describe(network)
        self.device, self.config = device, device.config
        config, n = device.config, device.config.size
        # A panel of weights has up to the square of this many tiles. The sums of a block lie in two banks, those of a
        # weight gradient in one.
        most = max(1, min(max(_GROUP, _GROUP_FEATURES // n), 2 * config.vector_bank_rows // max(n, 48),
                          config.vector_bank_rows // n,
                          math.isqrt(len(self.stationary) * config.tile_bank_tiles // 2)))
        sizes = [pairs[0][0].in_features, *(linear.out_features for linear, _ in pairs)]
        tiles = [-(-size // n) for size in sizes]
        streaming = training and not self._fit(tiles, 0)
        if streaming:
            # Two groups of sums of 64 samples at a time; two panels of weights beside gradients and other tiles.
            most = max(1, min(most, config.vector_rows // (4 * max(n, 64)),
                              math.isqrt(len(self.stationary) * config.tile_bank_tiles // 8)))
        boundaries = [Boundary.of(size, config, first=i == 0 and not streaming, most=most)
                      for i, size in enumerate(sizes)]
        self._tensors = []
        self.layers = []
        for index, (linear, relu) in enumerate(pairs):
            x, y = boundaries[index:index + 2]
            self.layers.append(Layer(
                index, x, y, relu, linear.weight, linear.bias,
                master=self.allocate(f"{index}.master", y.tiles * x.features * config.row_bytes),
                quantized=self.allocate(f"{index}.quantized", y.tiles * x.tiles * config.tile_bytes),
                offsets=self.allocate(f"{index}.offsets", y.tiles * config.row_bytes)))
        self._versions = {}
        self.settle = lambda: None
        device.before_close(self)

    def allocate(self, name, size):
        """A tensor that is freed with the plan."""
        tensor = self.device.allocate(name, size)
        self._tensors.append(tensor)
        return tensor

    def fetch(self):
        """Bring parameters that are newer here to the host."""
        for layer in self.layers:
            for parameter in filter(None, (layer.weight, layer.bias)):
                _ = parameter.data

    def free(self):
        """Give all memory back, once parameters that are newer here have been fetched."""
        self.fetch()
        for tensor in self._tensors:
            self.device.free(tensor)
        self._tensors.clear()

    def changed(self):
        """Whether parameters changed on the host since :meth:`upload`."""
        return any(self._versions.get((layer.index, kind)) != parameter.version for layer in self.layers
                   for kind, parameter in (("weight", layer.weight), ("bias", layer.bias)) if parameter is not None)

    def upload(self):
        """Write parameters that changed on the host into the float32 homes. Returns whether any did."""
        n, changed = self.config.size, False
        for layer in self.layers:
            for kind, parameter in (("weight", layer.weight), ("bias", layer.bias)):
                key = layer.index, kind
                if parameter is None or self._versions.get(key) == parameter.version:
                    continue
                self.settle()
                value = parameter.data
                if kind == "weight":
                    self._master(layer)[:] = blocked(np.ascontiguousarray(value.T), n)
                else:
                    self._offsets(layer)[:value.size] = value
                self._versions[key] = parameter.version
                changed = True
        return changed

    def changed_on_device(self):
        """Note that a step has changed the parameters: they are fetched when they are looked at."""
        for layer in self.layers:
            layer.weight.changed_on_device(lambda layer=layer: self._fetched_weight(layer))
            self._versions[layer.index, "weight"] = layer.weight.version
            if layer.bias is not None:
                layer.bias.changed_on_device(lambda layer=layer: self._offsets(layer)[:layer.y.features])
                self._versions[layer.index, "bias"] = layer.bias.version

    def _fetched_weight(self, layer):
        self.settle()
        return unblocked(self._master(layer), layer.y.features).T

    def _master(self, layer):
        return layer.master.view("<f4", (layer.y.tiles, layer.x.features, self.config.size))

    def _offsets(self, layer):
        return layer.offsets.view("<f4", (layer.y.tiles * self.config.size,))

    def weight_panel(self, layer, x_group, y_group):
        """The bfp8 tiles of one group of inputs by one group of outputs: [output tile][input tile]."""
        tiles = x_group.start * layer.y.tiles + len(x_group) * y_group.start
        return Panel(("w", layer.index, x_group.start, y_group.start), len(x_group) * len(y_group),
                     layer.quantized.address + tiles * self.config.tile_bytes, self.stationary, len(y_group))

    def weight_panels(self):
        """All weight panels, in a fixed order."""
        return [self.weight_panel(layer, x_group, y_group)
                for layer in self.layers for x_group in layer.x.groups for y_group in layer.y.groups]

    def weights_fit(self, samples, training):
        """Whether all weights stay on chip, in training beside the gradients of a batch."""
        tiles = [self.layers[0].x.tiles, *(layer.y.tiles for layer in self.layers)]
        return self._fit(tiles, samples if training else 0)

    def _fit(self, tiles, training):
        """:meth:`weights_fit` for a network with so many tiles of features at each boundary."""
        batch_tiles = -(-training // self.config.size)
        weights = sum(a * b for a, b in zip(tiles, tiles[1:], strict=False))
        return weights + sum(tiles[1:]) * batch_tiles <= len(self.stationary) * self.config.tile_bank_tiles

    @property
    def streamed(self):
        """Banks of the tile memory for operands that stream through the array."""
        return range(self.config.tile_banks // 2)

    @property
    def stationary(self):
        """Banks of the tile memory for operands that stay in the array."""
        return range(self.config.tile_banks // 2, self.config.tile_banks)

    def macs(self, samples, training=False):
        """Useful multiply-accumulates for a batch: without padding, and in training without the input gradient of
        the first layer."""
        products = [layer.x.features * layer.y.features for layer in self.layers]
        return samples * (sum(products) * (2 if training else 1) + (sum(products[1:]) if training else 0))
