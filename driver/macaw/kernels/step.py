"""Whole programs: a training step, inference, and the quantization of new weights.

The batch is cut into blocks. The first layer of block b + 1 runs on the array while block b goes through the other
layers, the softmax and back; while the last block does so, the weight gradients of the others fill the array.
"""

from collections import deque

from macaw_hw.isa import DataFormat, VectorOp

from ..memory import OutOfMemory
from ..program import Program
from .backward import OffsetGradients, from_loss, quantize_gradient, through_activation
from .context import Block, Context, interleave
from .job import Job
from .linear import Inputs, Offsets, activate, forward, input_gradient
from .loss import cross_entropy, losses, offset_gradients, softmax, store_rows, targets
from .streaming import finish_streaming, store_activation
from .update import Prefetch, Weights, chunks, free_left, store_left, update_offsets, update_weights, weight_gradient

_REST_OPERATIONS = 2
"""Vector instructions for other purposes between one chunk's update and the next."""
_REST_WHEN_SHORT = 8
"""As many where those other purposes occupy rows that the next weights need."""

__all__ = ["inference_program", "quantize_program", "settling_program", "training_program"]


class _Network:
    """The threads of a job: the first layer (``front``), and all that follows it for one block (``tail``).

    Attributes
    ----------
    deferred : deque of generators
        Threads of blocks that are done but for what nothing in the step waits for: losses, and gradients of biases.
    """

    def __init__(self, job):
        self.job = job
        self.inputs = Inputs(job)
        self.offsets = Offsets(job)
        self.gradients = OffsetGradients(job) if job.training else None
        self.deferred = deque()

    def front(self, batch):
        """Thread: the first layer for one block."""
        layers, blocks = self.job.plan.layers, self.job.batches
        following = [(layer, batch) for layer in layers[1:2] if not self._ends(layer)]
        if batch is not blocks[-1] and not self._ends(layers[0]):
            following.append((layers[0], blocks[batch.index + 1]))
        return self._forward(layers[0], batch, following, self.inputs)

    def tail(self, batch):
        """Thread: everything else for one block."""
        job, layers = self.job, self.job.plan.layers
        if job.training:
            targets(job, batch)
        if job.softmax and len(layers) > 1:
            self.offsets.prepare(layers[-1], batch, range(layers[-1].y.tiles))
        for layer in layers[1:]:
            following = [(after, batch) for after in layers[layer.index + 1:layer.index + 2] if not self._ends(after)]
            yield from self._forward(layer, batch, following)
        if job.training:
            yield from cross_entropy(
                job, batch, lambda gradient, emit: from_loss(job, layers[-1], batch, gradient, emit))
            if not job.streaming:
                yield from self._back(batch)
            yield from self._later(offset_gradients(job, batch, self.gradients))
            yield from self._later(losses(job, batch))
        elif job.softmax:
            yield from softmax(job, batch)

    def run(self):
        """All blocks, but for the tail of the last one."""
        batches = self.job.batches
        front, stored = self.front(batches[0]), store_left(self.job)
        for time in front:
            if time > stored:
                break
        free_left(self.job)
        interleave(front)
        for batch, following in zip(batches, batches[1:], strict=False):
            if self.job.thrift or self._ends(self.job.plan.layers[0]):
                interleave(self.tail(batch))
                interleave(self.front(following))
            else:
                interleave(self.front(following), self.tail(batch), spare=self.background())

    def background(self):
        """Thread: what is deferred."""
        while self.deferred:
            try:
                yield next(self.deferred[0])
            except StopIteration:
                self.deferred.popleft()

    def _ends(self, layer):
        """Its sums are the logits, for which there is one place only: they begin when the block before is done."""
        return self.job.softmax and layer is self.job.plan.layers[-1]

    def _forward(self, layer, batch, following, inputs=None):
        job = self.job

        def hidden(group, sums, tile):
            return (store_activation if job.streaming else activate)(job, layer, batch, group, sums, tile)

        def output(group, sums, tile):
            rows = sums.tile(tile - group.start)
            if layer.relu:
                job.op(VectorOp.MAX_SCALAR, rows, rows, scalar=0.0)
            return store_rows(job, job.workspace.outputs, tile, rows, batch)

        if layer is not job.plan.layers[-1]:
            finish = hidden
        else:
            finish = None if job.softmax else output
        return forward(job, layer, batch, self.offsets, finish, inputs, following)

    def _back(self, batch):
        job, layers = self.job, self.job.plan.layers
        for layer, before in zip(layers[:0:-1], layers[-2::-1], strict=True):
            def finish(group, sums, before=before):
                yield from through_activation(job, before, batch, group, sums)
                if before.index > 0:
                    yield from quantize_gradient(job, before, batch, group)
                yield from self._later(self._add(before, batch, group))
            yield from input_gradient(job, layer, batch, finish)

    def _add(self, layer, batch, group):
        panel = self.job.gradient(layer, batch, group)
        with self.job.rows.use(panel) as (start,):
            gradient = Block(start, batch.rows, len(group), batch.pitch)
            yield from self.gradients.add(layer, batch, group, gradient)
        self.job.rows.drop(panel)

    def _later(self, thread):
        """Put the thread off."""
        self.deferred.append(thread)
        if self.job.thrift:
            yield from self.background()


def inference_program(plan, workspace, samples, pixels, kept=False):
    """The program that writes the network's outputs for a batch. Where :meth:`Plan.weights_fit`, the tiles of the
    weights stay on chip.

    Parameters
    ----------
    plan : macaw.plan.Plan
    workspace : macaw.kernels.job.Workspace
    samples : int
    pixels : bool
        The input is uint8.
    kept : bool
        The tiles of the weights are still on chip from a run before.
    """
    return _with_thrift(lambda thrift: _inference(Job(plan, workspace, samples, pixels, False, kept, thrift=thrift)))


def _inference(job):
    network = _Network(job)
    network.run()
    interleave(network.tail(job.batches[-1]))
    return job.program


def _with_thrift(build):
    """A program with as much work ahead as the memories allow."""
    for thrift in (0, 1):
        try:
            return build(thrift)
        except OutOfMemory:
            pass
    return build(2)


def training_program(plan, workspace, samples, pixels, rate, kept=False, left=()):
    """The program of a training step: forward, loss, backward, and the update with learning rate ``rate``; and the
    tuple of :class:`Left` that it leaves on chip.

    Where :meth:`Plan.weights_fit`, the new tiles of the weights are left on chip alone. ``kept`` says that they are
    still there from a step before, and with them the float32 weights ``left``; otherwise they are loaded from their
    homes.
    """
    return _with_thrift(lambda thrift: _training(Job(plan, workspace, samples, pixels, True, kept, left, thrift), rate))


def _training(job, rate):
    plan = job.plan
    network = _Network(job)
    network.run()
    if job.streaming:
        return job.program, finish_streaming(network, rate)
    *earlier, last = job.batches
    todo, started = chunks(job), {}
    weights = Weights(job, todo)
    # What the last block may need at a time.
    reserved = 2 * last.pitch * max(len(group) for layer in plan.layers for group in layer.y.groups)

    def start(chunk, last=False):
        """New sums for a chunk, and the blocks of the batch that are not in them."""
        started[chunk] = Block(job.allocate_sums(chunk.rows, last), chunk.rows, pitch=chunk.rows), list(job.batches)
        return started[chunk]

    def begin():
        """Thread: the weight gradients of all blocks but the last, as far as there is room for sums."""
        for chunk in todo if earlier else ():
            if job.thrift or job.room_for_sums() < chunk.rows + reserved:
                return
            sums, blocks = start(chunk)
            weights.ahead()
            while len(blocks) > 1:
                yield weight_gradient(job, chunk, blocks.pop(0), sums)

    def finish():
        """Thread: all weight gradients to their ends, with the updates. The products of a chunk are emitted before the
        update of the one before, whose loads would delay their fetch."""
        prefetch, waiting = Prefetch(job, todo), deque()
        for chunk in todo:
            sums, blocks = started.get(chunk) or start(chunk, last=True)
            for batch in blocks:
                weight_gradient(job, chunk, batch, sums)
            prefetch.ahead(chunk)
            waiting.append((chunk, sums))
            if job.thrift or len(waiting) > 1:
                update_weights(job, *waiting.popleft(), weights, rate)
                weights.ahead()
                yield
            if chunk.tile == chunk.layer.y.tiles - 1:
                for batch in job.batches:
                    job.tiles.drop(job.x[chunk.layer.index].panel(batch, chunk.x_group))
        for last_ones in waiting:
            yield update_weights(job, *last_ones, weights, rate)

    def rest():
        """What the last block has put off, and the biases."""
        yield from network.background()
        network.offsets.drop()
        groups = [(layer, group) for layer in plan.layers for group in layer.y.groups]
        yield update_offsets(job, groups, network.offsets, network.gradients, rate)

    interleave(network.tail(last), spare=begin())
    others, first = rest(), len(started)
    for done, _ in enumerate(finish()):
        share = _REST_OPERATIONS if done >= first else 0    # the first updates are urgent: the stores wait for them
        for _ in zip(range(_REST_WHEN_SHORT if weights.short else share), others, strict=False):
            pass
    for _ in others:
        pass
    return job.program, weights.left


def settling_program(plan, left):
    """The program that stores what a training step has left on chip."""
    program = Program(plan.config)
    for part in left:
        part.store(program)
    return program


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
