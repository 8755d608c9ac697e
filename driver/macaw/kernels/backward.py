"""Gradients on their way back: through the activation, and into the biases."""

from macaw_hw.isa import VectorOp

from ..memory import Panel
from .context import Block

__all__ = ["OffsetGradients", "from_loss", "through_activation", "use_gradient"]


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
        return Panel(("offset gradients", layer.index, group.start), len(group), address, self._job.others)

    def add(self, layer, batch, group, gradient):
        """Thread: add one group for one block, whose rows are used up."""
        job, n = self._job, self._job.n
        if layer.bias is None:
            return
        if batch.rows < batch.pitch:
            yield job.op(VectorOp.FILL, Block(gradient.start + batch.rows, batch.pitch - batch.rows, gradient.panels,
                                              batch.pitch))
        half = n // 2
        while half:
            upper = Block(gradient.start, half, gradient.panels * batch.tiles, n)
            lower = Block(gradient.start + half, half, gradient.panels * batch.tiles, n)
            yield job.op(VectorOp.ADD, upper, upper, lower)
            half //= 2
        panel = self.panel(layer, group)
        for tile in range(batch.tiles):
            row = Block(gradient.start + tile * n, len(group), step=batch.pitch)
            if batch.index == tile == 0:
                yield job.op(VectorOp.MOVE, Block(job.rows.create(panel), len(group)), row)
            else:
                with job.rows.use(panel) as (start,):
                    job.rows.touch(panel)
                    total = Block(start, len(group))
                    time = job.op(VectorOp.ADD, total, total, row)
                yield time


def through_activation(job, layer, batch, group, sums, tile):
    """Emit for one tile of features: the gradient of a layer's outputs, in ``sums``, becomes that of its linear part,
    there and in tiles for the weight gradient."""
    i = tile - group.start
    panel = job.dy[layer.index].panel(batch, group)
    place = job.tiles.create(panel) + i * batch.tiles, 0
    if i == 0:
        job.tiles.pin(panel)
    if i == len(group) - 1:
        job.tiles.unpin(panel)
    rows = sums.part(i, 1)
    if not layer.relu:
        return job.op(VectorOp.MOVE, None, rows, tile=place)
    home = job.saved(layer, batch, tile)
    with job.rows.use(home) as (start,):
        time = job.op(VectorOp.SELECT_GT, rows, Block(start, batch.rows), rows, scalar=0.0, tile=place)
    job.rows.drop(home)
    return time


def use_gradient(job, layer, batch, group, gradient, gradients):
    """Thread: what remains to be done with one group of gradients of a layer's linear part: tiles for the input
    gradient, and the gradient of the bias, which uses up the rows."""
    if layer.index > 0:
        place = job.tiles.create(job.dy_streamed[layer.index].panel(batch, group)), batch.tiles
        yield job.op(VectorOp.MOVE, None, gradient, tile=place)
    yield from gradients.add(layer, batch, group, gradient)


def from_loss(job, layer, batch, gradient, emit, gradients):
    """Thread: the gradient of the outputs, computed by ``emit`` into ``gradient``, becomes tiles and is added to the
    gradient of the bias."""
    panels = [job.dy_streamed, job.dy] if layer.index > 0 else [job.dy]
    for group in layer.y.groups:
        first, *others = [job.tiles.create(activations[layer.index].panel(batch, group)) for activations in panels]
        yield emit(group, (first, batch.tiles))
        part = gradient.part(group.start, len(group))
        for start in others:
            yield job.op(VectorOp.MOVE, None, part, tile=(start, batch.tiles))
        yield from gradients.add(layer, batch, group, part)
