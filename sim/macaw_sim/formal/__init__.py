"""Proofs about the accelerator's units, on the real modules: ``python -m macaw_sim.formal``."""

from . import (  # noqa: F401
    arbiters,
    bursts,
    bytes,
    fetching,
    fifos,
    loads,
    memories,
    queues,
    registers,
    shifting,
    stores,
    tokens,
    top,
    units,
)
from .bench import PROOFS

__all__ = ["PROOFS"]
