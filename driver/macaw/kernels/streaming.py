"""A training step whose weights do not stay on chip: they come from memory, and activations go there.

The batch is one block, or a few large ones, because the weights travel once for each. On the way forward, tiles of a
layer's outputs are made in the stationary banks, where a store is not in the array's way, and go home; who streams
them loads them from there.

The way back goes layer by layer for the whole batch, and in a layer by groups of input features. Once the gradient of a
group is known, the weights that it came through may change. An input gradient hardly needs the bus; a weight gradient
with its update keeps it busy for longer than the array. So both take turns:

```
array    input gradient of group g, in turns with weight gradients that groups up to g made possible
lanes    gradients through the activation, bias gradients; updates
loads    tiles of the old weights, tiles of activations, float32 weights
stores   float32 weights and tiles of the new ones; tiles of gradients
```
"""

from collections import deque
from dataclasses import replace
from itertools import chain, cycle

from macaw_hw.isa import DataFormat, VectorOp

from .context import Block, interleave
from .products import Product, mix, run, weave
from .update import Chunk, Weights, update_offsets, weight_gradient

__all__ = ["finish_streaming", "store_activation"]

_LEAD = 2
"""Groups of a gradient that are known before the layer below begins with the first of them."""
_PART, _PARTS = 2, 2
"""Tiles of outputs that come on chip together for their gradients, and how many of these parts there are at a time."""
_REST_OPERATIONS = 2
"""Vector instructions for other purposes between one product and the next."""


def store_activation(job, layer, batch, group, sums, tile):
    """ReLU and quantization of one tile of sums, for :func:`macaw.kernels.linear.forward`. The tiles go home, and so do
    the outputs of the ReLU, for the way back."""
    i = tile - group.start
    address = job.x[layer.index + 1].panel(batch, group).address + i * batch.tiles * job.config.tile_bytes
    if not layer.relu:
        return job.outgoing.make(lambda place: job.op(VectorOp.MOVE, None, sums.tile(i), tile=(place, 0)),
                                 address, batch.tiles)
    panel = job.gradient(layer, batch, range(tile, tile + 1))
    rows = Block(job.rows.create(panel), batch.rows, pitch=batch.pitch)
    time = job.outgoing.make(
        lambda place: job.op(VectorOp.MAX_SCALAR, rows, sums.tile(i), scalar=0.0, tile=(place, 0)),
        address, batch.tiles)
    job.rows.save(panel)
    job.rows.drop(panel)
    return time


def finish_streaming(network, rate):
    """What follows the forward pass of all blocks but the last. Gives what stays on chip."""
    interleave(network.tail(network.job.batches[-1]))
    return _WayBack(network, rate).emit()


class _WayBack:
    """The products of the way back.

    Attributes
    ----------
    pending : set of int
        Homes of the gradients that are not known yet.
    sums : Sums or None
        Of the input gradient of a group.
    coming, arriving : deque
        Parts of outputs of the ReLU that are still to be loaded, and those that have a place.
    """

    def __init__(self, network, rate):
        self.network, self.job, self.rate = network, network.job, rate
        job, layers = self.job, self.job.plan.layers
        self.products = self._order()
        self.weights = Weights(job, dict.fromkeys(p.chunk for p in self.products if p.chunk))
        self.pending = {job.dy[layer.index].panel(batch, group).address
                        for layer in layers[:-1] for batch in job.batches for group in layer.y.groups}
        groups = [len(group) for layer in layers[1:] if len(layer.y.groups) > 1 for group in layer.x.groups]
        pitch = max(batch.pitch for batch in job.batches)
        self.sums = job.new_sums(pitch, max(groups), pitch) if groups else None
        part, count = (1, 1) if job.thrift else (_PART, _PARTS)
        self.coming = deque((layer, batch, group, group[i:i + part])
                            for layer in layers[-2::-1] for group in layer.y.groups
                            for batch in job.batches for i in range(0, len(group), part))
        self.arriving = deque()
        if self.coming:
            start = job.rows.allocate(count * part * pitch, job.others, long=True)
            self.places = cycle(range(start, start + count * part * pitch, part * pitch))
            for _ in range(count):
                self._bring_outputs()

    def emit(self):
        """Emit everything. Gives what stays on chip."""
        rest = self._rest()
        for _ in run(self.job, self.products, self.pending):
            for _ in zip(range(_REST_OPERATIONS), rest, strict=False):
                pass
        for _ in rest:
            pass
        return self.weights.left

    def _order(self):
        """All products in the order of the array.

        The layers come one after the other; but where the gradients of a group take one product for each tile only, the
        array would wait for the lanes, and so the next layer begins as soon as the first groups are known.
        """
        layers, order, held = self.job.plan.layers, [], []
        for layer in layers[:0:-1]:
            first, *others = [self._input_gradients(layer, x_group) for x_group in layer.x.groups]
            begin = list(chain(*held[:_LEAD]))
            for j, panel in enumerate(first):
                begin += mix(panel, held[j + _LEAD] if j + _LEAD < len(held) else [])
            held = [begin, *(list(chain(*panels)) for panels in others)]
            if len(layer.y.groups) > 1:
                order += chain(*held)
                held = []
        order += chain(*held)
        if order:
            return weave(order)
        return list(chain(*(self._weight_gradients(layers[0], x_group, y_group)
                            for x_group in layers[0].x.groups for y_group in layers[0].y.groups)))

    def _input_gradients(self, layer, x_group):
        """The products for the gradient of one group of inputs, panel by panel of the weights. After each, its weights
        may change; after all, the first layer's weights that lead to the group."""
        panels = [self._input_gradient(layer, x_group, y_group, batch)
                  for batch in self.job.batches for y_group in layer.y.groups]
        for y_group, panel in zip(layer.y.groups[::-1], panels[::-1], strict=False):
            panel[-1].releases += self._weight_gradients(layer, x_group, y_group)
        if layer.index == 1:
            first = self.job.plan.layers[0]
            for group in first.x.groups:
                panels[-1][-1].releases += self._weight_gradients(first, group, x_group)
        return panels

    def _input_gradient(self, layer, x_group, y_group, batch):
        """The products of one block of the batch with one panel of weights."""
        job, before = self.job, self.job.plan.layers[layer.index - 1]
        weights = replace(job.plan.weight_panel(layer, x_group, y_group), pieces=1)
        panels = job.dy_streamed[layer.index].panel(batch, y_group), weights
        def emit(tile):
            if len(layer.y.groups) > 1:
                sums = self.sums.tile(tile - x_group.start).part(0, 1, range(batch.rows))
            else:
                sums = Block(job.allocate_sums(batch.pitch), batch.rows, pitch=batch.pitch)
            with job.tiles.use(*panels) as (streamed, stationary):
                job.program.matrix(
                    rows=batch.rows, k_tiles=len(y_group), x=streamed, x_row_stride=1, x_k_stride=batch.tiles,
                    w=stationary + tile - x_group.start, w_k_stride=len(x_group), w_transpose=1, y=sums.start,
                    accumulate=y_group.start > 0)
            if y_group is layer.y.groups[-1]:
                self._through_activation(before, batch, x_group, sums, tile)
            if len(layer.y.groups) == 1:
                job.free(sums)
        return [Product(max(batch.rows, job.n) * len(y_group), panels, lambda tile=tile: emit(tile))
                for tile in x_group]

    def _bring_outputs(self):
        """Bring the next outputs of the ReLU on chip, whose place their gradients take, and their biases."""
        if not self.coming:
            return
        job, (layer, batch, group, part) = self.job, self.coming.popleft()
        saved = job.gradient(layer, batch, part)
        gradients = Block(next(self.places), batch.rows, len(part), batch.pitch)
        self.arriving.append((layer, batch, part, gradients))
        if layer.relu:
            job.program.load(format=DataFormat.FLOAT32, address=saved.address, local=gradients.start,
                             run=saved.count * job.n)
        if layer.bias is not None and batch is job.batches[-1]:
            if part.start == group.start:
                job.rows.drop(self.network.offsets.panel(layer, group))
            job.rows.get(self.network.offsets.panel(layer, part))

    def _through_activation(self, layer, batch, group, sums, tile):
        """Emit: the gradient of one tile of a layer's outputs becomes that of its linear part, in tiles, and that of
        its biases."""
        job, i = self.job, tile - group.start
        *expected, part, gradients = self.arriving[0]
        assert expected == [layer, batch] and tile in part, "outputs come in another order"
        gradient = gradients.part(tile - part.start, 1)
        tiles = job.dy[layer.index].panel(batch, group)
        place = job.tiles.create(tiles) + i * batch.tiles, 0
        if i == 0:
            job.tiles.pin(tiles)
        if layer.relu:
            job.op(VectorOp.SELECT_GT, gradient, gradient, sums, scalar=0.0, tile=place)
        else:
            job.op(VectorOp.MOVE, gradient, sums, tile=place)
        if tile == part.stop - 1:
            for _ in self.network.gradients.add(layer, batch, part, gradients):
                pass
            self.arriving.popleft()
            if batch is job.batches[-1]:
                update_offsets(job, [(layer, part)], self.network.offsets, self.network.gradients, self.rate)
            self._bring_outputs()
        if tile == group.stop - 1:
            job.tiles.unpin(tiles)
            if layer.index > 0:
                job.tiles.save(tiles)
            self.pending.discard(tiles.address)

    def _weight_gradients(self, layer, x_group, y_group):
        """The products for the gradients of one panel of weights, with their updates."""
        products = []
        for tile in y_group:
            chunk, sums = Chunk(layer, x_group, y_group, tile, layer.x.rows(x_group, self.job.n)), []
            for batch in self.job.batches:
                panels = self.job.x[layer.index].panel(batch, x_group), self.job.dy[layer.index].panel(batch, y_group)
                def emit(chunk=chunk, batch=batch, sums=sums):
                    self._weight_gradient(chunk, batch, sums)
                products.append(Product(max(chunk.rows, self.job.n) * batch.tiles, panels, emit, chunk=chunk))
        return products

    def _weight_gradient(self, chunk, batch, sums):
        """Emit one product for a chunk, after the last one ``w = g * (-rate) + w`` and the stores of the new
        weights. ``sums`` is a list that has the sums in between."""
        job = self.job
        if not sums:
            sums.append(Block(job.allocate_sums(chunk.rows), chunk.rows, pitch=chunk.rows))
        weight_gradient(job, chunk, batch, sums[0])
        if batch is not job.batches[-1]:
            return
        panel = job.plan.weight_panel(chunk.layer, chunk.x_group, chunk.y_group)
        offset = (chunk.tile - chunk.y_group.start) * len(chunk.x_group) * job.config.tile_bytes
        rows = self.weights.take(chunk)
        job.outgoing.make(
            lambda place: job.op(VectorOp.SCALE_ADD, rows, sums[0], rows, scalar=-self.rate, tile=(place, 0)),
            panel.address + offset, len(chunk.x_group))
        job.free(sums[0])
        self.weights.done(chunk)
        self.weights.ahead()

    def _rest(self):
        """Thread: what the last block has put off, and the biases of the outputs."""
        job, network = self.job, self.network
        yield from network.background()
        network.offsets.drop()
        last = job.plan.layers[-1]
        yield update_offsets(job, [(last, group) for group in last.y.groups], network.offsets, network.gradients,
                             self.rate)
