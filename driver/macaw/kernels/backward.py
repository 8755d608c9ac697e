"""Gradients on their way back: through the activation, and into the biases."""

from dataclasses import replace

from macaw_hw.isa import VectorOp

from ..memory import Panel
from .context import Block

__all__ = ["OffsetGradients", "from_loss", "quantize_gradient", "through_activation"]


_SLACK = 800
"""Cycles by which a softmax may take longer than estimated: the array goes on with the next block for so long before it
turns to the gradients."""


class OffsetGradients:
    """Sums of the output gradients over the batch: the gradients of the biases.

    Order of additions: within each tile of N samples by halves (sample i plus sample i + N/2, then i plus i + N/4, and
    so on); then tiles in ascending order.
    """

    def __init__(self, job):
        self._job = job

    def panel(self, layer, group):
        """The sums of one group of features."""
        address = self._job.workspace.gradients[layer.index].address + group.start * self._job.config.row_bytes
        return Panel(("offset gradients", layer.index, group.start), len(group), address, self._job.others, long=True)

    def add(self, layer, batch, group, gradient):
        """Thread: add one group for one block, given as a :class:`Block` whose rows are used up."""
        job, n = self._job, self._job.n
        if layer.bias is None:
            return
        panel = self.panel(layer, group)
        if batch.rows < batch.pitch:
            yield job.op(VectorOp.FILL, Block(gradient.start + batch.rows, batch.pitch - batch.rows, gradient.panels,
                                              batch.pitch))
        half = n // 2
        while half:
            upper = Block(gradient.start, half, gradient.panels * batch.tiles, n)
            lower = replace(upper, start=gradient.start + half)
            yield job.op(VectorOp.ADD, upper, upper, lower)
            half //= 2
        for tile in range(batch.tiles):
            row = Block(gradient.start + tile * n, gradient.panels, step=batch.pitch)
            first = batch.index == tile == 0
            if first:
                job.rows.create(panel)
            with job.rows.use(panel) as (start,):
                job.rows.touch(panel)
                total = Block(start, gradient.panels)
                time = (job.op(VectorOp.MOVE, total, row) if first else job.op(VectorOp.ADD, total, total, row))
            yield time


def through_activation(job, layer, batch, group, sums):
    """Thread: the gradients of a group of a layer's outputs, in ``sums``, become those of its linear part, in
    :meth:`Job.gradient` and in tiles for the weight gradient."""
    panel = job.gradient(layer, batch, group)
    tiles = job.tiles.create(job.dy[layer.index].panel(batch, group))
    if not layer.relu:
        job.rows.create(panel)
    with job.rows.use(panel) as (start,):
        job.rows.touch(panel)
        step = len(sums.parts)
        for offset, part in enumerate(sums.parts):
            gradient = Block(start + offset * batch.pitch, batch.rows, part.panels, step * batch.pitch)
            place = tiles + offset * batch.tiles, step * batch.tiles
            if layer.relu:
                yield job.op(VectorOp.SELECT_GT, gradient, gradient, part, scalar=0.0, tile=place)
            else:
                yield job.op(VectorOp.MOVE, gradient, part, tile=place)


def quantize_gradient(job, layer, batch, group):
    """Thread: one group of gradients of a layer's linear part becomes tiles for the input gradient."""
    panel = job.gradient(layer, batch, group)
    with job.rows.use(panel) as (start,):
        gradient = Block(start, batch.rows, len(group), batch.pitch)
        yield _quantize(job, job.dy_streamed[layer.index].panel(batch, group), batch, gradient)


def from_loss(job, layer, batch, gradient, emit):
    """Thread: the gradient of the outputs, computed by ``emit`` into ``gradient``, becomes tiles for the input gradient
    and for the weight gradient."""
    panels = [job.dy_streamed, job.dy] if layer.index > 0 else [job.dy]
    slack = _SLACK if batch is not job.batches[-1] else 0
    for group in layer.y.groups:
        first, *others = [activations[layer.index].panel(batch, group) for activations in panels]
        yield emit(group, (job.tiles.create(first), batch.tiles))
        for panel in others:
            yield _quantize(job, panel, batch, gradient.part(group.start, len(group))) + slack


def _quantize(job, panel, batch, gradient):
    """Emit: one group of gradients becomes the tiles of a panel."""
    return job.op(VectorOp.MOVE, None, gradient, tile=(job.tiles.create(panel), batch.tiles))
