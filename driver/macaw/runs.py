"""A training run and its folder: checkpoint, metrics, weights, curves."""

import json
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

from . import nn, optim
from .checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from .device import Device
from .files import write_atomically
from .model import Model
from .plots import curves
from .trainer import Evaluation, Trainer
from .weights import load_weights, save_weights

__all__ = ["Run", "Settings", "batches", "classifier", "confusion_matrix", "evaluate_in_parts", "utilization"]

_CHECKPOINT_SECONDS = 15
_AGAIN_SECONDS = 1      # a shell or make may pass on the same Ctrl-C twice
_EVALUATION_BATCHES = 10


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a training run depends on. Two runs with the same settings end with the same weights, bit for bit,
    on every backend."""
    dataset: str
    images: int
    epochs: int
    batch_size: int
    lr: float
    seed: int
    config: str
    init: str | None = None


def classifier(dataset, seed=0):
    """The network for a data set: features-128-classes, with ReLU between, initialised from ``seed``."""
    nn.manual_seed(seed)
    return nn.Sequential(nn.Linear(dataset.features, 128), nn.ReLU(), nn.Linear(128, dataset.classes))


def batches(images, batch_size, seed, epoch):
    """The index arrays of the batches of one epoch: a permutation that depends on ``seed`` and ``epoch`` alone."""
    order = np.random.default_rng([seed, epoch]).permutation(images)
    return [order[i:i + batch_size] for i in range(0, images, batch_size)]


def confusion_matrix(labels, predictions, classes):
    """How often each label (row) was predicted as each class (column)."""
    matrix = np.zeros((classes, classes), int)
    np.add.at(matrix, (labels, predictions), 1)
    return matrix


def evaluate_in_parts(trainer, x, y, on_part=lambda images: True):
    """The `Evaluation` of ``trainer`` on ``x`` and ``y``, some batches at a time.

    ``on_part`` gets the number of images done so far; where it returns False the evaluation ends with None.
    """
    parts = []
    step = _EVALUATION_BATCHES * trainer.batch_size
    for start in range(0, len(x), step):
        parts.append(trainer.evaluate(x[start:start + step], y[start:start + step]))
        if not on_part(min(start + step, len(x))):
            return None
    def total(name):
        return sum(getattr(part, name) for part in parts)
    return Evaluation(
        loss=sum(part.loss * part.samples for part in parts) / len(x), accuracy=total("correct") / len(x),
        correct=total("correct"), samples=len(x), predictions=np.concatenate([p.predictions for p in parts]),
        useful_macs=total("useful_macs"), cycles=total("cycles"),
        utilization=utilization(total("useful_macs"), total("cycles"), trainer.device.config) or 0.0)


def utilization(useful_macs, cycles, config):
    """Share of the peak, from 0 to 1; None on the emulator, which counts no cycles."""
    return useful_macs / (cycles * config.peak_macs) if cycles else None


class Run:
    """Training of a classifier, step by step, with everything it leaves in its folder.

    Parameters
    ----------
    dataset : macaw.data.Dataset
        Trains on all of ``train_x``, evaluates on all of ``test_x`` after every epoch.
    folder : Path
        For ``checkpoint.safetensors``, ``weights.safetensors``, ``metrics.json`` and ``curves.png``.
    settings : Settings
    backend : str

    Attributes
    ----------
    steps : list of dict
        ``loss``, ``correct``, ``samples``, ``cycles``, ``useful_macs`` and ``seconds`` of each step.
    evaluations : list of dict
        ``images``, ``loss``, ``accuracy``, ``cycles`` and ``seconds`` of each evaluation.
    """

    def __init__(self, dataset, folder, settings, backend):
        self.dataset, self.folder, self.settings, self.backend = dataset, Path(folder), settings, backend
        self.model = classifier(dataset, settings.seed)
        if settings.init is not None:
            load_weights(settings.init, self.model)
        self.optimizer = optim.SGD(self.model.parameters(), lr=settings.lr)
        self.steps, self.evaluations = [], []
        self.inference = {}
        self.interrupted = False
        self._training_step = {}
        self._saved = time.monotonic()

    @property
    def steps_per_epoch(self):
        return -(-self.settings.images // self.settings.batch_size)

    @property
    def total_steps(self):
        return self.settings.epochs * self.steps_per_epoch

    @property
    def finished(self):
        return len(self.steps) >= self.total_steps and len(self.evaluations) >= self.settings.epochs

    @property
    def checkpoint(self):
        return self.folder / "checkpoint.safetensors"

    def resume(self):
        """Continue from the checkpoint in the folder.

        Raises
        ------
        CheckpointError
            When there is none, or it belongs to other settings; the number of epochs may differ.
        """
        state = load_checkpoint(self.checkpoint)
        mine, others = asdict(self.settings), state["settings"]
        differing = [name for name in mine if name != "epochs" and mine[name] != others.get(name)]
        if differing:
            raise CheckpointError(f"{self.checkpoint} belongs to a run with another " + ", ".join(
                f"{name} ({others.get(name)}, not {mine[name]})" for name in differing)
                + "; give the same settings, or train with --restart")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps, self.evaluations = state["steps"], state["evaluations"]
        self._training_step = state["training_step"]

    def can_resume(self):
        """Whether the folder holds the checkpoint of an unfinished run with the same settings."""
        with suppress(CheckpointError):
            state = load_checkpoint(self.checkpoint)
            return state["settings"] == asdict(self.settings) and not state["finished"]
        return False

    def save(self):
        """Write the checkpoint, all or nothing."""
        save_checkpoint(self.checkpoint, {
            "settings": asdict(self.settings), "finished": self.finished,
            "model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
            "steps": self.steps, "evaluations": self.evaluations, "training_step": self._training_step})
        self._saved = time.monotonic()

    def train(self, device: Device, on_step=lambda step: None, on_part=lambda images: None,
              on_evaluation=lambda evaluation: None):
        """Train and evaluate to the end, with a checkpoint every few seconds.

        ``on_step`` gets the newest of ``steps``, ``on_evaluation`` of ``evaluations``, and ``on_part`` the number
        of test images evaluated so far. After SIGINT it ends early with a checkpoint and ``interrupted`` set; a
        later SIGINT raises `KeyboardInterrupt` at once, and the previous checkpoint stays.
        """
        trainer = Trainer(self.model, nn.CrossEntropyLoss(), self.optimizer, device,
                          batch_size=min(self.settings.batch_size, self.settings.images))
        with self._interruptible():
            while not (self.finished or self.interrupted):
                epoch, first = divmod(len(self.steps), self.steps_per_epoch)
                if first == 0 and len(self.evaluations) < epoch:
                    self._evaluate(trainer, on_part, on_evaluation)
                    continue
                for indices in self._batches(epoch)[first:]:
                    on_step(self._step(trainer, indices))
                    if time.monotonic() - self._saved > _CHECKPOINT_SECONDS:
                        self.save()
                    if self.interrupted:
                        break
            self.save()

    def measure_inference(self, device, sizes=(1, 64)):
        """Count cycles of inference on the first test images at each batch size."""
        for size in sizes:
            model = Model(self.model, device, batch_size=size)
            x = self.dataset.test_x[:size]
            model.predict(x)
            self.inference[size] = _measured(model.counters, model.useful_macs, device.config, len(x))

    def write_results(self, device):
        """Write the weights, the metrics and the curves. Returns the metrics."""
        metrics = self._metrics(device)
        save_weights(self.folder / "weights.safetensors", self.model)
        write_atomically(self.folder / "metrics.json", json.dumps(metrics, indent=1) + "\n")
        title = (f"{self.dataset.name} on {self.settings.config} ({self.backend}), "
                 f"test accuracy {metrics['accuracy']:.2%}")
        write_atomically(self.folder / "curves.png", curves(self.steps, self.evaluations, title))
        return metrics

    def _step(self, trainer, indices):
        start = time.monotonic()
        result = trainer.train_step(self.dataset.train_x[indices], self.dataset.train_y[indices])
        self.steps.append({
            "loss": float(result.loss), "correct": int(result.correct), "samples": int(result.samples),
            "useful_macs": int(result.useful_macs), "cycles": int(result.counters["cycles"]),
            "utilization": float(result.utilization), "seconds": time.monotonic() - start})
        if result.samples == self.settings.batch_size or not self._training_step:
            self._training_step = _measured(result.counters, result.useful_macs, trainer.device.config,
                                            result.samples)
        return self.steps[-1]

    def _evaluate(self, trainer, on_part, on_evaluation):
        def proceed(images):
            on_part(images)
            return not self.interrupted
        start = time.monotonic()
        result = evaluate_in_parts(trainer, self.dataset.test_x, self.dataset.test_y, proceed)
        if result is None:
            return
        self.evaluations.append({
            "images": sum(step["samples"] for step in self.steps), "loss": float(result.loss),
            "accuracy": float(result.accuracy), "correct": int(result.correct), "samples": int(result.samples),
            "cycles": int(result.cycles), "utilization": float(result.utilization),
            "seconds": time.monotonic() - start})
        on_evaluation(self.evaluations[-1])

    def _batches(self, epoch):
        return batches(self.settings.images, self.settings.batch_size, self.settings.seed, epoch)

    @contextmanager
    def _interruptible(self):
        first = None
        def note(number, frame):
            nonlocal first
            self.interrupted, first = True, first or time.monotonic()
            if time.monotonic() - first > _AGAIN_SECONDS:
                raise KeyboardInterrupt
        previous = signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    def _metrics(self, device):
        cycles = sum(entry["cycles"] for entry in self.steps + self.evaluations)
        seconds = sum(entry["seconds"] for entry in self.steps + self.evaluations)
        return {
            "accuracy": self.evaluations[-1]["accuracy"],
            "macaw": metadata.version("macaw"),
            "settings": asdict(self.settings),
            "backend": self.backend,
            "network": [self.dataset.features, 128, self.dataset.classes],
            "test_images": len(self.dataset.test_x),
            "config": device.config.to_dict(),
            "hardware_sha256": _hardware_hash(device.config) if self.backend != "emulator" else None,
            "simulated_cycles": cycles,
            "wall_seconds": seconds,
            "simulation_khz": cycles / seconds / 1000 if cycles else None,
            "training_step": self._training_step,
            "inference": {str(size): measured for size, measured in self.inference.items()},
            "evaluations": self.evaluations,
            "steps": self.steps,
        }


def _measured(counters, useful_macs, config, images):
    cycles = counters["cycles"]
    return {"images": int(images), "cycles_per_image": cycles / images if cycles else None,
            "useful_macs": int(useful_macs), "utilization": utilization(useful_macs, cycles, config),
            "counters": {name: int(value) for name, value in counters.items()}}


def _hardware_hash(config):
    from macaw_hw.verilog import describe
    from macaw_sim.verilator.build import cached_verilog

    return describe(config, cached_verilog(config))["sha256"]
