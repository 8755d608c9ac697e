"""Data sets: reading idx files, what happens when they are bad, and where MNIST comes from."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
from macaw import data

NAMES = [name.removesuffix(".gz") for name in data.MNIST_FILES]


def idx(array):
    return struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def arrays(rng):
    """An MNIST-shaped data set of 3 x 5 images: 7 to train, 4 to test."""
    return [rng.integers(0, 256, (7, 3, 5), np.uint8), np.arange(7, dtype=np.uint8) % 4,
            rng.integers(0, 256, (4, 3, 5), np.uint8), np.arange(4, dtype=np.uint8)]


@pytest.fixture
def folder(tmp_path, arrays):
    for name, array in zip(NAMES, arrays, strict=True):
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_idx_folder(tmp_path, arrays, compressed, dotted):
    for name, array in zip(NAMES, arrays, strict=True):
        name = name.replace("-idx", ".idx") if dotted else name
        content = gzip.compress(idx(array)) if compressed else idx(array)
        (tmp_path / (name + ".gz" * compressed)).write_bytes(content)
    found = data.load("mnist", tmp_path)
    assert (found.name, found.classes, found.features) == (tmp_path.name, 4, 15)
    for ours, theirs in zip((found.train_x, found.train_y, found.test_x, found.test_y), arrays, strict=True):
        assert ours.dtype == np.uint8
        np.testing.assert_array_equal(ours, theirs.reshape(len(theirs), -1) if theirs.ndim == 3 else theirs)


def test_limit(folder, arrays):
    found = data.load("mnist", folder).limit(5, 2)
    np.testing.assert_array_equal(found.train_y, arrays[1][:5])
    np.testing.assert_array_equal(found.test_x, arrays[2][:2].reshape(2, -1))
    assert len(found.train_x) == 5 and len(found.test_y) == 2


def spoil(folder, name, change):
    path = folder / name
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize("change, message", [
    (lambda c: c[:-1], "is truncated: 120 bytes, its header [7, 3, 5] calls for 121"),
    (lambda c: c + b"x", "is too long: 122 bytes, its header [7, 3, 5] calls for 121"),
    (lambda c: c[:10], "is truncated: 10 bytes, the header alone needs 16"),
    (lambda c: b"", "is truncated: 0 bytes, the header alone needs 16"),
    (lambda c: b"\0\0\x08\x01" + c[4:],
     "must start with the magic number 0x00000803 (uint8, 3 dimensions), not 0x00000801"),
    (lambda c: c[:4] + struct.pack(">3I", 6, 3, 5) + c[16:-15],
     "holds 6 images, but {folder}/train-labels-idx1-ubyte 7 labels; the two files must belong together"),
    (lambda c: c[:4] + b"\xff" * 12 + c[16:], "is truncated: 121 bytes, its header [4294967295, "),
])
def test_bad_image_file(folder, change, message):
    spoil(folder, NAMES[0], change)
    with pytest.raises(data.DataError) as caught:
        data.load("mnist", folder)
    assert str(caught.value).startswith(f"{folder / NAMES[0]} " + message.format(folder=folder))


def test_no_images(folder):
    spoil(folder, NAMES[2], lambda c: c[:4] + struct.pack(">3I", 0, 3, 5))
    spoil(folder, NAMES[3], lambda c: c[:4] + struct.pack(">I", 0))
    with pytest.raises(data.DataError, match="t10k-images-idx3-ubyte holds no images"):
        data.load("mnist", folder)


def test_different_image_sizes(folder):
    spoil(folder, NAMES[2], lambda c: c[:8] + struct.pack(">2I", 5, 3) + c[16:])
    with pytest.raises(data.DataError, match="are 3 x 5, but 5 x 3 in"):
        data.load("mnist", folder)


@pytest.mark.parametrize("content", [b"not gzip at all", gzip.compress(bytes(99), mtime=0)[:-9], b"\x1f\x8b\x08\x00"])
def test_damaged_gzip(folder, content):
    (folder / NAMES[1]).unlink()
    (folder / (NAMES[1] + ".gz")).write_bytes(content)
    with pytest.raises(data.DataError, match=r"train-labels-idx1-ubyte.gz is damaged: .*; fetch it again"):
        data.load("mnist", folder)


def test_missing_file(folder):
    (folder / NAMES[3]).unlink()
    with pytest.raises(data.DataError, match="has no t10k-labels-idx1-ubyte .or t10k-labels-idx1-ubyte.gz.;"):
        data.load("mnist", folder)


def test_missing_folder(tmp_path):
    with pytest.raises(data.DataError, match="none does not exist; it must hold train-images-idx3-ubyte, "):
        data.load("mnist", tmp_path / "none")


def test_unreadable_file(folder):
    (folder / NAMES[0]).unlink()
    (folder / NAMES[0]).mkdir()
    with pytest.raises(data.DataError, match="train-images-idx3-ubyte cannot be read: Is a directory"):
        data.load("mnist", folder)


def test_unknown_name():
    with pytest.raises(ValueError, match="^data set must be one of mnist, digits, not 'cifar'$"):
        data.load("cifar")


def test_environment(folder, arrays, monkeypatch):
    monkeypatch.setenv("MACAW_DATA", str(folder))
    np.testing.assert_array_equal(data.load().train_y, arrays[1])


def test_cache_and_fallback(tmp_path, arrays, monkeypatch):
    """With an empty cache and no network the digits come, and are announced; with a filled cache MNIST."""
    monkeypatch.delenv("MACAW_DATA", raising=False)
    monkeypatch.setattr("pooch.os_cache", lambda project: tmp_path / project)
    monkeypatch.setattr(data, "MNIST_MIRRORS", ("http://127.0.0.1:9/",))
    lines = []
    assert data.load(announce=lines.append).name == "digits"
    cache = tmp_path / "macaw" / "mnist"
    assert lines == [f"MNIST is not in {cache} and cannot be downloaded (no network). Using the handwritten "
                     "digits (8 x 8) that ship with scikit-learn instead; for MNIST pass --data DIR or set "
                     "MACAW_DATA."]

    cache.mkdir(parents=True)
    hashes = {}
    for name, array in zip(data.MNIST_FILES, arrays, strict=True):
        content = gzip.compress(idx(array))
        (cache / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    monkeypatch.setattr(data, "MNIST_FILES", hashes)
    np.testing.assert_array_equal(data.load().test_y, arrays[3])
    (cache / next(iter(hashes))).write_bytes(b"changed")
    assert data.load(announce=lines.append).name == "digits"


def test_digits():
    digits = data.load_digits()
    assert (digits.train_x.shape, digits.test_x.shape, digits.classes) == ((1438, 64), (359, 64), 10)
    assert digits.train_x.dtype == np.uint8 and digits.train_x.min() == 0 and digits.train_x.max() == 255
    assert set(digits.test_y) == set(digits.train_y) == set(range(10))


def test_mnist_itself(mnist_folder):
    if mnist_folder is None:
        pytest.skip("MNIST is not at hand; set MACAW_DATA to its folder")
    mnist = data.load("mnist", mnist_folder)
    assert mnist.train_x.shape == (60000, 784) and mnist.test_x.shape == (10000, 784) and mnist.classes == 10
    assert mnist.train_y[:5].tolist() == [5, 0, 4, 1, 9] and mnist.test_y[:5].tolist() == [7, 2, 1, 0, 4]
