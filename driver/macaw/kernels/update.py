"""Weight gradients and the update of the weights, chunk by chunk: a chunk is one group of input features by N outputs.

Gradients never leave the chip: a chunk's sums become new float32 weights and new tiles in one instruction, while the
array works on the next chunk. The new float32 weights of the last chunks stay on chip when the step ends
(:class:`Left`): nothing waits for their stores then, and the next step stores them while the bus has nothing else to
write.
"""

from dataclasses import dataclass

from macaw_hw.isa import DataFormat, VectorOp

from .context import Block

__all__ = ["Chunk", "Left", "Prefetch", "Weights", "chunks", "free_left", "store_left", "update_offsets",
           "update_weights", "weight_gradient"]

_WEIGHTS_AHEAD = 3
"""Chunks whose float32 weights are on chip or on their way, where there is room."""
_CLAIM_AHEAD = 6
"""Chunks that stay on chip take their rows, as these become free, from so many chunks before their update on."""


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


@dataclass(frozen=True)
class Left:
    """float32 weights that are newer on chip than in their homes.

    Attributes
    ----------
    start, rows, count : int
        First row in the vector memory, rows of each part, and parts.
    address, stride : int
        Byte address of the home of the first part, and bytes from one home to the next.
    """
    start: int
    rows: int
    count: int
    address: int
    stride: int

    def store(self, program):
        """Emit the store; gives the estimated time at which it is done."""
        return program.store(format=DataFormat.FLOAT32, address=self.address, local=self.start,
                             run=self.rows * program.config.size, count0=self.count, stride0=self.stride)


def store_left(job):
    """Emit the stores of what the step before has left; gives the estimated time at which they are done. The rows are
    free after :func:`free_left`."""
    stored = 0
    for left in job.left:
        taken = not job.rows.allocator.claim(left.start, left.rows * left.count)
        assert not taken, "what the step before has left must come first"
        stored = left.store(job.program)
    return stored


def free_left(job):
    """Give up the rows of :func:`store_left`, late enough for nothing to wait for those stores."""
    for left in job.left:
        job.rows.free(left.start, left.rows * left.count)


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


def weight_gradient(job, chunk, batch, sums):
    """Emit the products of one block of the batch; the first one begins the sums of a chunk, the others add to them."""
    layer = chunk.layer
    panels = job.x[layer.index].panel(batch, chunk.x_group), job.dy[layer.index].panel(batch, chunk.y_group)
    with job.tiles.use(*panels) as (streamed, stationary):
        return job.program.matrix(
            rows=chunk.rows, k_tiles=batch.tiles, x=streamed, x_transpose=1, x_row_stride=batch.tiles,
            x_k_stride=1, w=stationary + (chunk.tile - chunk.y_group.start) * batch.tiles, w_k_stride=1,
            y=sums.start, accumulate=batch.index > 0)


class Weights:
    """The float32 weights of chunks, on their way to their update.

    Parameters
    ----------
    job : Job
    todo : list of Chunk
        All chunks in their order.
    """

    def __init__(self, job, todo):
        self._job, self._todo, self._loaded = job, list(todo), {}
        self._staying = {} if job.thrift else self._places()
        self._missing = {chunk: self._rows(chunk) for chunk in self._staying}
        self._left = []

    def _places(self):
        """Rows for the last chunks: up to half of each bank, the banks in turns."""
        depth = self._job.config.vector_bank_rows
        used, places = dict.fromkeys(self._job.others, 0), {}
        for chunk in self._todo[::-1]:
            bank = min(used, key=used.get)
            if used[bank] + chunk.rows > depth // 2:
                break
            places[chunk] = bank * depth + used[bank]
            used[bank] += chunk.rows
        return places

    def _rows(self, chunk):
        """Where a chunk stays."""
        return range(self._staying[chunk], self._staying[chunk] + chunk.rows)

    def _claimants(self):
        """Chunks that will stay on chip, are not loaded yet, and whose time is near."""
        return [chunk for chunk in self._todo[:_CLAIM_AHEAD] if chunk in self._staying and chunk not in self._loaded]

    def _claim(self):
        """Take the rows for what stays on chip as they become free."""
        claim = self._job.rows.allocator.claim
        for chunk in self._claimants():
            self._missing[chunk] = [row for row in self._missing[chunk] if not claim(row, 1)]

    def _unclaim(self, chunks):
        """Give those rows back."""
        for chunk in chunks:
            for row in set(self._rows(chunk)).difference(self._missing[chunk]):
                self._job.rows.free(row, 1)
            self._missing[chunk] = self._rows(chunk)

    def _place(self, chunk, anyway):
        """Rows for a chunk: where it stays, if all of them are free by now, or elsewhere."""
        if chunk in self._staying:
            if not self._missing[chunk]:
                return self._staying[chunk]
            self._unclaim([chunk])
            del self._staying[chunk]
        start = self._job.allocate_other(chunk.rows, anyway=False)
        if start is None and (anyway or len(self._loaded) < 2):
            # Nothing would be on its way: there is too little room for anything to stay.
            self._unclaim(self._claimants())
            start = self._job.allocate_other(chunk.rows, anyway=anyway)
        return start

    def ahead(self, first=None):
        """Emit the loads of the first chunks that are not updated yet: that of ``first`` in any case, the others while
        there is room without evicting anything."""
        self._claim()
        for chunk in self._todo[:_WEIGHTS_AHEAD]:
            if chunk not in self._loaded:
                start = self._place(chunk, anyway=chunk is first)
                if start is None:
                    return
                self._loaded[chunk] = Block(start, chunk.rows, pitch=chunk.rows)
                self._job.program.load(format=DataFormat.FLOAT32, address=self._home(chunk), local=start,
                                       run=chunk.rows * self._job.n)

    @property
    def short(self):
        """There was no room for the loads of all chunks that are due."""
        return any(chunk not in self._loaded for chunk in self._todo[:_WEIGHTS_AHEAD])

    def _home(self, chunk):
        row = chunk.tile * chunk.layer.x.features + chunk.x_group.start * self._job.n
        return chunk.layer.master.address + row * self._job.config.row_bytes

    def take(self, chunk):
        """The rows of a chunk, to be given to :meth:`done` when its new weights are there."""
        self.ahead(chunk)
        self._todo.remove(chunk)
        return self._loaded[chunk]

    def done(self, chunk):
        """Emit the store of the new weights, or leave them on chip."""
        job, weights = self._job, self._loaded.pop(chunk)
        if chunk in self._staying:
            self._left.append((weights.start, chunk.rows, self._home(chunk)))
            return
        job.program.store(format=DataFormat.FLOAT32, address=self._home(chunk), local=weights.start,
                          run=chunk.rows * job.n)
        job.free(weights)

    @property
    def left(self):
        """What stays on chip, a tuple of :class:`Left`."""
        parts = []
        for start, rows, address in sorted(self._left):
            last = parts[-1] if parts else None
            if last and rows == last.rows and start == last.start + rows * last.count and (
                    last.count == 1 or address == last.address + last.stride * last.count):
                stride = (address - last.address) // last.count
                parts[-1] = Left(last.start, rows, last.count + 1, last.address, stride)
            else:
                parts.append(Left(start, rows, 1, address, 0))
        return tuple(parts)


def update_weights(job, chunk, sums, weights, rate):
    """Emit the update of a chunk, ``w = g * (-rate) + w``, and store the new weights (the tiles only where they
    do not stay on chip)."""
    panel = job.plan.weight_panel(chunk.layer, chunk.x_group, chunk.y_group)
    first = job.tiles.create(panel, dirty=False)
    if chunk.tile == chunk.y_group.start:
        job.tiles.pin(panel)
    offset = (chunk.tile - chunk.y_group.start) * len(chunk.x_group)
    rows = weights.take(chunk)
    job.op(VectorOp.SCALE_ADD, rows, sums, rows, scalar=-rate, tile=(first + offset, 0))
    weights.done(chunk)
    if not job.resident:
        job.program.store(format=DataFormat.BFP8, address=panel.address + offset * job.config.tile_bytes,
                          local=first + offset, run=len(chunk.x_group))
    if chunk.tile == chunk.y_group.stop - 1:
        job.tiles.unpin(panel)
    job.free(sums)


def update_offsets(job, groups, offsets, gradients, rate):
    """Emit the update of the biases of ``groups``, pairs (layer, group), and store them. Returns the estimated
    time."""
    time = 0
    for layer, group in groups:
        if layer.bias is not None:
            home, gradient = offsets.panel(layer, group), gradients.panel(layer, group)
            with job.rows.use(home, gradient) as places:
                rows, change = (Block(place, len(group)) for place in places)
                job.op(VectorOp.SCALE_ADD, rows, change, rows, scalar=-rate)
                time = job.program.store(format=DataFormat.FLOAT32, address=home.address, local=rows.start,
                                         run=rows.rows * job.n)
            job.rows.drop(home)
            job.rows.drop(gradient)
    return time
