"""The command ``macaw``: what it writes, and one clear line for every mistake of its user."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from macaw import checkpoint, data, runs
from macaw.errors import MacawError
from macaw_hw.config import CONFIGS
from macaw_hw.registers import COUNTERS
from safetensors.numpy import load_file, save_file

DIGITS = ["--dataset", "digits", "--backend", "emulator", "--config", "n8"]


@pytest.fixture
def small(tmp_path, rng):
    """Folder with an MNIST-shaped data set of 4 x 4 images: 40 to train, 20 to test, 3 classes."""
    folder = tmp_path / "small"
    folder.mkdir()
    arrays = []
    for count in (40, 20):
        y = (np.arange(count) % 3).astype(np.uint8)
        x = rng.integers(0, 100, (count, 4, 4), np.uint8)
        x[np.arange(count), y] += 150
        arrays += [x, y]
    for name, array in zip(data.MNIST_FILES, arrays, strict=True):
        header = b"\0\0\x08" + bytes([array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / name).write_bytes(gzip.compress(header + array.tobytes()))
    return folder


@pytest.fixture
def weights(tmp_path):
    """Weights for the digits, as `torch.nn.Sequential(Linear, ReLU, Linear)` would save them."""
    path = tmp_path / "weights.safetensors"
    save_file(runs.classifier(data.load_digits(), seed=3).state_dict(), path)
    return path


def assert_one_line(result, code, message):
    assert result[0] == code
    assert result[2].count("\n") == 1 and result[2].startswith("macaw: error: ")
    assert message in result[2]


@pytest.mark.parametrize("arguments, message", [
    (["train", "--batch-size", "0"], "Invalid value for '--batch-size': 0 is not in the range x>=1"),
    (["train", "--batch-size", "many"], "'many' is not a valid integer"),
    (["train", "--config", "n5"], "Invalid value for '--config': 'n5' is not one of 'n4', 'n8', 'n16', 'n32'"),
    (["train", "--epochs", "-1"], "-1 is not in the range x>=1"),
    (["train", "--limit", "0"], "0 is not in the range x>=1"),
    (["train", "--lr", "0"], "0.0 is not in the range x>0"),
    (["train", "--dataset", "cifar"], "'cifar' is not one of 'mnist', 'digits'"),
    (["train", "--backend", "fpga"], "'fpga' is not one of 'verilator', 'emulator'"),
    (["train", "--speed", "9"], "No such option"),
    (["eval"], "Missing option '--weights'"),
    (["verilog", "--config", "N16"], "'N16' is not one of 'n4', 'n8', 'n16', 'n32'"),
    (["fly"], "No such command 'fly'"),
])
def test_wrong_usage(macaw, arguments, message):
    result = macaw(*arguments)
    assert_one_line(result, 2, message)
    assert "--help" in result[2]


def test_help(macaw):
    for arguments in ["--help"], ["train", "--help"], ["eval", "-h"], ["verilog", "-h"], ["info", "-h"]:
        code, out, err = macaw(*arguments)
        assert (code, err) == (0, "") and out.startswith("Usage: macaw")
    assert macaw("--version")[1] == "macaw 0.1.0\n"


def test_data_folder_missing(macaw, tmp_path):
    assert_one_line(macaw("train", "--data", tmp_path / "none"), 1, "none does not exist; it must hold train-images")


def test_data_file_missing(macaw, small):
    (small / "t10k-labels-idx1-ubyte.gz").unlink()
    assert_one_line(macaw("train", "--data", small), 1, "has no t10k-labels-idx1-ubyte")


def test_data_file_corrupt(macaw, small):
    path = small / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    assert_one_line(macaw("train", "--data", small), 1, f"{path} is damaged")


def test_data_with_digits(macaw, small):
    assert_one_line(macaw("train", "--dataset", "digits", "--data", small), 1, "--data is for --dataset mnist")


def test_learning_rate_not_finite(macaw, tmp_path):
    assert_one_line(macaw("train", *DIGITS, "--lr", "inf", "--output", tmp_path), 1, "lr must be a finite number")


@pytest.mark.parametrize("command", ["train", "eval"])
def test_bad_weights(macaw, tmp_path, weights, command):
    def run(path):
        option = "--init" if command == "train" else "--weights"
        output = ["--output", tmp_path / "run"] if command == "train" else []
        return macaw(command, *DIGITS, option, path, *output)
    assert_one_line(run(tmp_path / "none"), 1, "none: no such weights file")
    (tmp_path / "short").write_bytes(weights.read_bytes()[:-5])
    assert_one_line(run(tmp_path / "short"), 1, "short: truncated")
    state = load_file(weights)
    for name, value, message in [("0.weight", np.zeros((128, 63), np.float32), "(128, 64), not (128, 63)"),
                                 ("2.bias", np.zeros(10), "2.bias must be float32, not float64"),
                                 ("2.weight", state["2.weight"] * np.float32(np.nan), "2.weight must be finite"),
                                 ("4.weight", state["2.weight"], "unexpected 4.weight")]:
        save_file({**state, name: value}, tmp_path / "bad")
        assert_one_line(run(tmp_path / "bad"), 1, message)


def test_output_not_writable(macaw, tmp_path):
    (tmp_path / "file").touch()
    for output in tmp_path / "file", tmp_path / "file" / "below":
        assert_one_line(macaw("train", *DIGITS, "--output", output), 1, f"cannot write to the folder {output}")
    assert_one_line(macaw("verilog", "--config", "n4", "-o", tmp_path / "file" / "a.v"), 1,
                    f"cannot write to the folder {tmp_path / 'file'}")


def test_no_compiler(macaw, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("MACAW_BUILD", str(tmp_path / "build"))
    monkeypatch.delenv("CXX", raising=False)
    result = macaw("train", "--dataset", "digits", "--config", "n4")
    assert_one_line(result, 1, "compiler is missing: install g++ or clang")


def test_debug_shows_the_traceback(macaw, tmp_path):
    code, out, err = macaw("train", "--data", tmp_path / "none", "--debug")
    assert code == 1 and err.startswith("Traceback") and "macaw: error: data folder" in err.splitlines()[-1]


def test_train_and_eval(macaw, tmp_path):
    """A short training leaves all its files, with consistent numbers; eval agrees with it."""
    code, out, err = macaw("train", *DIGITS, "--epochs", 2, "--lr", 0.5, "--output", tmp_path)
    assert (code, err) == (0, "")
    assert {path.name for path in tmp_path.iterdir()} == {
        "weights.safetensors", "metrics.json", "curves.png", "checkpoint.safetensors"}
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["accuracy"] > 0.8
    assert f"Test accuracy {metrics['accuracy']:.2%} on 359 images." in out
    assert len(metrics["steps"]) == 2 * 23 and len(metrics["evaluations"]) == 2
    assert sum(step["samples"] for step in metrics["steps"]) == 2 * 1438
    assert metrics["steps"][-1]["loss"] < metrics["steps"][0]["loss"] / 2
    assert metrics["config"] == CONFIGS["n8"].to_dict() and metrics["backend"] == "emulator"
    assert list(metrics["inference"]) == ["1", "64"]
    for measured, images in ((metrics["training_step"], 64), *zip(metrics["inference"].values(), (1, 64), strict=True)):
        assert measured["images"] == images and set(measured["counters"]) == set(COUNTERS)
        macs = images * (64 * 128 + 128 * 10)
        assert measured["useful_macs"] == (macs if measured is not metrics["training_step"] else 2 * macs + 64 * 1280)
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    shapes = {name: value.shape for name, value in load_file(tmp_path / "weights.safetensors").items()}
    assert shapes == {"0.weight": (128, 64), "0.bias": (128,), "2.weight": (10, 128), "2.bias": (10,)}

    code, out, err = macaw("eval", *DIGITS, "--weights", tmp_path / "weights.safetensors")
    assert (code, err) == (0, "")
    correct = metrics["evaluations"][-1]["correct"]
    assert f"Accuracy {metrics['accuracy']:.2%} ({correct} of 359)" in out and "counts no cycles" in out
    rows = [line.split()[1:] for line in out.splitlines() if line.split()[:1] in [[str(i)] for i in range(10)]]
    matrix = [[0 if cell == "." else int(cell) for cell in row] for row in rows]
    assert np.trace(matrix) == correct and np.sum(matrix) == 359
    assert np.sum(matrix, axis=1).tolist() == np.bincount(data.load_digits().test_y).tolist()


def test_train_and_eval_on_the_rtl(macaw, tmp_path):
    """The same bits as on the emulator, and figures that only the RTL has."""
    run = ["train", "--dataset", "digits", "--config", "n4", "--limit", 100, "--epochs", 1]
    code, out, err = macaw(*run, "--backend", "verilator", "--output", tmp_path / "rtl")
    assert (code, err) == (0, "")
    assert macaw(*run, "--backend", "emulator", "--output", tmp_path / "emulator")[0] == 0
    rtl, emulator = (load_file(tmp_path / name / "weights.safetensors") for name in ("rtl", "emulator"))
    assert all(np.array_equal(rtl[name].view(np.uint32), emulator[name].view(np.uint32)) for name in rtl)

    metrics = json.loads((tmp_path / "rtl" / "metrics.json").read_text())
    cycles = sum(entry["cycles"] for entry in metrics["steps"] + metrics["evaluations"])
    assert metrics["simulated_cycles"] == cycles > 0
    assert metrics["simulation_khz"] == pytest.approx(cycles / metrics["wall_seconds"] / 1000)
    for measured in metrics["training_step"], *metrics["inference"].values():
        counters = measured["counters"]
        assert measured["utilization"] == pytest.approx(measured["useful_macs"] / (16 * counters["cycles"]))
        assert 0 < measured["utilization"] < counters["matrix_busy"] / counters["cycles"] <= 1
    assert f"{metrics['training_step']['counters']['cycles']} cycles for 64 images" in out
    assert len(metrics["hardware_sha256"]) == 64

    code, out, err = macaw("eval", "--dataset", "digits", "--config", "n4", "--limit", 64,
                           "--weights", tmp_path / "rtl" / "weights.safetensors")
    assert (code, err) == (0, "")
    assert re.search(r"^\d+\.\d cycles per image at batch 64, MAC utilization \d+\.\d%; ", out, re.MULTILINE)


def test_train_on_own_data(macaw, small, tmp_path):
    """Any MNIST-shaped data set: other image size, other number of classes; --limit, --init."""
    options = ["--data", small, "--backend", "emulator", "--config", "n4", "--batch-size", 7, "--lr", 0.3]
    assert macaw("train", *options, "--epochs", 8, "--output", tmp_path / "a")[0] == 0
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["network"] == [16, 128, 3] and metrics["accuracy"] == 1
    assert macaw("train", *options, "--limit", 10, "--init", tmp_path / "a" / "weights.safetensors",
                 "--output", tmp_path / "b")[0] == 0
    metrics = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert [step["samples"] for step in metrics["steps"]] == [7, 3]
    assert metrics["steps"][0]["loss"] < 0.3


def test_batch_larger_than_the_data(macaw, small, tmp_path):
    options = ["--data", small, "--backend", "emulator", "--config", "n4", "--batch-size", 10**6]
    assert macaw("train", *options, "--output", tmp_path / "run")[0] == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [step["samples"] for step in metrics["steps"]] == [40] and metrics["training_step"]["images"] == 40
    assert macaw("eval", *options, "--weights", tmp_path / "run" / "weights.safetensors")[0] == 0


def test_divergence_is_one_line(macaw, tmp_path):
    result = macaw("train", *DIGITS, "--lr", "1e30", "--output", tmp_path)
    assert_one_line(result, 1, "it diverged")
    assert "lower the learning rate" in result[2]


def test_resume_is_exact(macaw, tmp_path):
    """Two epochs at once and one after the other end with the same bits."""
    run = ["train", *DIGITS, "--limit", 256]
    assert macaw(*run, "--epochs", 2, "--output", tmp_path / "once")[0] == 0
    assert macaw(*run, "--epochs", 1, "--output", tmp_path / "twice")[0] == 0
    code, out, err = macaw(*run, "--epochs", 2, "--output", tmp_path / "twice", "--resume")
    assert code == 0 and "Continuing after step 4 of 8" in out
    once, twice = (load_file(tmp_path / name / "weights.safetensors") for name in ("once", "twice"))
    assert all(np.array_equal(once[name].view(np.uint32), twice[name].view(np.uint32)) for name in once)

    assert_one_line(macaw(*run, "--lr", 0.2, "--output", tmp_path / "twice", "--resume"), 1,
                    "belongs to a run with another lr (0.1, not 0.2)")
    assert_one_line(macaw(*run, "--output", tmp_path / "new", "--resume"), 1, "no such checkpoint")
    path = tmp_path / "twice" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert_one_line(macaw(*run, "--output", tmp_path / "twice", "--resume"), 1, "is damaged")
    path.write_bytes((tmp_path / "once" / "weights.safetensors").read_bytes())
    assert_one_line(macaw(*run, "--output", tmp_path / "twice", "--resume"), 1, "is not a checkpoint")


def test_interrupt_keeps_a_checkpoint(macaw, tmp_path):
    """SIGINT ends with 130 and a checkpoint; the same command continues to the bits of an undisturbed run."""
    run = ["train", *DIGITS, "--epochs", 3, "--limit", 640]
    command = [sys.executable, "-c", "from macaw.cli import main; main()", *map(str, run), "--output", tmp_path / "a"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "PYTHONUNBUFFERED": "1"})
    while "Training" not in process.stdout.readline():
        assert process.poll() is None, process.stderr.read()
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert err.startswith("macaw: interrupted after step") and err.count("\n") == 1
    state = checkpoint.load_checkpoint(tmp_path / "a" / "checkpoint.safetensors")
    assert not state["finished"] and 0 <= len(state["steps"]) < 30
    assert {path.name for path in (tmp_path / "a").iterdir()} == {"checkpoint.safetensors"}

    code, out, err = macaw(*run, "--output", tmp_path / "a")
    assert code == 0 and f"Continuing after step {len(state['steps'])} of 30" in out
    assert macaw(*run, "--output", tmp_path / "b")[0] == 0
    a, b = (load_file(tmp_path / name / "weights.safetensors") for name in "ab")
    assert all(np.array_equal(a[name], b[name]) for name in a)


def test_fallback_is_announced(macaw, tmp_path, monkeypatch):
    monkeypatch.delenv("MACAW_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr(data, "MNIST_MIRRORS", ("http://127.0.0.1:9/",))
    code, out, err = macaw("train", "--backend", "emulator", "--config", "n8", "--limit", 64, "--epochs", 1,
                           "--output", tmp_path / "run")
    assert code == 0 and "cannot be downloaded" in out and "ship with scikit-learn instead" in out


def test_verilog(macaw, tmp_path):
    for name in "a", "b":
        assert macaw("verilog", "--config", "n4", "-o", tmp_path / name / "macaw.v")[0] == 0
    assert (tmp_path / "a" / "macaw.v").read_bytes() == (tmp_path / "b" / "macaw.v").read_bytes()
    description = json.loads((tmp_path / "a" / "macaw.json").read_text())
    assert description["config"] == CONFIGS["n4"].to_dict()
    assert {"name": "status", "offset": 0x2C}.items() <= next(
        r for r in description["registers"] if r["name"] == "status").items()
    assert_one_line(macaw("verilog", "-o", tmp_path / "x.json"), 1, "use the ending .v")


def test_info(macaw):
    code, out, err = macaw("info", "--config", "n32")
    assert (code, err) == (0, "")
    assert "1024 MACs per cycle" in out and "Verilator" in out and "C++ compiler" in out


def test_batches_cover_every_image_once():
    first = runs.batches(10, 4, seed=1, epoch=0)
    assert [len(batch) for batch in first] == [4, 4, 2]
    assert sorted(np.concatenate(first)) == list(range(10))
    assert np.array_equal(np.concatenate(first), np.concatenate(runs.batches(10, 4, seed=1, epoch=0)))
    for other in runs.batches(10, 4, seed=1, epoch=1), runs.batches(10, 4, seed=2, epoch=0):
        assert not np.array_equal(np.concatenate(first), np.concatenate(other))


def test_checkpoint_round_trip(tmp_path, rng):
    state = {"a": [1, 2.5, None, "text", True], "b": {"w": rng.normal(size=(3, 4)).astype(np.float32),
                                                       "n": [np.arange(3, dtype=np.int64)]}}
    checkpoint.save_checkpoint(tmp_path / "c", state)
    found = checkpoint.load_checkpoint(tmp_path / "c")
    np.testing.assert_array_equal(found["b"]["w"], state["b"]["w"])
    np.testing.assert_array_equal(found["b"]["n"][0], state["b"]["n"][0])
    assert found["a"] == state["a"] and found["b"]["w"].dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    checkpoint.save_checkpoint(tmp_path / "c", {"step": 1})
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError("no")))
    with pytest.raises(OSError, match="no"):
        checkpoint.save_checkpoint(tmp_path / "c", {"step": 2})
    assert checkpoint.load_checkpoint(tmp_path / "c") == {"step": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_errors_share_a_base():
    assert issubclass(data.DataError, MacawError) and issubclass(checkpoint.CheckpointError, MacawError)
