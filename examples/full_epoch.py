"""One epoch of MNIST three times, from the same start on the same batches: RTL, emulator, float32.

    .venv/bin/python examples/full_epoch.py [--data DIR] [--limit IMAGES] [--config NAME]

The RTL and the emulator must end with the same weights, bit for bit. The float32 network is PyTorch where it
is installed, else NumPy. Prints the table of the README; exits with 1 where the weights differ.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from macaw import Device, data
from macaw.runs import Run, Settings, batches, classifier

FOLDER = Path("build/runs/full-epoch")


def device_run(dataset, settings, backend):
    """Train and evaluate on a device; the run, its weights, its metrics."""
    folder = FOLDER / backend
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(dataset, folder, settings, backend)
    start = time.monotonic()
    with Device(settings.config, backend=backend) as device:
        built = time.monotonic()
        run.train(device, on_step=lambda step: progress(backend, len(run.steps), run.total_steps))
        metrics = run.write_results(device)
    print(f"\n{backend}: set-up {built - start:.0f} s, run {time.monotonic() - built:.0f} s")
    return run.model.state_dict(), metrics, time.monotonic() - built


def progress(what, done, total):
    if done % 50 == 0 or done == total:
        print(f"\r{what}: step {done} of {total}", end="", flush=True)


def numpy_run(dataset, settings):
    """The same training in plain NumPy float32; the accuracy."""
    start = classifier(dataset, settings.seed).state_dict()
    w1, b1, w2, b2 = (start[name].copy() for name in ("0.weight", "0.bias", "2.weight", "2.bias"))
    scale, lr = np.float32(1 / 255), np.float32(settings.lr)
    for indices in batches(settings.images, settings.batch_size, settings.seed, 0):
        x = dataset.train_x[indices].reshape(len(indices), -1) * scale
        hidden = np.maximum(x @ w1.T + b1, 0)
        logits = hidden @ w2.T + b2
        e = np.exp(logits - logits.max(axis=1, keepdims=True))
        gradient = e / e.sum(axis=1, keepdims=True)
        gradient[np.arange(len(x)), dataset.train_y[indices]] -= 1
        gradient /= np.float32(len(x))
        back = (gradient @ w2) * (hidden > 0)
        w2 -= lr * (gradient.T @ hidden)
        b2 -= lr * gradient.sum(axis=0)
        w1 -= lr * (back.T @ x)
        b1 -= lr * back.sum(axis=0)
    x = dataset.test_x.reshape(len(dataset.test_x), -1) * scale
    return float(((np.maximum(x @ w1.T + b1, 0) @ w2.T + b2).argmax(axis=1) == dataset.test_y).mean())


def torch_run(dataset, settings):
    """The same training in PyTorch on the CPU; the accuracy."""
    import torch

    net = torch.nn.Sequential(torch.nn.Linear(dataset.features, 128), torch.nn.ReLU(),
                              torch.nn.Linear(128, dataset.classes))
    start = classifier(dataset, settings.seed).state_dict()
    net.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in start.items()})
    loss, optimizer = torch.nn.CrossEntropyLoss(), torch.optim.SGD(net.parameters(), lr=settings.lr)

    def pixels(x):
        return torch.from_numpy(x.reshape(len(x), -1).astype(np.float32)) / 255

    for indices in batches(settings.images, settings.batch_size, settings.seed, 0):
        optimizer.zero_grad()
        labels = torch.from_numpy(dataset.train_y[indices].astype(np.int64))
        loss(net(pixels(dataset.train_x[indices])), labels).backward()
        optimizer.step()
    with torch.no_grad():
        return float((net(pixels(dataset.test_x)).argmax(dim=1).numpy() == dataset.test_y).mean())


def float32_run(dataset, settings):
    try:
        return "PyTorch float32", torch_run(dataset, settings)
    except ImportError:
        return "NumPy float32", numpy_run(dataset, settings)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder with the four idx files")
    parser.add_argument("--limit", type=int, help="train on the first images only")
    parser.add_argument("--config", default="n16")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    dataset = data.load("mnist", arguments.data)
    if arguments.limit:
        dataset = replace(dataset, train_x=dataset.train_x[:arguments.limit],
                          train_y=dataset.train_y[:arguments.limit])
    settings = Settings(dataset=dataset.name, images=len(dataset.train_x), epochs=1, batch_size=64, lr=0.1,
                        seed=arguments.seed, config=arguments.config)
    ours, metrics, seconds = device_run(dataset, settings, "verilator")
    theirs, emulated, emulator_seconds = device_run(dataset, settings, "emulator")
    name, accuracy = float32_run(dataset, settings)
    equal = all(np.array_equal(ours[key].view(np.uint32), theirs[key].view(np.uint32)) for key in ours)
    step = metrics["training_step"]
    percent = [f"{value:.2%}" for value in (metrics["accuracy"], emulated["accuracy"], accuracy)]
    print(f"""
| {settings.images:,} images, batch 64, lr 0.1, {settings.config} | RTL in Verilator | emulator | {name} |
| --- | --- | --- | --- |
| accuracy on {len(dataset.test_x):,} test images | {' | '.join(percent)} |
| weights equal to the RTL's, bit for bit | | {'yes' if equal else 'NO'} | |
| simulated cycles, training and evaluation | {metrics['simulated_cycles']:,} | | |
| cycles of a training step | {step['counters']['cycles']:,} ({step['utilization']:.1%} of the peak) | | |
| wall time | {seconds:.0f} s ({metrics['simulation_khz']:.0f} kHz) | {emulator_seconds:.0f} s | |
""")
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
