"""Softmax, and cross entropy with its gradient, for one block of the batch."""

from macaw_hw.isa import DataFormat, VectorOp

from .context import Block
from .math import exp, lane_reduce, log, reciprocal

__all__ = ["Scratch", "cross_entropy", "losses", "offset_gradients", "softmax", "store_rows", "targets"]


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
    """Vector rows for the softmax of one block of the batch, by name: each from its first use until :meth:`free`."""

    # Better in the first bank (0) or in the last (-1): operands of one instruction should differ.
    _WIDE = {"logits": 0, "probabilities": 0, "n": 0, "shifted": 0, "onehot": -1, "t": -1}
    _NARROW = {"total": 0, "peak": 0, "inverse": -1, "u": 0, "e": -1}

    def __init__(self, job, batch):
        self._job, self._batch, self._blocks = job, batch, {}

    @staticmethod
    def rows(tiles):
        """Vector rows that it needs for each sample of a block."""
        return len(Scratch._WIDE) * tiles + 2

    def __call__(self, *names):
        """Blocks by name."""
        return [self._blocks.get(name) or self._new(name) for name in names]

    def _new(self, name):
        job, batch = self._job, self._batch
        panels = job.plan.layers[-1].y.tiles if name in self._WIDE else 1
        bank = job.others[(self._WIDE | self._NARROW)[name]]
        start = job.rows.allocator.allocate(panels * batch.pitch, range(bank, bank + 1), long=True)
        if start is None:
            start = job.rows.allocate(panels * batch.pitch, job.others, long=True)
        block = self._blocks[name] = Block(start, batch.rows, panels, batch.pitch)
        return block

    def free(self, *names):
        for name in names:
            self._job.free(self._blocks.pop(name))


def targets(job, batch):
    """Bring the one-hot rows of one block on chip."""
    onehot, = job.scratch(batch)("onehot")
    for panel in range(onehot.panels):
        job.program.load(
            format=DataFormat.UINT8, local=onehot.start + panel * onehot.pitch, run=batch.rows * job.n,
            address=job.workspace.targets.address + (panel * job.samples + batch.start) * job.n)


def _probabilities(job, scratch):
    """Thread: ``probabilities`` = softmax of ``logits``, row by row; also leaves logits minus their largest in
    ``shifted`` and the sum of their exponentials in ``total``."""
    logits, shifted, peak = scratch("logits", "shifted", "peak")
    yield from lane_reduce(job, VectorOp.MAX, peak, logits)
    yield job.op(VectorOp.SUB, shifted, logits, peak.spread(panels=logits.panels))
    probabilities, t, n = scratch("probabilities", "t", "n")
    yield from exp(job, probabilities, shifted, t, n)
    scratch.free("t", "n")
    total, inverse = scratch("total", "inverse")
    yield from lane_reduce(job, VectorOp.ADD, total, probabilities)
    yield from reciprocal(job, inverse, total, peak)
    yield job.op(VectorOp.MUL, probabilities, probabilities, inverse.spread(panels=logits.panels))
    scratch.free("peak", "inverse")


def softmax(job, batch):
    """Thread: the outputs of one block become ``exp(x - max) / sum``, and are stored."""
    scratch = job.scratch(batch)
    yield from _probabilities(job, scratch)
    yield store_rows(job, job.workspace.outputs, 0, *scratch("probabilities"), batch)
    scratch.free("logits", "probabilities", "shifted", "total")


def cross_entropy(job, batch, finish):
    """Thread: the gradient of one block, whose :func:`targets` are on chip; the outputs are stored.

    The gradient of the mean loss is ``p * (1 / B) + onehot * (-1 / B)``. It is made in a block that the thread
    ``finish(block, emit)`` quantizes: ``emit(group, tile)`` computes one group of it.
    """
    scratch = job.scratch(batch)
    logits, onehot = scratch("logits", "onehot")
    store_rows(job, job.workspace.outputs, 0, logits, batch)
    yield from _probabilities(job, scratch)
    probabilities, shifted, t = scratch("probabilities", "shifted", "t")
    yield job.op(VectorOp.MUL_SCALAR, t, onehot, scalar=-1 / job.samples)

    def emit(group, tile):
        gradient, p, s = (block.part(group.start, len(group)) for block in (logits, probabilities, t))
        return job.op(VectorOp.SCALE_ADD, gradient, p, s, scalar=1 / job.samples, tile=tile)
    yield from finish(logits, emit)
    yield job.op(VectorOp.MUL, shifted, shifted, onehot)
    scratch.free("probabilities", "t", "onehot")


def offset_gradients(job, batch, gradients):
    """Thread: add the gradient that :func:`cross_entropy` has made to that of the bias."""
    scratch, layer = job.scratch(batch), job.plan.layers[-1]
    gradient, = scratch("logits")
    for group in layer.y.groups:
        yield from gradients.add(layer, batch, group, gradient.part(group.start, len(group)))
    scratch.free("logits")


def losses(job, batch):
    """Thread: store the loss of each sample, ``log(sum(exp(x - max))) - (x[label] - max)``, after
    :func:`cross_entropy`."""
    scratch = job.scratch(batch)
    of_label, total, t, u, e, logarithm = scratch("shifted", "total", "peak", "u", "e", "inverse")
    yield from lane_reduce(job, VectorOp.ADD, t, of_label)
    yield from log(job, logarithm, total, u, e)
    yield job.op(VectorOp.SUB, logarithm, logarithm, t)
    yield job.program.store(format=DataFormat.FLOAT32, local=logarithm.start, run=batch.rows * job.n,
                            address=job.workspace.losses.address + batch.start * job.config.row_bytes)
    scratch.free("shifted", "total", "peak", "u", "e", "inverse")
