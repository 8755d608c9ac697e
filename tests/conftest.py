"""Fixtures for all tests. ``MACAW_SEED`` repeats a run: each test prints the seed it drew."""

import os
import random
from pathlib import Path

import numpy as np
import pytest
from macaw import data

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def root():
    """Folder of the repository."""
    return ROOT


@pytest.fixture
def seed():
    """A new seed in each run, or ``MACAW_SEED``."""
    value = int(os.environ.get("MACAW_SEED") or random.SystemRandom().randrange(1 << 31))
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
