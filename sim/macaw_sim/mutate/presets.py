"""Registers of a netlist that a simulation can set: they would need days to get where their high bits matter.

While a preset is not 0, its register gets its ones in each cycle, beside the value that the hardware gives it.
"""

import ctypes
import re
from contextlib import contextmanager
from dataclasses import replace
from itertools import product

import numpy as np
from macaw_hw.isa import INDEX_WIDTH, Fault, Queue
from macaw_hw.registers import COUNTERS

from ..fuzz.case import Mismatch, counters, read, run, settle, start
from ..fuzz.directed import long_case
from ..fuzz.generator import Generator
from ..tools import ToolError
from ..verilator.backend import VerilatorBackend

__all__ = ["PRESETS", "add_presets", "check_high_bits", "preset"]

_BEFORE, _FETCHING, _QUIET = 3, 40, 500
_LOW = (len(Queue) * len(COUNTERS)).bit_length()
"""Bits of the counters that follow their short registers, and which any long program reaches."""

PRESETS = {"quiet": ("macaw.control", "quiet", 32), "index": ("macaw.sequencer", "index", 24),
           "counts": ("macaw.control.counters", "memory", 64)}
"""Module, register or memory, bits: cycles without progress, the index of the next instruction, the event counters."""
_VARIABLE = """`systemc_header
#include <cstdint>
extern "C" {{ __attribute__((visibility("default"))) inline uint64_t macaw_preset_{name} = 0; }}
`verilog
"""


def add_presets(verilog: str) -> str:
    """``verilog``, as Yosys writes it, with all of `PRESETS`, which are 0."""
    for name, (module, register, bits) in PRESETS.items():
        start = verilog.index(f"\nmodule \\{module} (") + 1
        end = verilog.index("\nendmodule", start)
        verilog = verilog[:start] + _changed(verilog[start:end], name, register, bits) + verilog[end:]
    return verilog


def _changed(text, name, register, bits):
    # A register that a mutation changes has a name of Yosys.
    other = re.search(rf"^  assign (?:\{{.*\b{register}\[.*\}}|{register}) = (_\d+_);$", text, re.MULTILINE)
    places = "|".join([register, *(other.groups() if other else ())])
    ones = "".join(f'$c32("macaw_preset_{name} >> {low}"), ' for low in range((bits - 1) // 32 * 32, -1, -32))
    text, count = re.subn(rf"^( *(?:{places})(?: *\[.*\])? <= )(.*);$", rf"\1(\2) | {{{ones[:-2]}}};", text,
                          flags=re.MULTILINE)
    if count != 1:
        raise ToolError(f"Yosys wrote {register} with {count} assignments instead of 1")
    return text.replace(";\n", ";\n" + _VARIABLE.format(name=name), 1)


def preset(device: VerilatorBackend, name: str, value: int) -> None:
    """From now on the register ``name`` of `PRESETS` gets the ones of ``value``, in all devices with this Verilog."""
    ctypes.c_uint64.in_dll(device._library, f"macaw_preset_{name}").value = value


@contextmanager
def _set(device, name, value):
    preset(device, name, value)
    try:
        yield
    finally:
        preset(device, name, 0)


def check_high_bits(device: VerilatorBackend, seed: int) -> None:
    """Single bits of the counters, of the watchdog and of the index that is reported, on a device with `add_presets`.
    `Mismatch` says what is wrong."""
    generator = Generator(device.config, seed)
    rng = generator.rng
    several = rng.integers(0, 1 << 63 - _LOW, 30, dtype=np.uint64)
    for value in (*(1 << bit for bit in range(64 - _LOW)), *map(int, several)):
        _counters(device, generator, value << _LOW)
    for bit in range(12, 32):
        _watchdog(device, generator, 1 << bit)
    for bit in range(8, INDEX_WIDTH):
        for queue, end in product(Queue, ("local", "wait", "illegal")):
            _index(device, long_case(generator, queue, end, _BEFORE), 1 << bit)


def _counters(device, generator, value):
    """After a program, all counters get the ones of ``value``."""
    run(device, long_case(generator, Queue.LOAD, "local", _BEFORE))
    plain = counters(device)
    with _set(device, "counts", value):
        for _ in plain:
            read(device, "status")
    for name, count in counters(device).items():
        if count != plain[name] | value:
            raise Mismatch(f"{name} is {count:#x} instead of {plain[name] | value:#x}")


def _watchdog(device, generator, value):
    """A program waits for ever: it ends ``_QUIET`` cycles after ``value`` cycles."""
    start(device, replace(long_case(generator, Queue.LOAD, "wait", 0), watchdog=value + _QUIET))
    for _ in range(_FETCHING):
        read(device, "status")
    with _set(device, "quiet", value):
        read(device, "status")
    registers = settle(device, 2 * _QUIET)
    cycles = counters(device)["cycles"]
    if registers["fault_code"] != Fault.WATCHDOG or not _QUIET < cycles < 2 * _QUIET:
        raise Mismatch(f"a watchdog of {value + _QUIET:#x} cycles, {value:#x} of which are skipped: {registers} after "
                       f"{cycles} cycles")


def _index(device, case, value):
    """The first instruction of a program is number ``value``."""
    device.reset()
    with _set(device, "index", value):
        registers = run(device, case)
        device.reset()
    if registers["fault_instruction"] != value + _BEFORE:
        raise Mismatch(f"a program from instruction {value:#x} on: {registers}")
