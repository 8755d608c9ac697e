"""One run of a network over one batch: its blocks, its buffers in memory, and its panels."""

from functools import partial

from ..memory import Panel
from ..plan import NetworkError
from .context import Batch, Context
from .loss import Scratch
from .outgoing import Outgoing

__all__ = ["Activations", "Job", "Workspace"]


_MOST_SAMPLES, _MOST_TILES, _MOST_STREAMING = 48, 3, 64
"""Samples of a block, or tiles of samples where these are more; samples of a block in a streaming step."""
_LAST_SAMPLES = 16


class Activations:
    """Tiles of the features at one boundary, in panels of one group by one block: [feature tile][sample tile].

    Parameters
    ----------
    name : str
        Unique in the tile memory.
    boundary : macaw.plan.Boundary
    banks : range
        Of the tile memory.
    home : int
        Byte address of the place for panels that do not stay on chip.

    Attributes
    ----------
    make : callable, optional
        ``make(batch, group)`` emits what makes a panel, which has no home then.
    """

    def __init__(self, name, boundary, banks, home, tile_bytes):
        self._name, self._boundary, self._banks = name, boundary, banks
        self._home, self._tile_bytes = home, tile_bytes
        self.make = None

    def panel(self, batch, group):
        before = batch.start * batch.tiles // batch.pitch * self._boundary.tiles
        address = self._home + (before + group.start * batch.tiles) * self._tile_bytes
        make = self.make and partial(self.make, batch, group)
        return Panel((self._name, batch.index, group.start), len(group) * batch.tiles, address, self._banks, make=make)


class Workspace:
    """Buffers in the memory of the device for batches of up to ``samples``.

    Attributes
    ----------
    pixels, features : Tensor
        Input as uint8 or float32, blocked: [tiles][samples][N]. With fewer samples than ``samples`` the blocks are
        just as much smaller; that holds for all these buffers.
    targets : Tensor
        One-hot uint8, [tiles][samples][N].
    outputs : Tensor
        float32 [tiles][samples][N].
    losses : Tensor
        float32 [samples][N]: the loss of each sample, in every lane.
    mask, masked : Tensor
        float32 [tiles][N]: 0, and -1e30 in the padding lanes of the outputs; the same plus the bias.
    gradients : list of Tensor
        float32 [tiles][N]: gradients of the biases.
    """

    def __init__(self, plan, samples, training):
        config, n = plan.config, plan.config.size
        self.samples = samples
        tiles = -(-samples // n)
        first, last = plan.layers[0].x, plan.layers[-1].y
        self.pixels = plan.allocate("pixels", first.tiles * samples * n)
        self.features = plan.allocate("features", first.tiles * samples * config.row_bytes)
        self.outputs = plan.allocate("outputs", last.tiles * samples * config.row_bytes)
        self.mask = plan.allocate("mask", last.tiles * config.row_bytes)
        self.mask.view("<f4", (last.tiles * n,))[last.features:] = -1e30
        self.masked = plan.allocate("masked", last.tiles * config.row_bytes)
        boundaries = [layer.x for layer in plan.layers] + [last]
        def spill(what, boundary, unit):
            return plan.allocate(what, boundary.tiles * tiles * unit).address
        self.x_homes = [spill("x", boundary, config.tile_bytes) for boundary in boundaries]
        if training:
            self.targets = plan.allocate("targets", last.tiles * samples * n)
            self.gradients = [plan.allocate("gradients", layer.y.tiles * config.row_bytes) for layer in plan.layers]
            self.losses = plan.allocate("losses", samples * config.row_bytes)
            self.dy_homes = [spill("dy", boundary, config.tile_bytes) for boundary in boundaries]
            self.gradient_homes = [spill("gradient", boundary, n * config.row_bytes) for boundary in boundaries]


class Job(Context):
    """A program under construction for one batch.

    Parameters
    ----------
    plan : macaw.plan.Plan
    workspace : Workspace
    samples : int
    pixels : bool
        The input is uint8, used as x / 255; otherwise float32.
    training : bool
    kept : bool
        The weights are on chip, where a program before left them.
    left : tuple of Left
        float32 weights that the training step before left on chip.
    thrift : int
        0: work ahead wherever it saves time. 1: one thing after the other, with less on chip at a time. 2: and the
        smallest blocks.

    Attributes
    ----------
    resident : bool
        The weights stay on chip, and their homes out of date.
    streaming : bool
        A training step whose weights come from memory: :mod:`macaw.kernels.streaming`.
    batches : list of Batch
    outgoing : Outgoing or None
        For ``streaming``.
    x : list of Activations
        Inputs of the layers.
    dy, dy_streamed : list of Activations
        Gradients of the layers' outputs, as the array's stationary and streamed operand.
    softmax : bool
        The outputs go through a softmax.
    """

    def __init__(self, plan, workspace, samples, pixels, training, kept=False, left=(), thrift=0):
        super().__init__(plan.config)
        self.plan, self.workspace, self.samples = plan, workspace, samples
        self.pixels, self.training, self.thrift = pixels, training, thrift
        self.softmax = training or plan.softmax
        self.left = left
        self.resident = plan.weights_fit(workspace.samples, training)
        self.streaming = training and not plan.weights_fit(samples, training=False)
        if self.resident:
            for panel in plan.weight_panels():
                self.tiles.reserve(panel, loaded=kept)
        self.batches = Batch.blocks(samples, self._block_tiles(), self.n)
        self.outgoing = Outgoing(self) if self.streaming else None
        self._scratch = {}
        def activations(name, boundary, banks, home):
            return Activations(f"{name}{home}", boundary, banks, home, self.config.tile_bytes)
        boundaries = [plan.layers[0].x, *(layer.y for layer in plan.layers)]
        self.x = [activations("x", boundary, plan.streamed, home)
                  for boundary, home in zip(boundaries, workspace.x_homes, strict=True)]
        if training:
            self.dy = [activations("dy", boundary, plan.stationary, home)
                       for boundary, home in zip(boundaries[1:], workspace.dy_homes[1:], strict=True)]
            self.dy_streamed = [activations("ds", boundary, plan.streamed, home)
                                for boundary, home in zip(boundaries[1:], workspace.dy_homes[1:], strict=True)]

    def scratch(self, batch):
        """The :class:`macaw.kernels.loss.Scratch` of one block."""
        if batch.index not in self._scratch:
            self._scratch[batch.index] = Scratch(self, batch)
        return self._scratch[batch.index]

    def last_use(self, batch, panel):
        """Give up the place of a panel of weights that is not used again if this block is the last."""
        if batch is self.batches[-1] and self.training and not self.resident and not self.streaming:
            self.tiles.drop(panel)

    def turn(self, layer, x_group):
        """When the weight gradients of a group of inputs are computed: 1 for the first group of all."""
        after = sum(len(other.x.groups) for other in self.plan.layers[layer.index + 1:])
        return after + len(layer.x.groups) - layer.x.groups.index(x_group)

    def room_for_sums(self):
        """Free rows in the banks for sums."""
        return self.rows.allocator.available(self.sums)

    def _block_tiles(self):
        """Tiles of each block of the batch. Where there is a softmax, the last block is small: its softmax runs while
        the weight gradients of the others fill the array, or alone. The others are large, but fit the banks."""
        n, config = self.n, self.config
        group = max(len(group) for layer in self.plan.layers for group in (*layer.x.groups, *layer.y.groups))
        streamed = len(self.plan.streamed) * config.tile_bank_tiles
        most, last = max(_MOST_SAMPLES // n, _MOST_TILES), max(1, _LAST_SAMPLES // n)
        most = max(1, min(_MOST_STREAMING // n if self.streaming else most, streamed // (4 * group)))
        if self.thrift > 1:
            most = 1
        if self.softmax:
            # Half of the rows should remain for everything else, a quarter must.
            tiles, room = self.plan.layers[-1].y.tiles, config.vector_rows // 2
            most = max(1, min(most, room // 2 // (Scratch.rows(tiles) * n)))
            if Scratch.rows(tiles) * n > room * 3 // 4:
                limit = max(t for t in range(tiles) if Scratch.rows(t) * n <= room * 3 // 4 or not t) * n
                raise NetworkError(f"a softmax on this configuration has at most {limit} classes, not "
                                   f"{self.plan.layers[-1].y.features}; use a configuration with more vector memory")
        total = -(-self.samples // n)
        if self.resident:       # blocks cost nothing then: the weights need not be loaded for each
            most = max(1, min(most, total // 2))
        last = min(last, most, total) if self.softmax and not self.streaming else 0
        rest = total - last
        parts = -(-rest // most)
        return [rest // parts + (i < rest % parts) for i in range(parts)] + [last] * bool(last)

    def gradient(self, layer, batch, group):
        """float32 gradients of the outputs of a layer's linear part, one group of features of one block. Until they are
        computed, the panel has what that takes: the outputs of the ReLU."""
        before = batch.start * layer.y.tiles + group.start * batch.pitch
        return Panel(("gradient", layer.index, batch.index, group.start), len(group) * batch.pitch,
                     self.workspace.gradient_homes[layer.index + 1] + before * self.config.row_bytes, self.others)
