"""What the commands do, apart from reading their options."""

import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from macaw_hw.config import CONFIGS
from macaw_sim import tools
from rich import box
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from . import bench as benchmark
from . import data, nn, optim, plots
from .console import console, new_table, print_table, shown
from .device import Device
from .errors import MacawError
from .files import writable_folder, write_atomically
from .runs import Run, Settings, classifier, confusion_matrix, evaluate_in_parts
from .trace import TracedDevice, chrome
from .trainer import Trainer
from .weights import load_weights
from .workloads import HARDWARE, WORKLOADS

__all__ = ["bench", "evaluate", "info", "trace", "train", "verilog"]

_EPOCHS = {"digits": 20}
_LINE_SECONDS = 10
_DRAM_BYTES = 512 << 20     # for large batches; what is never touched takes no memory of the host
_NO_CYCLES = "The emulator counts no cycles; --backend verilator does."


def train(*, dataset, folder, epochs, limit, batch_size, lr, seed, config, backend, init, output, resume):
    """Train, evaluate, write the results. Returns the exit code: 0, or 130 when interrupted."""
    samples = _load(dataset, folder).limit(train=limit)
    output = writable_folder(output or tools.output_directory(
        "runs", f"{samples.name}-{config}-{backend}"))
    settings = Settings(
        dataset=samples.name, images=len(samples.train_x), epochs=epochs or _EPOCHS.get(samples.name, 1),
        batch_size=batch_size, lr=lr, seed=seed, config=config, init=str(init) if init else None)
    run = Run(samples, output, settings, backend)
    if resume or (resume is None and run.can_resume()):
        run.resume()
        print(f"Continuing after step {len(run.steps)} of {run.total_steps} (--restart starts anew).")
    with _device(config, backend) as device:
        print(f"Training {samples.features}-128-{samples.classes} on {settings.images} images of "
              f"{samples.name}, {settings.epochs} epoch{'s' * (settings.epochs > 1)}, batch {batch_size}.")
        with _Display(run, len(samples.test_x)) as display:
            run.train(device, display.step, display.part, display.evaluation)
        if run.interrupted:
            print(f"macaw: interrupted after step {len(run.steps)} of {run.total_steps}; the same command "
                  f"continues from {shown(run.checkpoint)}", file=sys.stderr)
            return 130
        run.measure_inference(device)
        _summary(run.write_results(device))
    print(f"Wrote weights.safetensors, metrics.json, curves.png and the checkpoint to {shown(output)}.")
    return 0


def evaluate(*, weights, dataset, folder, limit, batch_size, config, backend):
    """Print accuracy, confusion matrix and cycles per image."""
    samples = _load(dataset, folder).limit(test=limit)
    model = classifier(samples)
    load_weights(weights, model)
    with _device(config, backend) as device:
        trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0), device,
                          batch_size=min(batch_size, len(samples.test_x)))
        start = time.monotonic()
        with _progress() as progress:
            task = progress.add_task("Evaluating", total=len(samples.test_x), status="")
            result = evaluate_in_parts(trainer, samples.test_x, samples.test_y,
                                       lambda images: progress.update(task, completed=images) is None)
        seconds = time.monotonic() - start
    matrix = confusion_matrix(samples.test_y, result.predictions, samples.classes)
    table = Table("label", *map(str, range(samples.classes)), title_justify="left", box=box.SIMPLE,
                  title="Confusion matrix: labels down, predictions across")
    for label, row in enumerate(matrix):
        table.add_row(str(label), *(str(count) if count else "." for count in row))
    console.print(table)
    print(f"Accuracy {result.accuracy:.2%} ({result.correct} of {result.samples}), loss {result.loss:.4f}.")
    if result.cycles:
        print(f"{result.cycles / result.samples:.1f} cycles per image at batch {batch_size}, MAC utilization "
              f"{result.utilization:.1%}; {result.samples / seconds:.0f} images/s, "
              f"{result.cycles / seconds / 1000:.0f} kHz.")
    else:
        print(_NO_CYCLES)


def bench(*, works, configs, latencies, seconds, output):
    """Measure, print the tables, write JSON and the roofline."""
    cases = [case for case in benchmark.CASES if not configs and (not works or case[0] in works)]
    if configs or not cases:
        cases = [(work, config) for config in configs or ("n16",) for work in works or WORKLOADS]
    output = Path(output or tools.output_directory("runs", "bench") / "bench.json")
    writable_folder(output.parent)
    tools.verilator_environment()
    measurements = []
    for latency in latencies or (40,):
        for work, config in cases:
            print(f"Measuring {work} on {config}, read latency {latency} ...", file=sys.stderr, flush=True)
            measurements.append(benchmark.measure(work, config, latency))
    speeds = []
    for config in dict.fromkeys(config for _, config in cases) if seconds else ():
        print(f"Measuring the speed of the simulation of {config} ...", file=sys.stderr, flush=True)
        speeds.append(benchmark.speed(config, seconds))
    write_atomically(output, json.dumps(benchmark.report(measurements, speeds), indent=1) + "\n")
    picture = output.with_suffix(".png")
    write_atomically(picture, plots.roofline(
        [(m.work, m.config, m.intensity, m.useful_macs / m.cycles) for m in measurements],
        {config: HARDWARE[config] for _, config in cases}, "Measured on the RTL, doorbell to interrupt"))
    _bench_tables(measurements, speeds)
    print(f"Wrote {shown(output)} and {shown(picture)}.")


def _bench_tables(measurements, speeds):
    table = new_table("Cycles from doorbell to interrupt, steady state", "work", "config", "latency", "cycles", "limit",
                   "of", "ratio", "utilization", "bar", "kHz")
    for m in measurements:
        bar = "" if m.bar is None else f"{m.bar} {'met' if m.cycles <= m.bar else 'missed'}"
        table.add_row(m.work, m.config, str(m.latency), str(m.cycles), f"{m.limit:.0f}", m.limit_part,
                      f"{m.ratio:.3f}", f"{m.utilization:.1%}", bar, f"{m.khz:.0f}")
    print_table(table)
    pairs = benchmark.anchors(measurements)
    if pairs:
        table = new_table("Beside other systems", "system", "its work", "cycles", "utilization", "Macaw", "cycles",
                       "utilization", "better")
        for anchor, m in pairs:
            table.add_row(anchor.system, anchor.work, str(anchor.cycles or ""), f"{anchor.utilization:.1%}",
                          f"{m.work}, {m.config}", str(m.cycles), f"{m.utilization:.1%}",
                          f"{m.utilization / anchor.utilization:.2f} x")
        print_table(table)
    for s in speeds:
        print(f"Simulation of {s.config} in training: {s.khz:.0f} kHz; the bare array {s.array_khz:.0f} kHz (ratio "
              f"{s.ratio:.2f}); {s.inside:.1%} of the time inside the simulator.")
    if speeds:
        print("Others under Verilator: " + ", ".join(f"{name} {khz} kHz" for name, khz in benchmark.SIMULATORS) + ".")


def trace(*, work, config, latency, output):
    """Record one run, write the trace and the timeline, print what each unit did."""
    output = writable_folder(output or tools.output_directory("runs", f"trace-{work}-{config}"))
    tools.verilator_environment()
    workload = WORKLOADS[work]
    print(f"Simulator of the RTL, configuration {config}: building, or taking it from the cache ...", flush=True)
    with TracedDevice(HARDWARE[config], dram_bytes=workload.memory, read_latency=latency) as device:
        run = workload.prepare(device)
        run()
        recording = device.recording
    write_atomically(output / "trace.json", chrome(recording))
    utilization = workload.macs / (recording.cycles * recording.config.peak_macs)
    write_atomically(output / "timeline.png", plots.timeline(
        recording, f"{workload.title} on {config}: {recording.cycles} cycles, MAC utilization {utilization:.1%}"))
    table = new_table(f"{workload.title} on {config}, {recording.cycles} cycles", "unit", "instructions", "works",
                   "stalls: memory", "stalls: other", "waits for token", "nothing to do")
    for queue, states in recording.states.items():
        lost = [states[name].sum() for name in plots.NO_WORK]
        table.add_row(queue.name.lower(), str(len(recording.by_queue[queue])),
                      *(f"{count / recording.cycles:.1%}" for count in (recording.cycles - sum(lost), *lost)))
    print_table(table)
    print(f"Wrote trace.json (for https://ui.perfetto.dev or chrome://tracing) and timeline.png to {shown(output)}.")


def verilog(name, output):
    """Write the Verilog of a configuration and what goes beside it."""
    from macaw_hw.c_header import header
    from macaw_hw.packaging import platform_designer
    from macaw_hw.verilog import MODULE, describe, generate

    config = CONFIGS[name]
    output = output or Path("build", "verilog", f"macaw_{name}.v")
    beside = {ending: output.with_name(output.stem + ending) for ending in (".json", ".h", "_hw.tcl")}
    if output in beside.values():
        raise MacawError(f"the Verilog file cannot be called {output}: that is the name of a file beside it; "
                         "use the ending .v")
    writable_folder(output.parent)
    text = generate(config)
    write_atomically(output, text)
    write_atomically(beside[".json"], json.dumps(describe(config, text), indent=1) + "\n")
    write_atomically(beside[".h"], header(config))
    write_atomically(beside["_hw.tcl"], platform_designer(text, MODULE, output.name))
    print(f"Wrote {output} and, beside it, {', '.join(path.name for path in beside.values())}.")


def info(name):
    """Print the configuration and the tools."""
    config = CONFIGS[name]
    print(f"Configuration {name} (of {', '.join(CONFIGS)})")
    _rows({**asdict(config),
           "tile memory": f"{config.tiles} tiles of {config.size} x {config.size}, "
                          f"{config.tiles * config.size**2 // 1024} KiB of mantissas",
           "vector memory": f"{config.vector_rows} rows of {config.size} float32, "
                            f"{config.vector_rows * config.row_bytes // 1024} KiB",
           "peak": f"{config.peak_macs} MACs per cycle"})
    print("Tools")
    _rows(tools.versions())


class _Display:
    """The progress of a run: a bar on a terminal, else a line every few seconds."""

    def __init__(self, run, test_images):
        self._run, self._test_images = run, test_images
        self._progress = _progress()
        self._training = self._progress.add_task("Training", total=run.total_steps, completed=len(run.steps), status="")
        self._evaluating = self._progress.add_task("Evaluating", total=test_images, visible=False, status="")
        self._printed = time.monotonic()

    def __enter__(self):
        self._progress.start()
        return self

    def __exit__(self, *exception):
        self._progress.stop()

    def step(self, step):
        recent = self._run.steps[-20:]
        seconds = sum(s["seconds"] for s in recent)
        text = (f"loss {sum(s['loss'] for s in recent) / len(recent):.4f}, "
                f"{sum(s['samples'] for s in recent) / seconds:.0f} images/s")
        if step["cycles"]:
            text += f", MAC utilization {step['utilization']:.1%}"
        done, total = len(self._run.steps), self._run.total_steps
        self._progress.update(self._training, completed=done, status=text)
        self._line(f"step {done}/{total}: {text}", now=done == total)

    def part(self, images):
        self._progress.update(self._evaluating, completed=images, visible=True)
        self._line(f"evaluated {images}/{self._test_images}")

    def evaluation(self, evaluation):
        self._line(f"test accuracy after {evaluation['images']} images: {evaluation['accuracy']:.2%}", now=True)

    def _line(self, text, now=False):
        if not console.is_terminal and (now or time.monotonic() - self._printed > _LINE_SECONDS):
            print(text, flush=True)
            self._printed = time.monotonic()


def _load(dataset, folder):
    if dataset == "digits" and folder is not None:
        raise data.DataError("--data is for --dataset mnist; the digits come with scikit-learn")
    return data.load(dataset, folder, announce=print)


def _device(config, backend):
    if backend == "verilator":
        tools.verilator_environment()   # what is missing is said before anything takes time
        print(f"Simulator of the RTL, configuration {config}: building, or taking it from the cache ...")
    return Device(config, backend=backend, dram_bytes=_DRAM_BYTES)


def _progress():
    return Progress(TextColumn("{task.description}"), BarColumn(10), TextColumn("{task.completed}/{task.total}"),
                    TimeRemainingColumn(), TextColumn("{task.fields[status]}"), console=console,
                    disable=not console.is_terminal)


def _rows(pairs):
    for name, value in pairs.items():
        print(f"  {name:16} {value}")


def _summary(metrics):
    print(f"Test accuracy {metrics['accuracy']:.2%} on {metrics['test_images']} images.")
    if not metrics["simulated_cycles"]:
        print(_NO_CYCLES)
        return
    print(f"{metrics['simulated_cycles'] / 1e6:.1f} million cycles in {metrics['wall_seconds']:.0f} s "
          f"({metrics['simulation_khz']:.0f} kHz).")
    for what, measured in (("training step", metrics["training_step"]),
                           *((f"inference, batch {size}", entry) for size, entry in metrics["inference"].items())):
        print(f"{what}: {measured['counters']['cycles']} cycles for {measured['images']} "
              f"image{'s' * (measured['images'] > 1)}, MAC utilization {measured['utilization']:.1%}")
