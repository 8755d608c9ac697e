"""Fixtures for all tests. Each test has its own fixed seed, which it prints; ``MACAW_SEED`` sets another for all
of them, and ``MACAW_SEED=random`` draws new ones."""

import os
from pathlib import Path

import numpy as np
import pytest
from macaw import cli, data
from macaw_sim.runner import default_seed
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def root():
    """Folder of the repository."""
    return ROOT


@pytest.fixture
def seed(request):
    """The test's own seed, so that a failure is the change's and not the day's; or what ``MACAW_SEED`` says."""
    value = default_seed(request.node.nodeid)
    print(f"seed {value}")
    return value


@pytest.fixture
def rng(seed):
    """A NumPy generator that starts from ``seed``."""
    return np.random.default_rng(seed)


@pytest.fixture(scope="session")
def mnist_folder():
    """Folder with the idx files of MNIST, or None: ``MACAW_DATA``, else the one shared beside the clone."""
    folder = Path(os.environ.get("MACAW_DATA") or ROOT.parent / "shared" / "data" / "mnist")
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def dataset(mnist_folder):
    """MNIST where it is at hand, else scikit-learn's digits; never downloaded."""
    return data.load_idx_folder(mnist_folder) if mnist_folder else data.load_digits()


@pytest.fixture(scope="session")
def trained_weights():
    """File with the weights of the reference network, 784-128-10; see tests/data/README.md."""
    return ROOT / "tests" / "data" / "mnist-784-128-10.safetensors"


@pytest.fixture(scope="session")
def trained_layer(trained_weights, dataset, tmp_path_factory):
    """File with the first layer of the reference network as ``w`` (784, 128), and inputs ``x`` (32, 784) for it:
    images where MNIST is at hand, else random."""
    images = dataset.test_x[:32].reshape(32, -1)
    if images.shape[1] != 784:
        images = np.random.default_rng(0).integers(0, 256, (32, 784))
    path = tmp_path_factory.mktemp("layer") / "layer.npz"
    np.savez(path, x=(images / 255).astype(np.float32), w=load_file(trained_weights)["0.weight"].T)
    return path


@pytest.fixture
def macaw(capsys):
    """Runs the command in this process: ``macaw("train", ...)`` gives its exit code, stdout and stderr."""
    def run(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
        printed = capsys.readouterr()
        return end.value.code, printed.out, printed.err
    return run
