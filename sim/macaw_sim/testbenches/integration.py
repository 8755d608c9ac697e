"""Macaw in a system of plain Verilog (examples/integration): a host runs recorded programs.

The driver runs on the emulator, and each of its programs is recorded with memory before and after.
The host port of the system then gets the same memory, registers and doorbells.
"""

from dataclasses import dataclass

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, First, RisingEdge, Timer
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp
from macaw import Device, Trainer, manual_seed, nn, optim
from macaw_hw.registers import IDENTITY, REGISTERS

from . import generator, parameters

__all__ = ["Recorded", "record"]

_REGISTERS = 0x8000_0000
_PERIOD = 10
_LIMIT = 20_000
_PROGRAM = ("window_base", "window_limit", "program_address", "program_length")


@dataclass(frozen=True)
class Recorded:
    """A program: words of memory before and after it, and the registers that the driver wrote."""
    before: np.ndarray
    after: np.ndarray
    registers: dict


def record(config, dram_bytes, rng):
    """The programs of two training steps of a small network on the emulator."""
    doorbell, programs = REGISTERS["control"].offset, []
    with Device(config, "emulator", dram_bytes=dram_bytes) as device:
        write = device.backend.write_register

        def recording(offset, value):
            before = device.dram.view("<u4").copy()
            write(offset, value)
            if offset == doorbell:
                registers = {name: device._read(name) for name in _PROGRAM}
                programs.append(Recorded(before, device.dram.view("<u4").copy(), registers))

        device.backend.write_register = recording
        manual_seed(1)
        model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3))
        optimizer = optim.SGD(model.parameters(), lr=0.5)
        trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, device, batch_size=4)
        for _ in range(2):
            trainer.train_step(rng.integers(0, 256, (4, 10), dtype=np.uint8), rng.integers(0, 3, 4))
    return programs


class _Host:
    """A processor on the system's host port."""

    def __init__(self, dut):
        self._bus = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "host"), dut.clk, dut.rst)

    async def read(self, address):
        response = await self._bus.read(address, 4)
        assert response.resp == AxiResp.OKAY, hex(address)
        return int.from_bytes(response.data, "little")

    async def write(self, address, value):
        response = await self._bus.write(address, int(value).to_bytes(4, "little"))
        assert response.resp == AxiResp.OKAY, hex(address)

    async def read_register(self, name):
        return await self.read(_REGISTERS + REGISTERS[name].offset)

    async def write_register(self, name, value):
        for low in range(0, REGISTERS[name].width, 32):
            address = _REGISTERS + REGISTERS[name].offset + low // 8
            await self.write(address, value >> low & 0xFFFFFFFF)


async def start(dut):
    """Clock and reset; the host."""
    Clock(dut.clk, _PERIOD, unit="ns").start()
    dut.rst.value = 1
    host = _Host(dut)
    await ClockCycles(dut.clk, 4)
    dut.rst.value = 0
    await RisingEdge(dut.clk)
    return host


@cocotb.test()
async def trains_as_the_emulator_does(dut):
    """Memory after each program: what it wrote, read by the host; at the end all of it."""
    p = parameters()
    host = await start(dut)
    assert await host.read_register("identity") == IDENTITY
    done = REGISTERS["irq_status"].bits[0].mask
    await host.write_register("irq_enable", done)
    programs = record(p["config"], p["bytes"], generator())
    assert len(programs) >= 2
    memory = np.zeros(p["bytes"] // 4, "<u4")
    for program in programs:
        for word in np.flatnonzero(memory != program.before):
            await host.write(4 * int(word), program.before[word])
        for name, value in program.registers.items():
            await host.write_register(name, value)
        await host.write_register("control", REGISTERS["control"].bits[0].mask)
        if not dut.irq.value:
            await First(RisingEdge(dut.irq), Timer(_LIMIT * _PERIOD, unit="ns"))
        assert dut.irq.value, "no interrupt"
        assert await host.read_register("irq_status") == done
        await host.write_register("irq_status", done)
        assert not dut.irq.value
        changed = np.flatnonzero(program.before != program.after)
        assert changed.size
        for word in changed:
            assert await host.read(4 * int(word)) == program.after[word], hex(4 * word)
        memory = program.after
    np.testing.assert_array_equal([int(word.value) for word in dut.axi_ram.memory], memory)


@cocotb.test()
async def errors_reach_the_host(dut):
    """No register, and memory beyond the end."""
    p = parameters()
    host = await start(dut)
    for address in _REGISTERS + 0xFFC, p["bytes"]:
        assert (await host._bus.read(address, 4)).resp == AxiResp.SLVERR
        assert (await host._bus.write(address, bytes(4))).resp == AxiResp.SLVERR
    await host.write(p["bytes"] - 4, 0x12345678)
    assert await host.read(p["bytes"] - 4) == 0x12345678
    await host.write(p["bytes"] - 4, 0)
