"""Softmax, and cross entropy with its gradient, for one block of the batch."""

from contextlib import ExitStack

from macaw_hw.isa import DataFormat, VectorOp

from .math import exp, lane_reduce, log, reciprocal

__all__ = ["cross_entropy", "softmax", "store_rows", "targets"]


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


def targets(job, batch, layer):
    """Bring the one-hot rows of one block on chip: as float32, and the same times -1 / samples. Two blocks, for
    :func:`cross_entropy` to free."""
    n, panels = job.n, layer.y.tiles
    plain, scaled = (job.block(batch.rows, panels, batch.pitch) for _ in range(2))
    for panel in range(panels):
        job.program.load(
            format=DataFormat.UINT8, local=plain.start + panel * plain.pitch, run=batch.rows * n,
            address=job.workspace.targets.address + (panel * job.samples + batch.start) * n)
    job.op(VectorOp.MUL_SCALAR, scaled, plain, scalar=-1 / job.samples)
    return plain, scaled


def _probabilities(job, logits, probabilities, shifted, total, scratch):
    """``probabilities`` = softmax of ``logits``, row by row; also leaves logits minus their largest in ``shifted`` and
    the sum of their exponentials in ``total``. ``scratch``: two blocks like the logits, two of one panel."""
    t, n, peak, inverse = scratch
    yield from lane_reduce(job, VectorOp.MAX, peak, logits)
    yield job.op(VectorOp.SUB, shifted, logits, peak.spread(panels=logits.panels))
    yield from exp(job, probabilities, shifted, t, n)
    yield from lane_reduce(job, VectorOp.ADD, total, probabilities)
    yield from reciprocal(job, inverse, total, peak)
    yield job.op(VectorOp.MUL, probabilities, probabilities, inverse.spread(panels=logits.panels))


def softmax(job, batch, logits):
    """Thread: the outputs of one block become ``exp(x - max) / sum``, and are stored."""
    with ExitStack() as stack:
        def block(panels):
            return stack.enter_context(job.temporary(batch.rows, panels, batch.pitch))
        wide = logits.panels
        probabilities, shifted, total = block(wide), block(wide), block(1)
        yield from _probabilities(job, logits, probabilities, shifted, total,
                                  (block(wide), block(wide), block(1), block(1)))
        yield store_rows(job, job.workspace.outputs, 0, probabilities, batch)


def cross_entropy(job, batch, logits, onehot, finish):
    """Thread: loss and gradient of one block. ``onehot`` is from :func:`targets`.

    The gradient of the mean loss is ``p * (1 / B) + onehot * (-1 / B)``. It is made in a block that
    ``finish(block, emit)`` quantizes: ``emit(group, tile)`` computes one group of it. Outputs and the loss of each
    sample, ``log(sum(exp(x - max))) - (x[label] - max)``, are stored.
    """
    with ExitStack() as stack:
        def block(panels):
            return stack.enter_context(job.temporary(batch.rows, panels, batch.pitch))
        wide = logits.panels
        plain, scaled = onehot
        probabilities, shifted, total = block(wide), block(wide), block(1)
        t, n, peak, inverse = scratch = block(wide), block(wide), block(1), block(1)
        yield from _probabilities(job, logits, probabilities, shifted, total, scratch)

        def emit(group, tile):
            gradient, p, s = (b.part(group.start, len(group)) for b in (t, probabilities, scaled))
            return job.op(VectorOp.SCALE_ADD, gradient, p, s, scalar=1 / job.samples, tile=tile)
        yield from finish(t, emit)

        store_rows(job, job.workspace.outputs, 0, logits, batch)
        yield job.op(VectorOp.MUL, shifted, shifted, plain)
        yield from lane_reduce(job, VectorOp.ADD, peak, shifted)
        yield from log(job, inverse, total, n.part(0, 1), t.part(0, 1))
        yield job.op(VectorOp.SUB, inverse, inverse, peak)
        yield job.program.store(format=DataFormat.FLOAT32, local=inverse.start, run=batch.rows * job.n,
                                address=job.workspace.losses.address + batch.start * job.config.row_bytes)
        job.free(plain)
        job.free(scaled)
