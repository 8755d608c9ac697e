"""Whole programs: a training step, inference, and the quantization of new weights.

The batch is cut into blocks. The first layer of block b + 1 runs on the array while block b goes through the other
layers, the softmax and back; while the last block does so, the weight gradients of the others fill the array.
"""

from macaw_hw.isa import DataFormat, VectorOp

from .backward import OffsetGradients, from_loss, through_activation, use_gradient
from .context import Block, Context, interleave
from .job import Job
from .linear import Inputs, Offsets, activate, forward, input_gradient
from .loss import Scratch, cross_entropy, softmax, store_rows, targets
from .update import chunks, update_offsets, update_weights, weight_gradient

__all__ = ["inference_program", "quantize_program", "training_program"]


class _Network:
    """The threads of a job: the first layer (``front``), and all that follows it for one block (``tail``)."""

    def __init__(self, job):
        self.job = job
        self.offsets = Offsets(job)
        self.inputs = Inputs(job)
        self.gradients = OffsetGradients(job) if job.training else None
        self.scratch = Scratch(job) if job.softmax else None
        self._logits = {}

    def front(self, batch):
        """Thread: the first layer for one block."""
        layers, blocks = self.job.plan.layers, self.job.batches
        following = [(layers[1], batch)] if len(layers) > 1 else []
        if batch is not blocks[-1]:
            following.append((layers[0], blocks[batch.index + 1]))
        self._logits[batch.index] = yield from self._forward(layers[0], batch, following, self.inputs)

    def tail(self, batch):
        """Thread: everything else for one block."""
        job, layers = self.job, self.job.plan.layers
        if job.training:
            targets(job, batch, self.scratch)
        for layer in layers[1:]:
            following = [(after, batch) for after in layers[layer.index + 1:layer.index + 2]]
            self._logits[batch.index] = yield from self._forward(layer, batch, following)
        logits = self._logits.pop(batch.index)
        if job.training:
            yield from cross_entropy(job, batch, logits, self.scratch,
                                     lambda gradient, emit: self._back(batch, gradient, emit))
        elif job.softmax:
            yield from softmax(job, batch, logits, self.scratch)
        if logits is not None:
            job.free(logits)

    def _forward(self, layer, batch, following, inputs=None):
        job = self.job

        def hidden(group, sums, tile):
            return activate(job, layer, batch, group, sums, tile)

        def output(group, sums, tile):
            rows = sums.part(tile - group.start, 1)
            if layer.relu:
                job.op(VectorOp.MAX_SCALAR, rows, rows, scalar=0.0)
            return store_rows(job, job.workspace.outputs, tile, rows, batch)

        if layer is not job.plan.layers[-1]:
            finish = hidden
        else:
            finish = None if job.softmax else output
        return forward(job, layer, batch, self.offsets, finish, inputs, following)

    def _back(self, batch, gradient, emit):
        job, layers = self.job, self.job.plan.layers
        yield from from_loss(job, layers[-1], batch, gradient, emit, self.gradients)
        for layer, before in zip(layers[:0:-1], layers[-2::-1], strict=True):
            def finish(group, sums, tile, before=before):
                return through_activation(job, before, batch, group, sums, tile)

            def after(group, sums, before=before):
                return use_gradient(job, before, batch, group, sums, self.gradients)
            yield from input_gradient(job, layer, batch, finish, after)


def _blocks(network):
    """All blocks through the network, but for the tail of the last one."""
    batches = network.job.batches
    interleave(network.front(batches[0]))
    for batch, following in zip(batches, batches[1:], strict=False):
        interleave(network.front(following), network.tail(batch))


def _value(thread):
    """Run a thread to its end; its value."""
    while True:
        try:
            next(thread)
        except StopIteration as stop:
            return stop.value


def inference_program(plan, workspace, samples, pixels):
    """The program that writes the network's outputs for a batch.

    Parameters
    ----------
    plan : macaw.plan.Plan
    workspace : macaw.kernels.job.Workspace
    samples : int
    pixels : bool
        The input is uint8.
    """
    job = Job(plan, workspace, samples, pixels, training=False)
    network = _Network(job)
    _blocks(network)
    interleave(network.tail(job.batches[-1]))
    return job.program


def training_program(plan, workspace, samples, pixels, rate, kept=False):
    """The program of a training step: forward, loss, backward, and the update with learning rate ``rate``.

    Where :meth:`Plan.weights_fit`, the new tiles of the weights are left on chip alone. ``kept`` says that they are still
    there from a step before; otherwise they are loaded from their homes.
    """
    job = Job(plan, workspace, samples, pixels, training=True, kept=kept)
    network = _Network(job)
    _blocks(network)
    *earlier, last = job.batches
    todo, started = chunks(job), {}

    def begin():
        # The first banks are for this, the others for the gradients of the last block.
        banks = range(job.sums.start, max(job.sums.start + 1, job.sums.stop - 1))
        for chunk in todo if earlier else ():
            start = job.rows.allocator.allocate(chunk.rows, banks)
            if start is None:
                return
            started[chunk] = Block(start, chunk.rows, pitch=chunk.rows)
            yield from weight_gradient(job, chunk, earlier, started[chunk], begun=False)
    interleave(network.tail(last), begin())

    network.scratch.free()
    update_offsets(job, network.offsets, network.gradients, rate)
    for chunk in todo:
        if chunk in started:
            sums = started[chunk]
            _value(weight_gradient(job, chunk, [last], sums, begun=True))
        else:
            sums = Block(job.allocate_sums(chunk.rows), chunk.rows, pitch=chunk.rows)
            _value(weight_gradient(job, chunk, job.batches, sums, begun=False))
        update_weights(job, chunk, sums, rate)
    return job.program


def quantize_program(plan):
    """The program that makes the bfp8 weights from the float32 ones."""
    k = Context(plan.config)
    for layer in plan.layers:
        for x_group in layer.x.groups:
            rows = layer.x.rows(x_group, k.n)
            for y_group in layer.y.groups:
                panel = plan.weight_panel(layer, x_group, y_group)
                start = k.tiles.create(panel)
                for i, tile in enumerate(y_group):
                    with k.temporary(rows, 1, rows) as weights:
                        row = tile * layer.x.features + x_group.start * k.n
                        k.program.load(format=DataFormat.FLOAT32, local=weights.start, run=rows * k.n,
                                       address=layer.master.address + row * plan.config.row_bytes)
                        k.op(VectorOp.MOVE, None, weights, tile=(start + i * len(x_group), 0))
    k.tiles.flush()
    return k.program
