"""The device in NumPy: bit-exact, without a clock, and with a check for missing synchronization."""

from .backend import EmulatorBackend
from .device import Emulator, Outcome
from .program import describe
from .synchronization import SynchronizationError

__all__ = ["Emulator", "EmulatorBackend", "Outcome", "SynchronizationError", "describe"]
