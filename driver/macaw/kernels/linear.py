"""Linear layers: forward product, input gradient, weight gradient.

Order of additions (all float32, independent of the tiling): ``Y`` starts with the bias and adds the products of input
tiles in ascending order; ``dX`` adds output tiles in ascending order; ``dW`` adds tiles of N samples in ascending
order.
"""

from dataclasses import replace

from macaw_hw.isa import DataFormat, VectorOp

from ..memory import Panel
from .context import Block

__all__ = ["Inputs", "Offsets", "activate", "forward", "input_gradient", "output_groups"]


_INPUT_ROWS = 160
"""Vector rows of input that are loaded and quantized at a time."""


class Offsets:
    """Bias rows, and the sums that begin with them. Those of the outputs carry the mask of the padding lanes if there
    is a softmax."""

    def __init__(self, job):
        self._job, self._prepared = job, {}
        self._masked = job.softmax and job.plan.layers[-1].y.features % job.n != 0
        if self._masked:
            self._mask()

    def panel(self, layer, group):
        """The bias of one group of outputs."""
        return Panel(("bias", layer.index, group.start), len(group),
                     layer.offsets.address + group.start * self._job.config.row_bytes, self._job.others)

    def _masked_panel(self):
        return Panel(("mask",), self._job.plan.layers[-1].y.tiles, self._job.workspace.mask.address, self._job.others)

    def _mask(self):
        """Add the bias of the outputs to the mask, whose home is another from then on."""
        job, layer = self._job, self._job.plan.layers[-1]
        mask = self._masked_panel()
        if layer.bias is None:
            return
        sums = replace(mask, name=("masked",), address=job.workspace.masked.address)
        with job.rows.use(mask) as (start,):
            target = Block(job.rows.create(sums), mask.count)
            for group in layer.y.groups:
                with job.rows.use(sums, self.panel(layer, group)) as (_, bias):
                    part = range(group.start, group.stop)
                    job.op(VectorOp.ADD, target.part(0, 1, part), Block(start, mask.count).part(0, 1, part),
                           Block(bias, len(group)))
        job.rows.drop(mask)

    def _start(self, layer, group):
        """The panel that sums of a group begin with, and the row of its first tile; None if it is zero."""
        if self._masked and layer is self._job.plan.layers[-1]:
            panel = self._masked_panel()
            if layer.bias is not None:
                panel = replace(panel, name=("masked",), address=self._job.workspace.masked.address)
            return panel, group.start
        return None if layer.bias is None else (self.panel(layer, group), 0)

    def prepare(self, layer, batch, group):
        """Emit what :meth:`begin` will give, ahead of time."""
        job = self._job
        sums = Block(job.allocate_sums(len(group) * batch.pitch), batch.rows, len(group), batch.pitch)
        parts = [part for part in layer.y.groups if part.start in group]
        starts = [self._start(layer, part) for part in parts]
        for part, start in zip(parts, starts, strict=True):
            if start is None:
                continue
            with job.rows.use(start[0]) as (first,):
                for i, tile in enumerate(part):
                    row = Block(first + start[1] + i, 1).spread(rows=batch.rows)
                    job.op(VectorOp.MOVE, sums.part(tile - group.start, 1), row)
        self._prepared[layer.index, batch.index, group.start] = sums, starts[0] is not None

    def begin(self, layer, batch, group):
        """Rows for the sums of one group of outputs, holding the bias: the block, and whether it holds anything."""
        key = layer.index, batch.index, group.start
        if key not in self._prepared:
            self.prepare(layer, batch, group)
        return self._prepared.pop(key)


class Inputs:
    """Brings the input of the network on chip, panel after panel, a few ahead of their use."""

    def __init__(self, job):
        self._job = job
        self._order = [(batch, group) for batch in job.batches for group in job.plan.layers[0].x.groups]
        self._done = 0

    def ready(self, batch, group, ahead=0):
        """Make the panel, and ``ahead`` more in the order of the forward pass."""
        last = self._order.index((batch, group)) + ahead
        while self._done <= min(last, len(self._order) - 1):
            self._make(*self._order[self._done])
            self._done += 1

    def _make(self, batch, group):
        job, n = self._job, self._job.n
        size = 1 if job.pixels else 4
        tensor = job.workspace.pixels if job.pixels else job.workspace.features
        start = job.tiles.create(job.x[0].panel(batch, group))
        count = max(1, _INPUT_ROWS // batch.rows)
        for first in range(0, len(group), count):
            tiles = min(count, len(group) - first)
            place = start + first * batch.tiles, batch.tiles
            with job.temporary(batch.rows, tiles, batch.rows) as rows:
                job.program.load(
                    format=DataFormat.UINT8 if job.pixels else DataFormat.FLOAT32, local=rows.start,
                    address=tensor.address + ((group.start + first) * job.samples + batch.start) * n * size,
                    run=batch.rows * n, count0=tiles, stride0=job.samples * n * size)
                if job.pixels:
                    job.op(VectorOp.MUL_SCALAR, None, rows, scalar=1 / 255, tile=place)
                else:
                    job.op(VectorOp.MOVE, None, rows, tile=place)


def forward(job, layer, batch, offsets, finish, inputs=None, following=()):
    """Thread: one layer for one block. Where a softmax follows, the thread's value is the block of sums of all
    outputs, for the caller to free.

    Parameters
    ----------
    finish : callable or None
        ``finish(group, sums, tile)`` emits what happens to each tile of a group of sums (a :class:`Block`), when it is
        complete, and returns the estimated time. ``sums`` are free after the last tile.
    inputs : Inputs, optional
        For the first layer: brings its panels.
    following : list of (Layer, Batch)
        What the array does next; their sums are prepared before this layer's end.
    """
    plan, x = job.plan, job.x[layer.index]
    groups = output_groups(job, layer)
    for group in groups:
        sums, begun = offsets.begin(layer, batch, group)
        for x_group in layer.x.groups:
            final = x_group is layer.x.groups[-1]
            if inputs is not None:
                inputs.ready(batch, x_group)
            for part in [part for part in layer.y.groups if part.start in group]:
                panels = x.panel(batch, x_group), plan.weight_panel(layer, x_group, part)
                with job.tiles.use(*panels) as (streamed, stationary):
                    for i, tile in enumerate(part):
                        yield job.program.matrix(
                            rows=batch.rows, k_tiles=len(x_group), x=streamed, x_row_stride=1,
                            x_k_stride=batch.tiles, w=stationary + i * len(x_group), w_k_stride=1,
                            y=sums.start + (tile - group.start) * sums.pitch, accumulate=begun)
                        if tile == group.start:
                            if inputs is not None:
                                inputs.ready(batch, x_group, ahead=2)
                            if final and group is groups[-1]:
                                for next_layer, next_batch in following:
                                    offsets.prepare(next_layer, next_batch, output_groups(job, next_layer)[0])
                        if final and finish is not None:
                            yield finish(group, sums, tile)
            begun = True
        if layer is plan.layers[-1] and job.softmax:
            return sums
        job.free(sums)
    return None


def output_groups(job, layer):
    """The ranges of output tiles whose sums are made together: the groups of the boundary, or all where a softmax
    follows."""
    if layer is job.plan.layers[-1] and job.softmax:
        return [range(layer.y.tiles)]
    return layer.y.groups


def activate(job, layer, batch, group, sums, tile):
    """ReLU and quantization of one panel of sums, for :func:`forward`."""
    i = tile - group.start
    panel = job.x[layer.index + 1].panel(batch, group)
    place = job.tiles.create(panel) + i * batch.tiles, 0
    saved = None
    if layer.relu and job.training:
        saved = Block(job.rows.create(job.saved(layer, batch, tile)), batch.rows)
    if tile == group.start:
        job.tiles.pin(panel)
    if tile == group.stop - 1:
        job.tiles.unpin(panel)
    if layer.relu:
        return job.op(VectorOp.MAX_SCALAR, saved, sums.part(i, 1), scalar=0.0, tile=place)
    return job.op(VectorOp.MOVE, None, sums.part(i, 1), tile=place)


def input_gradient(job, layer, batch, finish, after):
    """Thread: the gradient of the inputs of ``layer`` for one block, group by group.

    ``finish(group, sums, tile)`` emits what happens to each tile of a group of sums, when it is complete, and returns
    the estimated time; ``after(group, sums)`` is a thread for the whole group.
    """
    for x_group in layer.x.groups:
        sums = Block(job.allocate_sums(len(x_group) * batch.pitch), batch.rows, len(x_group), batch.pitch)
        for y_group in layer.y.groups:
            panels = job.dy_streamed[layer.index].panel(batch, y_group), job.plan.weight_panel(layer, x_group, y_group)
            with job.tiles.use(*panels) as (streamed, stationary):
                for i, tile in enumerate(x_group):
                    yield job.program.matrix(
                        rows=batch.rows, k_tiles=len(y_group), x=streamed, x_row_stride=1, x_k_stride=batch.tiles,
                        w=stationary + i, w_k_stride=len(x_group), w_transpose=1, y=sums.start + i * sums.pitch,
                        accumulate=y_group.start > 0)
                    if y_group is layer.y.groups[-1]:
                        yield finish(x_group, sums, tile)
        yield from after(x_group, sums)
        job.free(sums)
