"""Burst generator: bursts of random instructions, with what they carry for the data side."""

from math import prod

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from macaw_hw.config import Config
from macaw_hw.dma_address import Burst, Setup
from macaw_hw.isa import LOAD, LOOPS, DataFormat, encode

from . import generator, parameters
from .dma_model import runs

__all__ = []


def random_fields(rng, window):
    """Runs of a byte to several bursts, most of them inside of the window, some at its edges."""
    format = DataFormat(int(rng.integers(3)))
    fields = {"format": format, "pack": 0 if format == DataFormat.BFP8 else int(rng.integers(4)),
              "address": int(rng.choice([*window, rng.integers(*window)])) + int(rng.integers(-9, 9)),
              "local": int(rng.integers(1 << 16)),
              "run": int(rng.integers(1, 20 if rng.random() < 0.8 or format == DataFormat.BFP8 else 6000))}
    for i in range(LOOPS):
        fields[f"count{i}"] = int(rng.choice([1, 1, 2, 3, 4]))
        fields[f"stride{i}"] = int(rng.choice([1, -1, 4096, rng.integers(-20000, 20000)]))
    return fields


def bursts(fields, config, window):
    """All fields of every burst; runs outside of the window give one with only ``fault``."""
    bus, counts = config.bus_bytes, [fields[f"count{i}"] for i in range(LOOPS)]
    unit, total = min(4096, 256 * bus), counts[0] * counts[1] * counts[2] * counts[3]
    for number, (address, count, group_end) in enumerate(runs(fields, config), 1):
        end = address + count
        if address < window[0] or end > window[1]:
            yield {"fault": 1}
            continue
        while address < end:
            stop = min(end, (address // unit + 1) * unit)
            yield {"address": address, "length": (stop - 1) // bus - address // bus, "end": (stop - 1) % bus,
                   "group_end": int(group_end and stop == end), "last": int(number == total and stop == end),
                   "fault": 0}
            address = stop


def begun_again(fields):
    """How often a loop begins again."""
    counts = [fields[f"count{i}"] for i in range(LOOPS)]
    return sum(i * (counts[i] - 1) * prod(counts[i + 1:]) for i in range(LOOPS))


@cocotb.test()
@cocotb.parametrize(hurry=[1, 0])
async def splits_random_instructions(dut, hurry):
    """Against the model; never a beat more than 256, nor one beyond 4 KiB; one every second cycle."""
    config, rng = Config(**parameters()["config"]), generator(hurry)
    window = 0x2_3457, 0x8_0123
    program = [random_fields(rng, window) for _ in range(150)]
    expected = [burst for fields in program for burst in bursts(fields, config, window)]
    setups = [(fields["format"], fields["local"]) for fields in program]
    dut.window_base.value, dut.window_limit.value = window
    dut.instruction__valid.value = dut.o__ready.value = dut.setup__ready.value = 0
    dut.rst.value = 1
    Clock(dut.clk, 10, unit="ns").start()
    await RisingEdge(dut.clk)
    await RisingEdge(dut.clk)
    dut.rst.value = 0

    queue, got, cycles = list(program), 0, 0
    while got < len(expected) or setups:
        await RisingEdge(dut.clk)
        cycles += 1
        if dut.setup__valid.value and dut.setup__ready.value:
            setup = Setup.from_bits(int(dut.setup__payload.value))
            assert (setup.format, setup.local) == setups.pop(0)
        if dut.o__valid.value and dut.o__ready.value:
            burst = Burst(config).from_bits(int(dut.o__payload.value))
            wanted = expected[got]
            assert {name: burst[name] for name in wanted} == wanted, f"burst {got}"
            assert burst.fault or burst.length < 256
            got += 1
        if dut.instruction__valid.value and dut.instruction__ready.value:
            queue.pop(0)
            dut.instruction__valid.value = 0
        if queue and (hurry or rng.random() < 0.5):
            word = int.from_bytes(encode(LOAD.opcode, **queue[0]), "little")
            dut.instruction__payload.value = word & (1 << LOAD.layout.size) - 1
            dut.instruction__valid.value = 1
        dut.o__ready.value = int(hurry or rng.random() < 0.5)
        dut.setup__ready.value = int(hurry or rng.random() < 0.5)
        assert cycles < 20 * len(expected) + 1000
    for _ in range(10):
        await RisingEdge(dut.clk)
        assert not dut.o__valid.value, "more bursts than expected"
    if hurry:
        # A burst every second cycle, a cycle for each loop that begins again, and the start of an instruction.
        least = 2 * len(expected) + sum(begun_again(fields) + 4 for fields in program)
        assert cycles <= least + 10, f"{cycles} cycles for {len(expected)} bursts"
