"""The device as the host sees it: registers, memory, programs, counters, and faults as exceptions."""

__all__ = ["Device"]


class Device:
    """An accelerator with its memory.

    Parameters
    ----------
    config : str or macaw_hw.config.Config
        Name of a supported configuration, or one of your own.
    backend : str
        ``"verilator"`` (the RTL) or ``"emulator"`` (bit-exact, faster).
    dram_bytes : int
    options
        Options of the backend.

    A context manager; ``close()`` releases the backend. ``device.config``, ``device.backend_name`` and
    ``device.dram`` (uint8 array) are readable.
    """

    def __init__(self, config="n16", backend="verilator", dram_bytes=64 << 20, **options):
        raise NotImplementedError

    def run(self, program, max_cycles=None):
        """Run a program to its end and return the counters, a dict of `macaw_hw.registers.COUNTERS`."""
        raise NotImplementedError

    def close(self):
        raise NotImplementedError
