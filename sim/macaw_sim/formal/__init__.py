"""Proofs about the accelerator's units, on the real modules: ``python -m macaw_sim.formal``."""

from . import arbiters, bursts, bytes, fetching, fifos, loads, memories, queues, registers, stores, tokens, top, units  # noqa: F401
from .bench import PROOFS

__all__ = ["PROOFS"]
