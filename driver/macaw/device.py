"""The device as the host sees it: registers, memory, programs, counters, and faults as exceptions."""

import gc
import weakref
from dataclasses import dataclass

import numpy as np
from macaw_hw.config import Config, named_config
from macaw_hw.isa import INSTRUCTION_BYTES, Fault, FaultUnit
from macaw_hw.registers import CONFIG_REGISTERS, COUNTERS, IDENTITY, REGISTERS, VERSION

from .disassembler import disassemble
from .faults import FAULTS, DeviceError, DeviceTimeout

__all__ = ["Device", "Tensor"]

_FIRST_ADDRESS = 4096      # address 0 stays outside the window, so that a forgotten address faults
_ALIGNMENT = 4096
_DRAIN_READS = 10_000      # of a register, each at least a few cycles


@dataclass(frozen=True, eq=False)
class Tensor:
    """Allocated memory of a device.

    Attributes
    ----------
    name : str
    address, size : int
        Bytes; ``address`` is a multiple of 4096.
    bytes : ndarray of uint8
        The memory itself, shared with the device.
    """
    name: str
    address: int
    size: int
    bytes: np.ndarray

    def view(self, dtype, shape):
        """The first elements as an array that shares the memory."""
        count = int(np.prod(shape))
        return self.bytes[:count * np.dtype(dtype).itemsize].view(dtype).reshape(shape)


class Device:
    """An accelerator with its memory.

    Parameters
    ----------
    config : str or macaw_hw.config.Config
        Name of a supported configuration, or one of your own.
    backend : str
        ``"verilator"`` (the RTL) or ``"emulator"`` (bit-exact, faster).
    dram_bytes : int
        Size of its memory, a multiple of 4096.
    options
        Options of the backend.

    A context manager; :meth:`close` releases the backend.

    Attributes
    ----------
    config : Config
    backend : macaw_sim.backend.Backend
    backend_name : str
    closed : bool
    resident : object or None
        Whoever left data on chip that is still there. Its method ``leave()`` is called before the next program runs and
        may run another first; whoever goes on with the data takes itself off before.

    Raises
    ------
    ValueError
        For an unknown configuration or backend.
    DeviceError
        When what answers is not this accelerator in this configuration.
    """

    def __init__(self, config="n16", backend="verilator", dram_bytes=64 << 20, **options):
        from macaw_sim.backend import create_backend

        self.config = config if isinstance(config, Config) else named_config(config)
        self.backend_name = backend
        self.backend = create_backend(backend, self.config, dram_bytes=dram_bytes, **options)
        self.resident, self.closed = None, False
        self._tensors = {}
        self._closing = weakref.WeakSet()
        self._programs = weakref.WeakKeyDictionary()
        try:
            self._identify()
            self._write("irq_enable", self._irq_mask)
        except BaseException:
            self.backend.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    def close(self):
        """Release the backend and with it the memory. Calling it again does nothing.

        Parameters that were trained here are fetched first.
        """
        while self._closing:
            self._closing.pop().fetch()
        self.closed = True
        self.backend.close()

    def before_close(self, owner):
        """Have ``owner.fetch()`` called before the memory goes away, if ``owner`` still exists then."""
        self._closing.add(owner)

    @property
    def dram(self):
        """All of the device's memory, an array of uint8."""
        return self.backend.dram

    # Registers

    def _read(self, name):
        register = REGISTERS[name]
        value = self.backend.read_register(register.offset)
        if register.width == 64:
            value |= self.backend.read_register(register.offset + 4) << 32
        return value

    def _write(self, name, value):
        register = REGISTERS[name]
        self.backend.write_register(register.offset, value & 0xFFFFFFFF)
        if register.width == 64:
            self.backend.write_register(register.offset + 4, value >> 32)

    def _bits(self, name):
        value = self._read(name)
        return {bits.name: bits.extract(value) for bits in REGISTERS[name].bits}

    def _identify(self):
        if (identity := self._read("identity")) != IDENTITY:
            raise DeviceError(f"identity register must read {IDENTITY:#x}, not {identity:#x}: no Macaw is there")
        if (version := self._read("version")) >> 16 != VERSION >> 16:
            raise DeviceError(f"major version must be {VERSION >> 16}, not {version >> 16}: generate the hardware anew")
        for name in CONFIG_REGISTERS:
            if (value := self._read(name)) != getattr(self.config, name):
                raise DeviceError(f"the device has {name} {value}, not {getattr(self.config, name)}: "
                                  "open it with its own configuration")

    # Memory

    def allocate(self, name, size):
        """A new :class:`Tensor` of ``size`` zeroed bytes. ``DeviceError`` when the memory is full."""
        size = max(-(-int(size) // _ALIGNMENT) * _ALIGNMENT, _ALIGNMENT)
        limit = min(self.dram.size, 1 << self.config.address_width)
        if (address := self._find(size)) + size > limit:
            gc.collect()        # programs that nobody uses any more may still hold memory
            address = self._find(size)
        if address + size > limit:
            used = sum(tensor.size for tensor in self._tensors.values())
            raise DeviceError(f"{name} needs {size} bytes, but {used} of {limit} bytes of device memory are in use; "
                              "open the device with a larger dram_bytes")
        tensor = Tensor(name, address, size, self.dram[address:address + size])
        tensor.bytes[:] = 0
        self._tensors[address] = tensor
        return tensor

    def _find(self, size):
        """The lowest address with ``size`` free bytes behind it, which may lie beyond the end of memory."""
        address = _FIRST_ADDRESS
        for taken in sorted(self._tensors):
            if address + size <= taken:
                break
            address = taken + self._tensors[taken].size
        return address

    def free(self, tensor):
        """Give the memory back."""
        if self._tensors.get(tensor.address) is not tensor:
            raise DeviceError(f"{tensor.name} is not allocated on this device")
        del self._tensors[tensor.address]

    @property
    def window(self):
        """First byte that the device may touch, and first byte beyond."""
        if not self._tensors:
            return 0, 0
        last = max(self._tensors)
        return min(self._tensors), last + self._tensors[last].size

    # Programs

    def run(self, program, max_cycles=None):
        """Run a program to its end.

        Parameters
        ----------
        program : macaw.program.Program
            Copied to the memory of the device when it runs for the first time; it must not change afterwards.
        max_cycles : int, optional
            Give up after so many cycles; by default far more than the program can need.

        Returns
        -------
        dict of str to int
            The counters (`macaw_hw.registers.COUNTERS`).

        Raises
        ------
        DeviceFault
            One subclass for each fault, see :mod:`macaw.faults`. The device then runs the next program.
        DeviceTimeout
            After ``max_cycles``; the program is aborted.
        """
        resident, self.resident = self.resident, None
        if resident is not None:
            resident.leave()
        tensor = self._upload(program)
        base, limit = self.window
        for name, value in (("window_base", base), ("window_limit", limit), ("program_address", tensor.address),
                            ("program_length", len(program))):
            self._write(name, value)
        self._write("irq_status", self._irq_mask)
        control = {bits.name: bits.mask for bits in REGISTERS["control"].bits}
        self._write("control", control["start"])
        limit = max_cycles if max_cycles is not None else (1 << 20) + 100 * program.estimate
        if not self.backend.wait_interrupt(limit):
            self._abort(control["abort"])
            raise DeviceTimeout(f"the program did not end within {limit} cycles and was aborted; "
                                "allow more with max_cycles, or look for slow memory")
        fault = self._fault(tensor) if self._bits("status")["fault"] else None
        self._drain()
        if fault is not None:
            raise fault
        return {name: self._read(name) for name in COUNTERS}

    @property
    def _irq_mask(self):
        return sum(bits.mask for bits in REGISTERS["irq_status"].bits)

    def _upload(self, program):
        if program.config != self.config:
            raise DeviceError("the program was built for another configuration than the device has")
        if program not in self._programs:
            content = program.to_bytes()
            tensor = self.allocate("program", len(content))
            tensor.bytes[:len(content)] = np.frombuffer(content, dtype=np.uint8)
            self._programs[program] = tensor
            weakref.finalize(program, self._tensors.pop, tensor.address, None)
        return self._programs[program]

    def _abort(self, mask):
        self._write("control", mask)
        self._drain()

    def _drain(self):
        """Wait until the device is idle: after a fault or an abort it lets outstanding bursts end first. One that
        does not become idle is reset."""
        for _ in range(_DRAIN_READS):
            if not self._bits("status")["running"]:
                return
        self.backend.reset()
        self._write("irq_enable", self._irq_mask)

    def _fault(self, tensor):
        index = self._read("fault_instruction")
        unit = FaultUnit(self._read("fault_unit")).name.lower()
        start = index * INSTRUCTION_BYTES
        return FAULTS[Fault(self._read("fault_code"))](unit, index, disassemble(bytes(
            tensor.bytes[start:start + INSTRUCTION_BYTES])))
