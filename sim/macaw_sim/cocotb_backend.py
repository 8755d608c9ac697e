"""The device as RTL in any simulator that cocotb supports, with bus models that are not ours.

`cocotbext-axi` is the other side of both buses: its master accesses the registers, its memory answers
the DMA. The driver runs unmodified, in a thread, inside a cocotb test of the top level::

    @cocotb.test()
    async def trains(dut):
        await bridge(main)()         # main() creates Device(backend="cocotb") and uses it
"""

import random

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.task import resume
from cocotb.triggers import First, RisingEdge, Timer
from cocotbext.axi import AxiBus, AxiLiteBus, AxiLiteMaster, AxiRam, AxiResp

from .backend import BusError

__all__ = ["CocotbBackend"]

_PERIOD = 10


class CocotbBackend:
    """Backend over the device under test of the running cocotb test.

    Must be created and used in a function that runs under `cocotb.task.bridge`.

    Parameters
    ----------
    config : Config
        Configuration that the device under test was generated from.
    dram_bytes : int
        Size of the memory.
    stall : float
        Probability of a pause in each cycle, on each channel of both buses.
    seed : int
        Of the pauses.
    """

    def __init__(self, config, *, dram_bytes, stall=0.0, seed=0, **_):
        self.config = config
        self._memory = bytearray(dram_bytes)
        self.dram = np.frombuffer(self._memory, dtype=np.uint8)
        self._dut = cocotb.top
        resume(self._start)(stall, seed)

    async def _start(self, stall, seed):
        dut = self._dut
        self._clock = Clock(dut.clk, _PERIOD, unit="ns")
        self._clock.start()
        self._master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axi"), dut.clk, dut.rst)
        ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, mem=self._memory)
        if stall:
            channels = [getattr(model, f"{channel}_channel") for bus in (ram, self._master) for model, names in (
                (bus.write_if, ("aw", "w", "b")), (bus.read_if, ("ar", "r"))) for channel in names]
            for number, channel in enumerate(channels):
                channel.set_pause_generator(_pauses(random.Random(f"{seed} {number}"), stall))
        await self._reset()

    async def _reset(self):
        self._dut.rst.value = 1
        for _ in range(4):
            await RisingEdge(self._dut.clk)
        self._dut.rst.value = 0
        await RisingEdge(self._dut.clk)

    def read_register(self, offset):
        async def read():
            return await self._master.read(offset, 4)
        response = resume(read)()
        _check(response, "read", offset)
        return int.from_bytes(response.data, "little")

    def write_register(self, offset, value):
        async def write():
            return await self._master.write(offset, int(value).to_bytes(4, "little"))
        _check(resume(write)(), "write", offset)

    def wait_interrupt(self, max_cycles):
        async def wait():
            # Aligned to the clock, so that a level that is high already costs one cycle only.
            await RisingEdge(self._dut.clk)
            if not self._dut.irq.value:
                await First(RisingEdge(self._dut.irq), Timer(_PERIOD * max_cycles, unit="ns"))
            return bool(self._dut.irq.value)
        return resume(wait)()

    def reset(self):
        resume(self._reset)()

    def close(self):
        """Nothing to release: the simulator belongs to the test."""


def _pauses(generator, probability):
    while True:
        yield generator.random() < probability


def _check(response, what, offset):
    if response.resp != AxiResp.OKAY:
        raise BusError(f"{what} of register {offset:#x} was answered with {response.resp.name}")
