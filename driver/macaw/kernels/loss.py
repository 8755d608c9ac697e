"""Softmax, and cross entropy with its gradient, for one block of the batch."""

from dataclasses import replace

from macaw_hw.isa import DataFormat, VectorOp

from .context import Block
from .math import exp, lane_reduce, log, reciprocal

__all__ = ["Scratch", "cross_entropy", "softmax", "store_rows", "targets"]


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

    _WIDE = ("plain", "scaled", "probabilities", "shifted", "t", "n")
    _NARROW = ("total", "peak", "inverse", "u")

    def __init__(self, job):
        self._job, self._tiles = job, job.plan.layers[-1].y.tiles
        pitch = job.batches[0].pitch
        self._blocks = {name: Block(job.rows.allocate(panels * pitch, job.others, long=True), pitch, panels, pitch)
                        for names, panels in ((self._WIDE, self._tiles), (self._NARROW, 1)) for name in names}

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
    """Bring the one-hot rows of one block on chip: as float32, and the same times -1 / samples."""
    n = job.n
    plain, scaled = scratch(batch, "plain", "scaled")
    for panel in range(plain.panels):
        job.program.load(
            format=DataFormat.UINT8, local=plain.start + panel * plain.pitch, run=batch.rows * n,
            address=job.workspace.targets.address + (panel * job.samples + batch.start) * n)
    job.op(VectorOp.MUL_SCALAR, scaled, plain, scalar=-1 / job.samples)


def _probabilities(job, batch, logits, scratch):
    """``probabilities`` = softmax of ``logits``, row by row; also leaves logits minus their largest in ``shifted`` and
    the sum of their exponentials in ``total``."""
    probabilities, shifted, t, n = scratch(batch, "probabilities", "shifted", "t", "n")
    total, peak, inverse = scratch(batch, "total", "peak", "inverse")
    yield from lane_reduce(job, VectorOp.MAX, peak, logits)
    yield job.op(VectorOp.SUB, shifted, logits, peak.spread(panels=logits.panels))
    yield from exp(job, probabilities, shifted, t, n)
    yield from lane_reduce(job, VectorOp.ADD, total, probabilities)
    yield from reciprocal(job, inverse, total, peak)
    yield job.op(VectorOp.MUL, probabilities, probabilities, inverse.spread(panels=logits.panels))


def softmax(job, batch, logits, scratch):
    """Thread: the outputs of one block become ``exp(x - max) / sum``, and are stored."""
    yield from _probabilities(job, batch, logits, scratch)
    yield store_rows(job, job.workspace.outputs, 0, *scratch(batch, "probabilities"), batch)


def cross_entropy(job, batch, logits, scratch, finish):
    """Thread: loss and gradient of one block, whose :func:`targets` are on chip.

    The gradient of the mean loss is ``p * (1 / B) + onehot * (-1 / B)``. It is made in a block that
    ``finish(block, emit)`` quantizes: ``emit(group, tile)`` computes one group of it. Outputs and the loss of each
    sample, ``log(sum(exp(x - max))) - (x[label] - max)``, are stored.
    """
    plain, scaled, probabilities, shifted, t, n = scratch(batch, *Scratch._WIDE)
    total, peak, inverse, u = scratch(batch, *Scratch._NARROW)
    yield from _probabilities(job, batch, logits, scratch)

    def emit(group, tile):
        gradient, p, s = (block.part(group.start, len(group)) for block in (t, probabilities, scaled))
        return job.op(VectorOp.SCALE_ADD, gradient, p, s, scalar=1 / job.samples, tile=tile)
    yield from finish(t, emit)

    store_rows(job, job.workspace.outputs, 0, logits, batch)
    yield job.op(VectorOp.MUL, shifted, shifted, plain)
    yield from lane_reduce(job, VectorOp.ADD, peak, shifted)
    yield from log(job, inverse, total, u, n.part(0, 1))
    yield job.op(VectorOp.SUB, inverse, inverse, peak)
    yield job.program.store(format=DataFormat.FLOAT32, local=inverse.start, run=batch.rows * job.n,
                            address=job.workspace.losses.address + batch.start * job.config.row_bytes)
