"""The emulated device: runs programs that lie in DRAM."""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from macaw_hw.config import Config
from macaw_hw.isa import INSTRUCTION_BYTES, Fault, FaultUnit

from .program import Program
from .state import DeviceFault, State

__all__ = ["Emulator", "Outcome"]

_PROGRAMS = 128
"""Decoded programs that an emulator keeps."""


@dataclass(frozen=True)
class Outcome:
    """How a program ended.

    Attributes
    ----------
    fault, unit, instruction : Fault, FaultUnit, int
        NONE, or why, where, and the index of the instruction.
    instructions : int
        Instructions completed.
    """

    fault: Fault
    unit: FaultUnit
    instruction: int
    instructions: int


class Emulator:
    """Executes encoded programs bit for bit as the device does, in an order that its tokens allow.

    A new program is decoded, scheduled and checked; its later runs only compute. A training step of 784-128-10 with
    a batch of 64 on `n16` (697 instructions) takes about 22 ms of one core, and about 10 times that the first time.

    What a faulting instruction writes before the fault is found, and how far other queues are by then,
    depends on timing in the device; here it writes nothing, and instructions of other queues may have run or
    not. Of several faults of one instruction, which the device names as it meets them, it names the local address,
    then the window, then the bus, then the value. A program is fetched as a whole when it starts; it must not
    write to itself.

    Parameters
    ----------
    config : Config
    dram : uint8 array
        Memory, used in place.
    check : bool
        Check each new program for missing synchronization.

    Attributes
    ----------
    state : State
        The memories; to be looked at and set at will between programs.
    """

    def __init__(self, config: Config, dram: np.ndarray, *, check: bool = True):
        self.config = config
        self.check = check
        self.state = State(config, dram)
        self._programs: OrderedDict[bytes, Program] = OrderedDict()

    def run(self, address: int, length: int) -> Outcome:
        """Run the ``length`` instructions at byte ``address`` to their end.

        Raises
        ------
        SynchronizationError
            Before anything is executed, when tokens leave the order of two conflicting accesses open.
        """
        fetched, missing = self._fetch(address, length)
        program = self._program(fetched)
        if self.check:
            program.check()
        done = 0
        for index in program.schedule.order:
            try:
                program.steps[index].run(self.state)
            except DeviceFault as stop:
                return Outcome(stop.code, FaultUnit(program.headers[index].queue), index, done)
            done += 1
        stuck = program.schedule
        if stuck.fault == Fault.TOKENS:
            return Outcome(stuck.fault, FaultUnit(program.headers[stuck.at].queue), stuck.at, done)
        if stuck.fault != Fault.NONE:
            return Outcome(stuck.fault, FaultUnit.SEQUENCER, stuck.at, done)
        fault = Fault.ILLEGAL_INSTRUCTION if program.illegal else missing
        if fault != Fault.NONE:
            return Outcome(fault, FaultUnit.SEQUENCER, len(program.steps), done)
        return Outcome(Fault.NONE, FaultUnit.LOAD, 0, done)

    def _fetch(self, address: int, length: int) -> tuple[bytes, Fault]:
        """The instructions that can be fetched, and why the next one cannot (NONE after the last one)."""
        state = self.state
        beyond = address + length * INSTRUCTION_BYTES
        fault = Fault.NONE
        if not state.inside(address, beyond):
            limit = min(state.window[1], 1 << self.config.address_width)
            inside = limit - address if state.window[0] <= address else 0
            length, fault = max(0, min(length, inside // INSTRUCTION_BYTES)), Fault.WINDOW
        if length and (state.bus_errors or beyond > state.dram.size):
            starts = address + np.arange(length) * INSTRUCTION_BYTES
            answered = [state.answers(start, INSTRUCTION_BYTES, Fault.BUS_READ) for start in starts[:, None]]
            if not all(answered):
                length, fault = answered.index(False), Fault.BUS_READ
        return state.dram[address:address + length * INSTRUCTION_BYTES].tobytes(), fault

    def _program(self, content: bytes) -> Program:
        program = self._programs.get(content)
        if program is None:
            program = self._programs[content] = Program(content, self.config)
            if len(self._programs) > _PROGRAMS:
                self._programs.popitem(last=False)
        else:
            self._programs.move_to_end(content)
        return program
