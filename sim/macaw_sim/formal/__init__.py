"""Proofs about the accelerator's units, on the real modules: ``python -m macaw_sim.formal``."""

from . import arbiters  # noqa: F401  (each module registers its proofs)
from .bench import PROOFS

__all__ = ["PROOFS"]
