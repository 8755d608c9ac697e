"""Runs the vectors of a unit and says what differs."""

import hashlib
import time
from dataclasses import dataclass
from functools import cache

import numpy as np

from .build import Stream, generated

__all__ = ["PIECE", "Result", "run", "verilog_of"]

PIECE = 1 << 20
"""Vectors at a time."""
_SHOWN = 5


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes
    ----------
    unit : str
    vectors, mismatches : int
        A run ends with the first piece that has a mismatch.
    seconds : float
    examples : tuple of str
        The first mismatches.
    """
    unit: str
    vectors: int
    mismatches: int
    seconds: float
    examples: tuple = ()

    @property
    def rate(self):
        """Millions of vectors per second."""
        return self.vectors / self.seconds / 1e6


def verilog_of(unit):
    """The Verilog of a `units.Unit`, remembered until this process ends."""
    return _verilog(unit.top)


@cache
def _verilog(top):
    return generated(top())


def run(unit, vectors=None, seed=1, text=None, progress=None):
    """Compare ``unit`` with NumPy on at least ``vectors`` vectors; a `Result`.

    Parameters
    ----------
    unit : units.Unit
    vectors : int, optional
        By default those of the unit.
    seed : int
        Of the random choices; a piece depends on it, the unit, and where it begins.
    text : str, optional
        Verilog instead of that of the unit.
    progress : callable, optional
        Called with the number of vectors after each piece.
    """
    total = unit.vectors if vectors is None else vectors
    stream = Stream(verilog_of(unit) if text is None else text)
    salt = int.from_bytes(hashlib.sha256(unit.name.encode()).digest()[:4], "little")
    begun, start, done = time.perf_counter(), 0, 0
    while start < total:
        count = min(PIECE, total - start)
        piece = unit.draw(np.random.default_rng((seed, salt, start)), start, count, total)
        results = piece.read(stream.run(piece.inputs, piece.outputs))
        start, done = start + count, done + piece.vectors
        if not np.array_equal(results, piece.expected):
            wrong = np.flatnonzero(results != piece.expected)
            return Result(unit.name, done, len(wrong), time.perf_counter() - begun,
                          tuple(_describe(piece, results, i) for i in wrong[:_SHOWN]))
        if progress:
            progress(done)
    return Result(unit.name, done, 0, time.perf_counter() - begun)


def _describe(piece, results, i):
    operands = ", ".join(f"{name}={int(bits[i]):#010x}" for name, bits in piece.operands.items())
    return f"{operands}: {int(results[i]):#010x}, NumPy {int(piece.expected[i]):#010x}"
