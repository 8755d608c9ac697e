"""What a device holds while it runs a program."""

import numpy as np
from macaw_hw.config import Config
from macaw_hw.isa import Fault

__all__ = ["DeviceFault", "State"]


class DeviceFault(Exception):
    """An instruction cannot go on; ``code`` says why. The program ends and names the instruction."""

    def __init__(self, code: Fault):
        super().__init__(code.name)
        self.code = code


class State:
    """Local memories, DRAM and the window of one device.

    Attributes
    ----------
    bits, vector : uint32 and float32 [vector_rows, N]
        The vector memory, twice: the same bytes.
    mantissas, exponents : int8 [tiles, N, N] and int16 [tiles]
        The tile memory.
    dram : uint8 [bytes]
    window : (int, int)
        First byte that DMA and fetch may touch, first byte beyond.
    bus_errors : list of (int, int, set)
        Ranges (first byte, first byte beyond) of DRAM that answer with an error, to the accesses whose faults
        (BUS_READ, BUS_WRITE) are in the set.
    """

    def __init__(self, config: Config, dram: np.ndarray):
        self.config = config
        self.dram = dram
        self.window = (0, 0)
        self.bus_errors: list[tuple[int, int, frozenset]] = []
        self.bits = np.zeros((config.vector_rows, config.size), np.uint32)
        self.vector = self.bits.view(np.float32)
        self.mantissas = np.zeros((config.tiles, config.size, config.size), np.int8)
        self.exponents = np.zeros(config.tiles, np.int16)

    def inside(self, first: int, beyond: int) -> bool:
        """Whether all bytes are in the window and in the address space."""
        return self.window[0] <= first and beyond <= min(self.window[1], 1 << self.config.address_width)

    def answers(self, starts: np.ndarray, length: int, error: Fault) -> bool:
        """Whether the bus carries out accesses of ``length`` bytes at each of ``starts``, not ``error``.

        Whole beats are transferred, so a beat that contains an erroneous byte fails.
        """
        beat = self.config.bus_bytes
        if starts.max() + length > self.dram.size:
            return False
        first, beyond = starts & -beat, (starts + length + beat - 1) & -beat
        return not any(((first < stop) & (start < beyond)).any()
                       for start, stop, errors in self.bus_errors if error in errors)
