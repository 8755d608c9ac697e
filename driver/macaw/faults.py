"""The faults of the device as exceptions."""

from macaw_hw.isa import Fault

from .errors import MacawError

__all__ = ["BusReadFault", "BusWriteFault", "DeviceError", "DeviceFault", "DeviceTimeout", "FAULTS",
           "IllegalInstructionFault", "LocalAddressFault", "NonFiniteFault", "TokensFault", "WatchdogFault",
           "WindowFault"]


class DeviceError(MacawError):
    """The device cannot be used as asked."""


class DeviceTimeout(DeviceError):
    """A program did not end within the cycles it was given; it was aborted."""


class DeviceFault(DeviceError):
    """The device stopped a program. It is ready for the next one.

    Attributes
    ----------
    fault : macaw_hw.isa.Fault
    unit : str
        The queue or the sequencer, in lower case.
    instruction : int
        Index in the program.
    text : str
        That instruction, disassembled.
    """
    fault = Fault.NONE
    what = ""
    remedy = ""

    def __init__(self, unit, instruction, text):
        self.unit, self.instruction, self.text = unit, instruction, text
        super().__init__(f"{self.what} ({self.fault.name}, {unit} unit, instruction {instruction}: {text}). "
                         f"{self.remedy}")


class IllegalInstructionFault(DeviceFault):
    fault = Fault.ILLEGAL_INSTRUCTION
    what = "the device met an instruction that it cannot execute"
    remedy = "Build programs with macaw.Program; if one did, the program in memory was overwritten: run it again."


class LocalAddressFault(DeviceFault):
    fault = Fault.LOCAL_ADDRESS
    what = "an instruction addressed a vector row or tile that the configuration does not have"
    remedy = "Build the program for the configuration of this device."


class WindowFault(DeviceFault):
    fault = Fault.WINDOW
    what = "the program touched memory outside the window of allocated memory"
    remedy = "Allocate every buffer of the program with device.allocate, and keep it allocated while it runs."


class BusReadFault(DeviceFault):
    fault = Fault.BUS_READ
    what = "the memory answered a read with an error"
    remedy = "Check that the memory of the device reaches to the end of its window; run the program again."


class BusWriteFault(DeviceFault):
    fault = Fault.BUS_WRITE
    what = "the memory answered a write with an error"
    remedy = "Check that the memory of the device reaches to the end of its window; run the program again."


class NonFiniteFault(DeviceFault):
    fault = Fault.NON_FINITE
    what = "a value became infinite or NaN"
    remedy = ("If this was training, it diverged: load an earlier checkpoint (parameters may be updated in part) and "
              "lower the learning rate.")


class WatchdogFault(DeviceFault):
    fault = Fault.WATCHDOG
    what = "the program made no progress"
    remedy = "Each wait needs a post of the other queue; macaw.Program inserts both."


class TokensFault(DeviceFault):
    fault = Fault.TOKENS
    what = "more tokens were posted than the device can count"
    remedy = "Split the program; macaw.Program checks this limit."


FAULTS = {cls.fault: cls for cls in (IllegalInstructionFault, LocalAddressFault, WindowFault, BusReadFault,
                                     BusWriteFault, NonFiniteFault, WatchdogFault, TokensFault)}
"""The exception for each fault."""
