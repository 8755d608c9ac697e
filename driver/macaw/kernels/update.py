"""Weight gradients and the update of the weights, chunk by chunk: a chunk is one group of input features by N outputs.

Gradients never leave the chip: a chunk's sums become new float32 weights and new tiles in one instruction, while the
array works on the next chunk.
"""

from dataclasses import dataclass

from macaw_hw.isa import DataFormat, VectorOp

from .context import Block

__all__ = ["Chunk", "Prefetch", "chunks", "load_weights", "update_offsets", "update_weights", "weight_gradient"]


@dataclass(frozen=True, eq=False)
class Chunk:
    """Weights from one group of inputs to one tile of outputs.

    Attributes
    ----------
    layer : Layer
    x_group, y_group : range
    tile : int
        In ``y_group``.
    rows : int
        Input features.
    """
    layer: object
    x_group: range
    y_group: range
    tile: int
    rows: int


def chunks(job):
    """All chunks, in the order of their update: the last layer first; in each layer the smallest chunks last."""
    return [Chunk(layer, x_group, y_group, tile, layer.x.rows(x_group, job.n))
            for layer in job.plan.layers[::-1] for x_group in layer.x.groups[::-1] for y_group in layer.y.groups
            for tile in y_group]


class Prefetch:
    """Brings the inputs of a group's weight gradients on chip while the array works on the group before.

    Parameters
    ----------
    job : Job
    todo : list of Chunk
        All chunks in their order.
    """

    def __init__(self, job, todo):
        self._job, self._order, self._until = job, [], {}
        groups = {}
        for chunk in todo:
            groups.setdefault((chunk.layer.index, chunk.x_group.start), []).append(chunk)
        room = len(job.plan.streamed) * job.config.tile_bank_tiles
        batches = len(job.batches)
        for position, members in enumerate(groups.values()):
            layer, x_group = members[0].layer, members[0].x_group
            panels = [job.x[layer.index].panel(batch, x_group) for batch in job.batches]
            self._order += panels
            # While one group is in use, the next comes; a third is to have room as well.
            fits = 3 * sum(panel.count for panel in panels) <= room and not job.thrift
            for i, chunk in enumerate(members):
                share = batches * (i + 1) // len(members) if fits else 0
                self._until[chunk] = (position + 1) * batches + share
        self._done = 0

    def ahead(self, chunk):
        """Emit the loads that are due with a chunk."""
        for panel in self._order[self._done:self._until[chunk]]:
            self._job.tiles.get(panel)
        self._done = max(self._done, self._until[chunk])


def weight_gradient(job, chunk, batches, sums, begun):
    """Thread: add the products of some blocks of the batch to the sums of a chunk, or ``begun`` not set, begin them."""
    layer = chunk.layer
    for batch in batches:
        panels = job.x[layer.index].panel(batch, chunk.x_group), job.dy[layer.index].panel(batch, chunk.y_group)
        with job.tiles.use(*panels) as (streamed, stationary):
            yield job.program.matrix(
                rows=chunk.rows, k_tiles=batch.tiles, x=streamed, x_transpose=1, x_row_stride=batch.tiles,
                x_k_stride=1, w=stationary + (chunk.tile - chunk.y_group.start) * batch.tiles, w_k_stride=1,
                y=sums.start, accumulate=begun)
        begun = True


def load_weights(job, chunk, anyway=True):
    """Bring the float32 weights of a chunk on chip. None if there is no room without evicting others, unless
    ``anyway``."""
    start = job.allocate_other(chunk.rows, anyway)
    if start is None:
        return None
    weights = Block(start, chunk.rows, pitch=chunk.rows)
    job.program.load(**_home(job, chunk, weights))
    return weights


def _home(job, chunk, weights):
    row = chunk.tile * chunk.layer.x.features + chunk.x_group.start * job.n
    return {"format": DataFormat.FLOAT32, "address": chunk.layer.master.address + row * job.config.row_bytes,
            "local": weights.start, "run": chunk.rows * job.n}


def update_weights(job, chunk, sums, weights, rate):
    """Emit the update of a chunk, ``w = g * (-rate) + w``, and store the new weights (the tiles only where they
    do not stay on chip). ``weights`` is from :func:`load_weights`, or None."""
    weights = weights or load_weights(job, chunk)
    program = job.program
    panel = job.plan.weight_panel(chunk.layer, chunk.x_group, chunk.y_group)
    first = job.tiles.create(panel, dirty=False)
    if chunk.tile == chunk.y_group.start:
        job.tiles.pin(panel)
    offset = (chunk.tile - chunk.y_group.start) * len(chunk.x_group)
    job.op(VectorOp.SCALE_ADD, weights, sums, weights, scalar=-rate, tile=(first + offset, 0))
    program.store(**_home(job, chunk, weights))
    if not job.resident:
        program.store(format=DataFormat.BFP8, address=panel.address + offset * job.config.tile_bytes,
                      local=first + offset, run=len(chunk.x_group))
    job.free(weights)
    if chunk.tile == chunk.y_group.stop - 1:
        job.tiles.unpin(panel)
    job.free(sums)


def update_offsets(job, offsets, gradients, rate):
    """Emit the update of all biases and store them. Returns the estimated time."""
    time = 0
    for layer in job.plan.layers:
        for group in layer.y.groups if layer.bias is not None else ():
            home, gradient = offsets.panel(layer, group), gradients.panel(layer, group)
            with job.rows.use(home, gradient) as places:
                rows, change = (Block(place, len(group)) for place in places)
                job.op(VectorOp.SCALE_ADD, rows, change, rows, scalar=-rate)
                time = job.program.store(format=DataFormat.FLOAT32, address=home.address, local=rows.start,
                                         run=rows.rows * job.n)
            job.rows.drop(home)
            job.rows.drop(gradient)
    return time
