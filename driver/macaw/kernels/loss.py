"""Softmax, and cross entropy with its gradient, for one block of the batch."""

from dataclasses import replace

from macaw_hw.isa import DataFormat, VectorOp

from .context import Block
from .math import exp, lane_reduce, log, reciprocal

__all__ = ["Scratch", "cross_entropy", "losses", "softmax", "store_rows", "targets"]


def store_rows(job, tensor, first, block, batch):
    """Store panels of one block of the batch into a float32 tensor [tiles][samples][N], from tile ``first`` on."""
    if block.pitch == block.rows or block.panels == 1:
        runs = ((0, block.panels),)
    else:
        runs = tuple((panel, 1) for panel in range(block.panels))
    n, done = job.n, 0
    for panel, count in runs:
        done = job.program.store(
            format=DataFormat.FLOAT32, local=block.start + panel * block.pitch, run=batch.rows * n, count0=count,
            address=tensor.address + ((first + panel) * job.samples + batch.start) * n * 4,
            stride0=job.samples * n * 4)
    return done


class Scratch:
    """Vector rows for the softmax of one block at a time, on chip from the first block to the last."""

    # Name, and whether it is better in the first bank or in the last: operands of one instruction should differ.
    _WIDE = {"logits": 0, "probabilities": 0, "n": 0, "shifted": 0, "t": 1, "scaled": 1}
    _NARROW = {"total": 0, "peak": 0, "u": 0, "inverse": 1}

    def __init__(self, job):
        self._job, tiles = job, job.plan.layers[-1].y.tiles
        pitch = max(batch.pitch for batch in job.batches)
        banks = range(job.others.start, job.others.start + 1), range(job.others.stop - 1, job.others.stop)
        self._blocks = {}
        for names, panels in ((self._WIDE, tiles), (self._NARROW, 1)):
            for name, side in names.items():
                start = job.rows.allocator.allocate(panels * pitch, banks[side], long=True)
                if start is None:
                    start = job.rows.allocate(panels * pitch, job.others, long=True)
                self._blocks[name] = Block(start, pitch, panels, pitch)

    @staticmethod
    def rows(tiles):
        """Vector rows that it needs for each sample of a block."""
        return len(Scratch._WIDE) * tiles + len(Scratch._NARROW)

    def __call__(self, batch, *names):
        """Blocks of the shape of a batch, by name."""
        return [replace(self._blocks[name], rows=batch.rows, pitch=batch.pitch) for name in names]

    def free(self):
        for block in self._blocks.values():
            self._job.free(block)


def targets(job, batch, scratch):
    """Bring the one-hot rows of one block on chip, times -1 / samples."""
    scaled, = scratch(batch, "scaled")
    _load_targets(job, batch, scaled)
    job.op(VectorOp.MUL_SCALAR, scaled, scaled, scalar=-1 / job.samples)


def _load_targets(job, batch, block):
    for panel in range(block.panels):
        job.program.load(
            format=DataFormat.UINT8, local=block.start + panel * block.pitch, run=batch.rows * job.n,
            address=job.workspace.targets.address + (panel * job.samples + batch.start) * job.n)


def _probabilities(job, batch, scratch):
    """``probabilities`` = softmax of ``logits``, row by row; also leaves logits minus their largest in ``shifted`` and
    the sum of their exponentials in ``total``."""
    logits, probabilities, shifted, t, n = scratch(batch, "logits", "probabilities", "shifted", "t", "n")
    total, peak, inverse = scratch(batch, "total", "peak", "inverse")
    yield from lane_reduce(job, VectorOp.MAX, peak, logits)
    yield job.op(VectorOp.SUB, shifted, logits, peak.spread(panels=logits.panels))
    yield from exp(job, probabilities, shifted, t, n)
    yield from lane_reduce(job, VectorOp.ADD, total, probabilities)
    yield from reciprocal(job, inverse, total, peak)
    yield job.op(VectorOp.MUL, probabilities, probabilities, inverse.spread(panels=logits.panels))


def softmax(job, batch, scratch):
    """Thread: the outputs of one block become ``exp(x - max) / sum``, and are stored."""
    yield from _probabilities(job, batch, scratch)
    yield store_rows(job, job.workspace.outputs, 0, *scratch(batch, "probabilities"), batch)


def cross_entropy(job, batch, scratch, finish):
    """Thread: the gradient of one block, whose :func:`targets` are on chip.

    The gradient of the mean loss is ``p * (1 / B) + onehot * (-1 / B)``. It is made in a block that the thread
    ``finish(block, emit)`` quantizes: ``emit(group, tile)`` computes one group of it. Its value is the thread's value.
    """
    probabilities, scaled, t = scratch(batch, "probabilities", "scaled", "t")
    yield from _probabilities(job, batch, scratch)

    def emit(group, tile):
        gradient, p, s = (block.part(group.start, len(group)) for block in (t, probabilities, scaled))
        return job.op(VectorOp.SCALE_ADD, gradient, p, s, scalar=1 / job.samples, tile=tile)
    return (yield from finish(t, emit))


def losses(job, batch, scratch):
    """Thread: store the outputs and the loss of each sample, ``log(sum(exp(x - max))) - (x[label] - max)``, after
    :func:`cross_entropy`."""
    logits, shifted, u, onehot = scratch(batch, "logits", "shifted", "u", "n")
    total, peak, inverse = scratch(batch, "total", "peak", "inverse")
    _load_targets(job, batch, onehot)
    store_rows(job, job.workspace.outputs, 0, logits, batch)
    yield job.op(VectorOp.MUL, shifted, shifted, onehot)
    yield from lane_reduce(job, VectorOp.ADD, peak, shifted)
    yield from log(job, inverse, total, u, onehot.part(0, 1))
    yield job.op(VectorOp.SUB, inverse, inverse, peak)
    yield job.program.store(format=DataFormat.FLOAT32, local=inverse.start, run=batch.rows * job.n,
                            address=job.workspace.losses.address + batch.start * job.config.row_bytes)
