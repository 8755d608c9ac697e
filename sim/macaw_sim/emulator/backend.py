"""The emulator behind the register map of the device."""

import numpy as np
from macaw_hw.config import Config
from macaw_hw.isa import INDEX_WIDTH, INSTRUCTION_BYTES, Fault
from macaw_hw.registers import CONFIG_REGISTERS, COUNTERS, REGISTERS, Access

from ..backend import DRAM_BYTES, BusError
from .device import Emulator

__all__ = ["EmulatorBackend"]

_PAGE = 4096
_DONE, _FAULT, _ABORTED = (1 << bits.low for bits in REGISTERS["irq_status"].bits)
_DIRECTIONS = {"read": frozenset({Fault.BUS_READ}), "write": frozenset({Fault.BUS_WRITE}),
               "both": frozenset({Fault.BUS_READ, Fault.BUS_WRITE})}
_WORDS = {register.offset + low // 8: (name, low)
          for name, register in REGISTERS.items() for low in range(0, register.width, 32)}


class EmulatorBackend:
    """A :class:`~macaw_sim.backend.Backend` that computes programs instead of simulating hardware.

    A program runs to its end within the write of the doorbell. There is no clock: of the counters only
    ``instructions`` counts, the others stay 0, and the watchdog ends at once what can never go on (where it
    is switched off, such a program runs until it is aborted).

    Parameters
    ----------
    config : Config
    dram_bytes : int
        Size of the memory, a multiple of 4096.
    check : bool
        Raise `SynchronizationError` from the doorbell, before anything runs, for a program whose result
        would depend on timing.
    options
        Those of other backends are accepted and have no effect.

    Attributes
    ----------
    config, dram
        As `macaw_sim.backend.Backend` defines them.
    emulator : Emulator
        The device without its registers; its ``state`` has the local memories.
    """

    def __init__(self, config: Config, *, dram_bytes: int = DRAM_BYTES, check: bool = True, **options):
        if dram_bytes <= 0 or dram_bytes % _PAGE:
            raise ValueError(f"dram_bytes must be a positive multiple of {_PAGE}, not {dram_bytes!r}")
        self.config = config
        self.dram = np.zeros(dram_bytes, np.uint8)
        self.emulator = Emulator(config, self.dram, check=check)
        width = config.address_width
        # The bits of a locked register that exist; the others read as zero.
        self._masks = {"program_address": (1 << width) - INSTRUCTION_BYTES,
                       "program_length": (1 << INDEX_WIDTH) - 1,
                       "watchdog": (1 << 32) - 1, "window_base": (2 << width) - 1,
                       "window_limit": (2 << width) - 1}
        self.reset()

    def reset(self) -> None:
        """Registers as after power-up; the contents of the local memories stay, as those of ``dram`` do."""
        self._values = {name: register.reset for name, register in REGISTERS.items()}
        self._values |= {name: getattr(self.config, name) for name in CONFIG_REGISTERS}
        self._latched = 0

    def inject_error(self, address: int, length: int = 1, *, response: str = "SLVERR",
                     on: str = "both") -> None:
        """Answer accesses that touch ``length`` bytes at ``address`` with a bus error, from now on.

        ``on`` is ``read``, ``write`` or ``both``; ``response`` is ``SLVERR`` or ``DECERR``, which the device
        does not tell apart.
        """
        for name, value, choices in (("response", response, ("SLVERR", "DECERR")), ("on", on, _DIRECTIONS)):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        self._open().state.bus_errors.append((address, address + length, _DIRECTIONS[on]))

    def clear_errors(self) -> None:
        """Undo all `inject_error`."""
        self._open().state.bus_errors.clear()

    def read_register(self, offset: int) -> int:
        name, low = self._find(offset)
        if name in COUNTERS:
            if low:
                return self._latched
            self._latched = self._values[name] >> 32
        return self._values[name] >> low & 0xFFFFFFFF

    def write_register(self, offset: int, value: int) -> None:
        name, low = self._find(offset)
        if not 0 <= value < 1 << 32:
            raise ValueError(f"value must be from 0 to 4294967295, not {value}")
        register = REGISTERS[name]
        if register.access == Access.READ:
            raise BusError(f"write of {name} (offset 0x{offset:03x}) answered SLVERR: it is read only")
        if register.locked and self._running:
            raise BusError(f"write of {name} (offset 0x{offset:03x}) answered SLVERR: a program runs")
        if name == "control":
            self._control(value)
        elif name == "irq_status":
            self._values[name] &= ~value
        elif name == "irq_enable":
            self._values[name] = value & (_DONE | _FAULT | _ABORTED)
        else:
            kept = self._values[name] & ~(0xFFFFFFFF << low)
            self._values[name] = (kept | value << low) & self._masks[name]

    def wait_interrupt(self, max_cycles: int) -> bool:
        self._open()
        return bool(self._values["irq_status"] & self._values["irq_enable"])

    def close(self) -> None:
        self.dram = self.emulator = None  # type: ignore[assignment]

    def _open(self):
        if self.emulator is None:
            raise RuntimeError("the backend is closed")
        return self.emulator

    def _find(self, offset):
        self._open()
        try:
            return _WORDS[offset & -4]
        except KeyError:
            raise BusError(f"access to offset 0x{offset:03x} answered SLVERR: no register is there") from None

    @property
    def _running(self):
        return bool(self._values["status"] & REGISTERS["status"].bits[0].mask)

    def _control(self, value):
        start, abort = (value & bits.mask for bits in REGISTERS["control"].bits)
        if start and not self._running:
            self._start()
        elif abort and self._running:
            self._end(_ABORTED)

    def _start(self):
        values = self._values
        state = self.emulator.state
        state.window = values["window_base"], values["window_limit"]
        outcome = self.emulator.run(values["program_address"], values["program_length"])
        values.update(dict.fromkeys((*COUNTERS, "fault_code", "fault_unit", "fault_instruction"), 0))
        values["instructions"] = outcome.instructions
        if outcome.fault == Fault.WATCHDOG and not values["watchdog"]:
            values["status"] = REGISTERS["status"].bits[0].mask
        elif outcome.fault == Fault.NONE:
            self._end(_DONE)
        else:
            values.update(fault_code=int(outcome.fault), fault_unit=int(outcome.unit),
                          fault_instruction=outcome.instruction)
            self._end(_FAULT)

    def _end(self, event):
        # Status has the events of the interrupt, in their order, above the running bit.
        self._values["status"] = event << REGISTERS["status"].bits[1].low
        self._values["irq_status"] |= event
