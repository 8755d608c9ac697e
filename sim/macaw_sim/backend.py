"""What a simulated device offers to the driver, and the choice of one by name."""

from typing import Protocol, runtime_checkable

import numpy as np
from macaw_hw.config import Config

__all__ = ["BACKENDS", "DRAM_BYTES", "Backend", "BusError", "create_backend"]

DRAM_BYTES = 64 << 20
"""Size of the memory unless another is asked for."""


class BusError(RuntimeError):
    """A register access that the device answered with SLVERR."""


@runtime_checkable
class Backend(Protocol):
    """A device with its memory, as the driver sees it: registers, an interrupt, and DRAM as an array.

    Attributes
    ----------
    config : Config
        The configuration of the device.
    dram : ndarray of uint8
        The memory that the device's AXI4 master reaches, shared without copies: byte address 0 is
        ``dram[0]``. An access beyond its end is answered with a bus error. Owned by the backend; gone after
        :meth:`close`.
    """

    config: Config
    dram: np.ndarray

    def read_register(self, offset: int) -> int:
        """The 32-bit register at byte ``offset``. Raises `BusError` when the device answers SLVERR."""

    def write_register(self, offset: int, value: int) -> None:
        """Write 32 bits to the register at byte ``offset``. Raises `BusError` as `read_register` does."""

    def wait_interrupt(self, max_cycles: int) -> bool:
        """Run the clock until ``irq`` is high, at most ``max_cycles``. Returns the level of ``irq``."""

    def reset(self) -> None:
        """Hard reset (the ``rst`` pin) of the device; ``dram`` keeps its contents."""

    def close(self) -> None:
        """Release what the backend holds. Calling it again does nothing."""


def _emulator(config, **options):
    from .emulator.backend import EmulatorBackend
    return EmulatorBackend(config, **options)


def _verilator(config, **options):
    from .verilator.backend import VerilatorBackend
    return VerilatorBackend(config, **options)


def _cocotb(config, **options):
    from .cocotb_backend import CocotbBackend
    return CocotbBackend(config, **options)


def _serial(config, **options):
    from .serial_backend import SerialBackend
    return SerialBackend(config, **options)


_FACTORIES = {"emulator": _emulator, "verilator": _verilator, "cocotb": _cocotb, "serial": _serial}

BACKENDS = tuple(_FACTORIES)
"""Names that :func:`create_backend` takes."""


def create_backend(name: str, config: Config, *, dram_bytes: int = DRAM_BYTES, **options) -> Backend:
    """A new device of ``config`` with ``dram_bytes`` bytes of zeroed memory.

    Parameters
    ----------
    name : str
        One of :data:`BACKENDS`. A backend is imported only when it is asked for.
    options
        Options of that backend. ``verilator`` takes, among others, those of its memory model (latency,
        bandwidth, stalls, seed) and of its waveform; ``emulator`` accepts and ignores them, because its
        results depend on no timing, so that a backend is exchanged by changing ``name`` alone. ``serial``
        needs ``port``, the serial line of a board.

    Raises
    ------
    ValueError
        When ``name`` is none of :data:`BACKENDS`.
    """
    try:
        factory = _FACTORIES[name]
    except KeyError:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, not {name!r}") from None
    return factory(config, dram_bytes=dram_bytes, **options)
