"""Linear layers: forward product, input gradient, weight gradient.

Order of additions (all float32, independent of the tiling): ``Y`` starts with the bias and adds the products of input
tiles in ascending order; ``dX`` adds output tiles in ascending order; ``dW`` adds tiles of N samples in ascending
order.
"""

from dataclasses import replace

from macaw_hw.isa import DataFormat, VectorOp

from ..memory import Panel
from .context import Block, Sums

__all__ = ["Inputs", "Offsets", "activate", "forward", "input_gradient", "output_groups"]


_SHORT = 128
"""Products of fewer cycles than this are not worth the array's turning to something else in between."""
_INPUT_ROWS = 160
"""Vector rows of input that are loaded and quantized at a time."""


class Offsets:
    """Bias rows, and the sums that begin with them. Those of the outputs carry the mask of the padding lanes if there
    is a softmax."""

    def __init__(self, job):
        self._job, self._prepared = job, {}
        self._masked = job.softmax and job.plan.layers[-1].y.features % job.n != 0
        self._summed = False

    def panel(self, layer, group):
        """The bias of one group of outputs."""
        return Panel(("bias", layer.index, group.start), len(group),
                     layer.offsets.address + group.start * self._job.config.row_bytes, self._job.others, long=True)

    def _masked_panel(self):
        return Panel(("mask",), self._job.plan.layers[-1].y.tiles, self._job.workspace.mask.address, self._job.others,
                     long=True)

    def drop(self):
        """Forget the masked bias: no more sums begin."""
        self._job.rows.drop(replace(self._masked_panel(), name=("masked",)))

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
            if not self._summed:
                self._mask()
                self._summed = True
            if layer.bias is not None:
                panel = replace(panel, name=("masked",), address=self._job.workspace.masked.address)
            return panel, group.start
        return None if layer.bias is None else (self.panel(layer, group), 0)

    def new(self, layer, batch, group):
        """Rows for the sums of one group of outputs, still empty."""
        job = self._job
        if layer is job.plan.layers[-1] and job.softmax:
            return Sums(job.scratch(batch)("logits"))
        return job.new_sums(batch.rows, len(group), batch.pitch)

    def fill(self, layer, batch, group, sums, tile):
        """Emit the bias into the sums of one tile. Returns whether there is any."""
        part = next(part for part in layer.y.groups if tile in part)
        start = self._start(layer, part)
        if start is not None:
            with self._job.rows.use(start[0]) as (row,):
                bias = Block(row + start[1] + tile - part.start, 1).spread(rows=batch.rows)
                self._job.op(VectorOp.MOVE, sums.tile(tile - group.start), bias)
        return start is not None

    def prepare(self, layer, batch, group):
        """Emit the sums of a group with the bias in all of them, ahead of time, if there is room."""
        job = self._job
        logits = job.softmax and layer is job.plan.layers[-1]
        if not logits and (job.thrift or job.room_for_sums() < len(group) * batch.pitch):
            return
        sums, begun = self.new(layer, batch, group), False
        for first in [part for part in layer.y.groups if part.start in group]:
            start = self._start(layer, first)
            if start is None:
                continue
            begun = True
            with job.rows.use(start[0]) as (row,):
                for offset, panels, part in _of(sums, first.start - group.start, len(first)):
                    bias = Block(row + start[1] + offset, batch.rows, panels.panels, part, step=0)
                    job.op(VectorOp.MOVE, panels, bias)
        self._prepared[layer.index, batch.index, group.start] = sums, begun

    def begin(self, layer, batch, group):
        """What :meth:`prepare` has made, and whether the sums hold anything; or None."""
        return self._prepared.pop((layer.index, batch.index, group.start), None)


def _of(sums, first, count):
    """The tiles ``first`` to ``first + count - 1`` of sums as (offset of the first tile, block, tiles between)."""
    if len(sums.parts) == 1:
        return [(0, sums.parts[0].part(first, count), 1)]
    assert first == 0, "sums in two banks are of one group"
    return [(offset, part, len(sums.parts)) for offset, part in enumerate(sums.parts)]


class Inputs:
    """Brings the input of the network on chip, panel after panel, a few ahead of their use. Panels that had to give way
    are made again from the batch when they are needed again."""

    def __init__(self, job):
        self._job = job
        self._order = [(batch, group) for batch in job.batches for group in job.plan.layers[0].x.groups]
        self._done = 0
        job.x[0].make = self._make

    def ready(self, batch, group, ahead=0):
        """Make the panel, and ``ahead`` more in the order of the forward pass."""
        last = self._order.index((batch, group)) + ahead
        while self._done <= min(last, len(self._order) - 1):
            self._make(*self._order[self._done])
            self._done += 1

    def look_ahead(self, batch, group, tile, tiles):
        """Make panels ahead of time, after the product of a panel with the weights of one of so many tiles.

        In the beginning, when the lanes have to prepare sums as well, one panel ahead; later two, and then two more
        each time as long as there is plenty of room: the lanes are less busy now than they are later. But not where
        the weights are loaded as well, which would have to wait.
        """
        if batch.index == group.start == 0:
            if tile == tiles // 2:
                self.ready(batch, group, ahead=1)
        elif tile == 0:
            self.ready(batch, group, ahead=2)
        first = sum(map(len, self._job.plan.layers[0].x.groups[:2]))
        if self._job.resident and tile in (0, tiles // 2) and group.stop > first:
            self._more()

    def _more(self):
        job = self._job
        room = job.tiles.allocator.available(job.plan.streamed)
        if self._done < len(self._order) and 4 * room > len(job.plan.streamed) * job.config.tile_bank_tiles:
            self._make(*self._order[self._done])
            self._done += 1

    def _make(self, batch, group):
        job, n = self._job, self._job.n
        size = 1 if job.pixels else 4
        tensor = job.workspace.pixels if job.pixels else job.workspace.features
        start = job.tiles.create(job.x[0].panel(batch, group))
        count = max(1, _INPUT_ROWS // batch.rows) if self._done else 1
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
    """Thread: one layer for one block. Where a softmax follows, the sums of all outputs become the block ``logits``.

    Parameters
    ----------
    finish : callable or None
        ``finish(group, sums, tile)`` emits what happens to each tile of a group of :class:`Sums`, when it is
        complete, and returns the estimated time. ``sums`` are free after the last tile.
    inputs : Inputs, optional
        For the first layer: brings its panels.
    following : list of (Layer, Batch)
        What the array does next; their sums are prepared before this layer's end.
    """
    plan, x = job.plan, job.x[layer.index]
    groups = output_groups(job, layer)
    for group in groups:
        prepared = offsets.begin(layer, batch, group)
        sums, begun = prepared or (offsets.new(layer, batch, group), False)
        if prepared is None:
            begun = offsets.fill(layer, batch, group, sums, group.start)
        for x_group in layer.x.groups:
            final = x_group is layer.x.groups[-1]
            if inputs is not None:
                inputs.ready(batch, x_group)
            for part in [part for part in layer.y.groups if part.start in group]:
                panels = x.panel(batch, x_group), plan.weight_panel(layer, x_group, part)
                with job.tiles.use(*panels) as (streamed, stationary):
                    for i, tile in enumerate(part):
                        if prepared is None and x_group.start == 0 and tile > group.start:
                            offsets.fill(layer, batch, group, sums, tile)
                        yield job.program.matrix(
                            rows=batch.rows, k_tiles=len(x_group), x=streamed, x_row_stride=1,
                            x_k_stride=batch.tiles, w=stationary + i * len(x_group), w_k_stride=1,
                            y=sums.tile(tile - group.start).start, accumulate=begun)
                        if inputs is not None:
                            inputs.look_ahead(batch, x_group, tile - group.start, len(group))
                        if tile == group.start and final and group is groups[-1]:
                            for after, block in following:
                                offsets.prepare(after, block, output_groups(job, after)[0])
                        if final and finish is not None:
                            yield finish(group, sums, tile)
                if layer.index == 0:
                    job.last_use(batch, panels[1])
            if job.training and not job.streaming:
                job.tiles.later(x.panel(batch, x_group), job.turn(layer, x_group))
            begun = True
        if finish is not None:
            job.free(sums)
    if not job.training:
        for x_group in layer.x.groups:
            job.tiles.drop(x.panel(batch, x_group))


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
        rows = job.gradient(layer, batch, group)
        saved = Block(job.rows.create(rows) + i * batch.pitch, batch.rows)
        _pin(job.rows, rows, tile, group)
    _pin(job.tiles, panel, tile, group)
    if layer.relu:
        return job.op(VectorOp.MAX_SCALAR, saved, sums.tile(i), scalar=0.0, tile=place)
    return job.op(VectorOp.MOVE, None, sums.tile(i), tile=place)


def _pin(cache, panel, tile, group):
    """Keep a panel that is made tile by tile from the first tile to the last."""
    if tile == group.start:
        cache.pin(panel)
    if tile == group.stop - 1:
        cache.unpin(panel)


def input_gradient(job, layer, batch, finish):
    """Thread: the gradient of the inputs of ``layer`` for one block, group by group. ``finish(group, sums)`` is a
    thread for what happens to each group."""
    for x_group in layer.x.groups:
        sums = job.new_sums(batch.rows, len(x_group), batch.pitch)
        order = sorted(range(len(x_group)), key=lambda i: i % len(sums.parts))
        for y_group in layer.y.groups:
            panels = job.dy_streamed[layer.index].panel(batch, y_group), job.plan.weight_panel(layer, x_group, y_group)
            with job.tiles.use(*panels) as (streamed, stationary):
                for i in order:
                    time = job.program.matrix(
                        rows=batch.rows, k_tiles=len(y_group), x=streamed, x_row_stride=1, x_k_stride=batch.tiles,
                        w=stationary + i, w_k_stride=len(x_group), w_transpose=1, y=sums.tile(i).start,
                        accumulate=y_group.start > 0)
                    if batch.rows * len(y_group) >= _SHORT:
                        yield time
            job.last_use(batch, panels[1])
        yield from finish(x_group, sums)
        job.free(sums)
    for y_group in layer.y.groups:
        job.tiles.drop(job.dy_streamed[layer.index].panel(batch, y_group))
