"""Gradients on their way back: through the activation, and into the biases."""

from dataclasses import replace

from macaw_hw.isa import VectorOp

from ..memory import Panel
from .context import Block, Sums

__all__ = ["OffsetGradients", "activation_done", "from_loss", "quantize_gradient", "through_activation"]


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
        """Thread: add one group for one block, given as :class:`Sums` whose rows are used up."""
        job, n = self._job, self._job.n
        if layer.bias is None:
            return
        panel = self.panel(layer, group)
        for offset, part in enumerate(gradient.parts):
            if batch.rows < batch.pitch:
                yield job.op(VectorOp.FILL, Block(part.start + batch.rows, batch.pitch - batch.rows, part.panels,
                                                  batch.pitch))
            half = n // 2
            while half:
                upper = Block(part.start, half, part.panels * batch.tiles, n)
                lower = replace(upper, start=part.start + half)
                yield job.op(VectorOp.ADD, upper, upper, lower)
                half //= 2
            for tile in range(batch.tiles):
                row = Block(part.start + tile * n, part.panels, step=batch.pitch)
                first = batch.index == tile == 0
                if first and offset == 0:
                    job.rows.create(panel)
                with job.rows.use(panel) as (start,):
                    job.rows.touch(panel)
                    total = Block(start + offset, part.panels, step=len(gradient.parts))
                    time = (job.op(VectorOp.MOVE, total, row) if first else job.op(VectorOp.ADD, total, total, row))
                yield time


def through_activation(job, layer, batch, group, sums, tile):
    """Emit for one tile of features: the gradient of a layer's outputs, in ``sums``, becomes that of its linear part,
    there and in tiles for the weight gradient. The panel of tiles stays pinned until :func:`activation_done`."""
    i = tile - group.start
    panel = job.dy[layer.index].panel(batch, group)
    begun = job.tiles.resident(panel)
    place = job.tiles.create(panel) + i * batch.tiles, 0
    if not begun:
        job.tiles.pin(panel)
    rows = sums.tile(i)
    if not layer.relu:
        return job.op(VectorOp.MOVE, None, rows, tile=place)
    home = job.saved(layer, batch, tile)
    with job.rows.use(home) as (start,):
        time = job.op(VectorOp.SELECT_GT, rows, Block(start, batch.rows), rows, scalar=0.0, tile=place)
    job.rows.drop(home)
    return time


def activation_done(job, layer, batch, group):
    """All tiles of a group have gone :func:`through_activation`."""
    job.tiles.unpin(job.dy[layer.index].panel(batch, group))


def quantize_gradient(job, layer, batch, group, gradient):
    """Thread: one group of gradients of a layer's linear part, given as :class:`Sums`, becomes tiles for the input
    gradient."""
    yield from _quantize(job, job.dy_streamed[layer.index].panel(batch, group), batch, gradient)


def from_loss(job, layer, batch, gradient, emit, gradients):
    """Thread: the gradient of the outputs, computed by ``emit`` into ``gradient``, becomes tiles for the input gradient
    and for the weight gradient. The value is a thread that adds it to the gradient of the bias."""
    panels = [job.dy_streamed, job.dy] if layer.index > 0 else [job.dy]
    for group in layer.y.groups:
        first, *others = [activations[layer.index].panel(batch, group) for activations in panels]
        yield emit(group, (job.tiles.create(first), batch.tiles))
        for panel in others:
            yield from _quantize(job, panel, batch, Sums([gradient.part(group.start, len(group))]))

    def add():
        for group in layer.y.groups:
            yield from gradients.add(layer, batch, group, Sums([gradient.part(group.start, len(group))]))
    return add()


def _quantize(job, panel, batch, gradient):
    """Thread: one group of gradients becomes the tiles of a panel."""
    start = job.tiles.create(panel)
    for offset, part in enumerate(gradient.parts):
        yield job.op(VectorOp.MOVE, None, part,
                     tile=(start + offset * batch.tiles, len(gradient.parts) * batch.tiles))
