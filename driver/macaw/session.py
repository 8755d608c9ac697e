"""A network on a device: batches in, results out, with programs built when a batch of their kind first comes."""

import numbers
import weakref

import numpy as np

from .errors import MacawError
from .kernels import Workspace, inference_program, quantize_program, settling_program, training_program
from .plan import Plan, blocked, unblocked

__all__ = ["InputError", "Session", "check_batch_size", "check_features", "check_labels"]


class InputError(MacawError, ValueError):
    """Data that the network cannot take. The message names the value, the limit and the remedy."""


def check_batch_size(value):
    """A positive integer, or `InputError`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise InputError(f"batch_size must be a positive integer, not {value!r}")
    return int(value)


def check_features(x, features):
    """Samples as a (samples, features) array of uint8 or finite float32, or `InputError`."""
    x = np.asarray(x)
    if x.dtype not in (np.uint8, np.float32):
        raise InputError(f"x must be uint8 (pixels, used as x / 255) or float32, not {x.dtype}; "
                         "convert with x.astype('float32')")
    if x.ndim < 2 or x[0:1].size != features * min(len(x), 1):
        raise InputError(f"x must have shape (samples, {features}), or samples of {features} values in all, "
                         f"not {x.shape}; give one sample as x[None]")
    x = x.reshape(len(x), features)
    if x.dtype == np.float32 and not np.isfinite(x).all():
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise InputError(f"x must be finite, but sample {row} has {x[row, column]} at feature {column}; "
                         "remove or replace such values, for example with numpy.nan_to_num")
    return x


def check_labels(y, samples, classes):
    """Labels as an int64 array, or `InputError`."""
    y = np.asarray(y)
    if not np.issubdtype(y.dtype, np.integer):
        raise InputError(f"y must be integer labels, not {y.dtype}; convert with y.astype('int64')")
    if y.shape != (samples,):
        raise InputError(f"y must have shape ({samples},), one label for each sample, not {y.shape}")
    if samples and not 0 <= y.min() <= y.max() < classes:
        bad = int(np.flatnonzero((y < 0) | (y >= classes))[0])
        raise InputError(f"y must be from 0 to {classes - 1}, but sample {bad} has {y[bad]}")
    return y.astype(np.int64)


class _Resident:
    """What a session's programs leave on chip for the next one: the weights' tiles, where they fit, and the newest
    float32 weights that training has not stored yet."""

    def __init__(self, plan):
        self._plan, self._device, self.left = plan, plan.device, ()
        plan.settle = self.settle

    @property
    def here(self):
        """Whether it is still there."""
        return self._device.resident is self

    def take(self):
        """Go on with what is there, if it is. Gives whether the tiles are there, and the float32 weights."""
        here, left = self.here, self.left
        self._device.resident, self.left = None, ()
        return here, left

    def put(self, left=()):
        """The program that has just run leaves this."""
        self._device.resident, self.left = self, left

    def settle(self):
        """Store what is newer on chip than in memory; the tiles stay."""
        if self.here and self.left:
            self.leave()
            self.put()

    def leave(self):
        """Store what is newer on chip than in memory, before another program runs."""
        _, left = self.take()
        if left:
            self._device.run(settling_program(self._plan, left))


class Session:
    """The programs and buffers of a network on a device.

    Parameters
    ----------
    network : macaw.nn.Sequential
    device : macaw.Device
    samples : int
        The largest batch.
    training : bool
    """

    def __init__(self, network, device, samples, training=False):
        self.device, self.training = device, training
        self.plan = Plan(network, device, samples if training else 0)
        self.workspace = Workspace(self.plan, samples, training)
        self.features = self.plan.layers[0].x.features
        self.classes = self.plan.layers[-1].y.features
        self._programs = {}
        self._fit = self.plan.weights_fit(samples, training)
        self._resident = _Resident(self.plan)
        self._quantized = False     # the bfp8 weights in memory are up to date
        weakref.finalize(self, _release, self.plan).atexit = False

    def infer(self, x):
        """Outputs (samples, classes) of one batch, and the counters."""
        self._prepare()
        kept = self._fit and self._resident.here
        program = self._program("inference", x, inference_program, kept)
        self._resident.take()
        counters = self.device.run(program)
        if self._fit:
            self._resident.put()
        return self._outputs(len(x)), counters

    def train(self, x, y, rate):
        """One step. Returns the outputs, the loss of each sample, and the counters."""
        if not (self._fit and self._resident.here) or self.plan.changed():
            self._prepare()
        kept = self._fit and self._resident.here
        program, left = self._program("training", x, training_program, rate, kept, self._resident.left)
        n, samples = self.plan.config.size, len(x)
        targets = self.workspace.targets.view(np.uint8, (-(-self.classes // n), samples, n))
        targets[:] = 0
        targets[y // n, np.arange(samples), y % n] = 1
        self._resident.take()
        try:
            counters = self.device.run(program)
            self._resident.put(left)
        finally:
            self._quantized = not self._fit
            self.plan.changed_on_device()
        losses = self.workspace.losses.view("<f4", (samples, n))[:, 0].copy()
        return self._outputs(samples), losses, counters

    def _prepare(self):
        """Bring parameters that changed on the host to the device."""
        if self.plan.upload() or not self._quantized:
            if ("quantize",) not in self._programs:
                self._programs["quantize",] = quantize_program(self.plan)
            self.device.run(self._programs["quantize",])
            self._quantized = True

    def _program(self, kind, x, build, *options):
        """Write the batch to the device, and give the program for batches like it."""
        n, pixels = self.plan.config.size, x.dtype == np.uint8
        tensor = self.workspace.pixels if pixels else self.workspace.features
        tensor.view(np.uint8 if pixels else "<f4", (-(-self.features // n), len(x), n))[:] = blocked(x, n)
        key = kind, len(x), pixels, *options
        if key not in self._programs:
            self._programs = {k: v for k, v in self._programs.items() if k[0] != kind or k[3:4] == key[3:4]}
            self._programs[key] = build(self.plan, self.workspace, len(x), pixels, *options)
        return self._programs[key]

    def _outputs(self, samples):
        n = self.plan.config.size
        return unblocked(self.workspace.outputs.view("<f4", (-(-self.classes // n), samples, n)), self.classes).copy()


def _release(plan):
    """Free the memory of a session that is gone; a closed device has none."""
    if not plan.device.closed:
        plan.free()
