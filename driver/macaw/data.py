"""Data sets as arrays of bytes: MNIST-shaped idx files, and the digits that ship with scikit-learn."""

import gzip
import math
import os
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from .errors import MacawError

__all__ = ["Dataset", "DataError", "load", "load_digits", "load_idx_folder", "load_mnist", "read_idx",
           "MNIST_FILES", "MNIST_MIRRORS"]

MNIST_FILES = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
"""The four files of MNIST with their sha256."""

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
"""Public mirrors of the original files, tried in order."""

_PROBE_SECONDS = 4
_READ_SECONDS = 20


class DataError(MacawError):
    """A data file is missing, damaged, or not what it should be."""


@dataclass(frozen=True)
class Dataset:
    """Images and labels for a classifier.

    Attributes
    ----------
    name : str
        What the data are, for messages and metrics.
    train_x, test_x : uint8 array of shape (images, features)
        Pixels, 0 to 255, row after row of the image.
    train_y, test_y : uint8 array of shape (images,)
        Labels, from 0 to ``classes`` - 1.
    classes : int
        Number of classes.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray
    classes: int

    @property
    def features(self) -> int:
        """Pixels of an image."""
        return self.train_x.shape[1]

    def limit(self, train: int | None = None, test: int | None = None) -> "Dataset":
        """The same data with at most so many of the first training and test images."""
        return replace(self, train_x=self.train_x[:train], train_y=self.train_y[:train],
                       test_x=self.test_x[:test], test_y=self.test_y[:test])


def load(name: str = "mnist", folder: str | os.PathLike | None = None,
         announce: Callable[[str], None] = print) -> Dataset:
    """The data set called ``name``: "mnist" or "digits".

    MNIST comes from ``folder`` or else the environment's ``MACAW_DATA``, else the cache, else a mirror.
    Where all of these fail because there is no network, `load_digits` takes its place and ``announce``
    gets one line that says so. A folder that was asked for is never replaced by something else.

    Raises
    ------
    DataError
        For a folder or file that is missing or damaged.
    ValueError
        For an unknown name.
    """
    if name == "digits":
        return load_digits()
    if name != "mnist":
        raise ValueError(f"data set must be one of mnist, digits, not {name!r}")
    folder = folder or os.environ.get("MACAW_DATA")
    if folder:
        return load_idx_folder(folder)
    try:
        return load_mnist()
    except DataError as error:
        announce(f"{error}. Using the handwritten digits (8 x 8) that ship with scikit-learn instead; "
                 "for MNIST pass --data DIR or set MACAW_DATA.")
        return load_digits()


def load_idx_folder(folder: str | os.PathLike) -> Dataset:
    """An MNIST-shaped data set from the four idx files in ``folder``, each with or without ``.gz``.

    The folder's name becomes that of the data set.
    """
    folder = Path(folder)
    if not folder.is_dir():
        names = ", ".join(name.removesuffix(".gz") for name in MNIST_FILES)
        raise DataError(f"data folder {folder} does not exist; it must hold {names}, each with or without "
                        ".gz")
    paths = [_find(folder, name.removesuffix(".gz")) for name in MNIST_FILES]
    return _from_files(paths, folder.resolve().name)


def load_mnist() -> Dataset:
    """MNIST from the cache, which is filled from a mirror, with checksums.

    Raises
    ------
    DataError
        When a file is not in the cache and no mirror can be reached, within seconds.
    """
    import pooch

    cache = Path(pooch.os_cache("macaw")) / "mnist"
    return _from_files([_fetch(cache, name, sha256) for name, sha256 in MNIST_FILES.items()], "mnist")


def load_digits() -> Dataset:
    """The 1,797 handwritten digits (8 x 8) that ship with scikit-learn; every fifth is a test image."""
    from sklearn import datasets

    digits = datasets.load_digits()
    x = np.rint(digits.data * (255 / 16)).astype(np.uint8)
    y = digits.target.astype(np.uint8)
    test = np.arange(len(y)) % 5 == 4
    return Dataset("digits", x[~test], y[~test], x[test], y[test], 10)


def read_idx(path: str | os.PathLike, dimensions: int) -> np.ndarray:
    """The uint8 array with that number of dimensions in an idx file, compressed if it ends in ``.gz``.

    Raises
    ------
    DataError
        For a file that is missing, unreadable, damaged, of another type or shape, truncated or too long.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path} is damaged: {error}; fetch it again") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    magic, header = 0x800 + dimensions, 4 * (1 + dimensions)
    if len(content) < header:
        raise DataError(f"{path} is truncated: {len(content)} bytes, the header alone needs {header}")
    found, *shape = (int(word) for word in np.frombuffer(content, ">u4", 1 + dimensions))
    if found != magic:
        raise DataError(f"{path} must start with the magic number {magic:#010x} (uint8, {dimensions} "
                        f"dimensions), not {found:#010x}")
    expected = header + math.prod(shape)
    if len(content) != expected:
        what = "is truncated" if len(content) < expected else "is too long"
        raise DataError(f"{path} {what}: {len(content)} bytes, its header {shape} calls for {expected}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _from_files(paths: list[Path], name: str) -> Dataset:
    train_x, train_y = _read_pair(*paths[:2])
    test_x, test_y = _read_pair(*paths[2:])
    if train_x.shape[1:] != test_x.shape[1:]:
        raise DataError(f"images in {paths[0]} are {_size(train_x)}, but {_size(test_x)} in {paths[2]}")
    classes = int(max(train_y.max(), test_y.max())) + 1
    return Dataset(name, train_x.reshape(len(train_x), -1), train_y,
                   test_x.reshape(len(test_x), -1), test_y, classes)


def _read_pair(images: Path, labels: Path) -> tuple[np.ndarray, np.ndarray]:
    x, y = read_idx(images, 3), read_idx(labels, 1)
    if len(x) != len(y):
        raise DataError(f"{images} holds {len(x)} images, but {labels} {len(y)} labels; "
                        "the two files must belong together")
    if x.size == 0:
        raise DataError(f"{images} holds no images")
    return x, y


def _size(images: np.ndarray) -> str:
    return " x ".join(str(n) for n in images.shape[1:])


def _find(folder: Path, name: str) -> Path:
    for stem in (name, name.replace("-idx", ".idx")):
        for path in (folder / stem, folder / f"{stem}.gz"):
            if path.exists():
                return path
    raise DataError(f"{folder} has no {name} (or {name}.gz); the folder must hold the four idx files")


def _fetch(cache: Path, name: str, sha256: str) -> Path:
    import pooch

    path = cache / name
    if path.exists() and pooch.file_hash(str(path)) == sha256:
        return path
    pooch.get_logger().setLevel("ERROR")
    problems = []
    for mirror in MNIST_MIRRORS:
        if not _reachable(mirror + name):
            problems.append("no network")
            continue
        try:
            pooch.retrieve(mirror + name, sha256, name, cache,
                           downloader=pooch.HTTPDownloader(timeout=_READ_SECONDS))
            return path
        except (OSError, ValueError) as error:      # network and disk; checksum
            problems.append(str(error).splitlines()[0])
    reasons = "; ".join(dict.fromkeys(problems))
    raise DataError(f"MNIST is not in {cache} and cannot be downloaded ({reasons})")


def _reachable(url: str) -> bool:
    """Whether the server answers in time. In a thread, because looking up a name has no time limit."""
    import requests

    answers = []
    def probe():
        with suppress(requests.RequestException):
            answers.append(requests.head(url, timeout=_PROBE_SECONDS, allow_redirects=True).ok)
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return any(answers)
