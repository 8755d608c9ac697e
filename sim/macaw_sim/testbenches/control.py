"""Control: register map, doorbell, faults, watchdog, interrupt, counters; over `cocotbext-axi`."""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ReadOnly, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp
from macaw_hw.config import named_config
from macaw_hw.control import EVENT_COUNTS
from macaw_hw.isa import Fault, FaultUnit
from macaw_hw.registers import CONFIG_REGISTERS, COUNTERS, REGISTER_SPACE, REGISTERS, Access

from . import generator, parameters

__all__ = []

_INPUTS = ("drained", "finished", "fault", "fault_unit", "fault_index", "progress", "events")


def _packed(events):
    return EVENT_COUNTS.const(events).as_bits()


class Bench:
    """A bus master beside the device, whose inputs from the units are idle."""

    def __init__(self, dut):
        self.dut = dut

    async def start(self):
        dut = self.dut
        for name in _INPUTS:
            getattr(dut, name).value = 0
        cocotb.start_soon(self._clock())
        self.master = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "bus_"), dut.clk, dut.rst)
        dut.rst.value = 1
        await self.cycles(3)
        dut.rst.value = 0
        await self.cycles(2)

    async def _clock(self):
        Clock(self.dut.clk, 10, unit="ns").start()

    async def cycles(self, count):
        for _ in range(count):
            await RisingEdge(self.dut.clk)

    async def read(self, name, word=0):
        response = await self.master.read(REGISTERS[name].offset + 4 * word, 4)
        assert response.resp == AxiResp.OKAY, name
        return int.from_bytes(response.data, "little")

    async def write(self, name, value, word=0):
        data = value.to_bytes(4, "little")
        return (await self.master.write(REGISTERS[name].offset + 4 * word, data)).resp

    async def doorbell(self):
        assert await self.write("control", 1) == AxiResp.OKAY

    async def finish(self):
        self.dut.finished.value = 1
        await self.cycles(3)
        self.dut.finished.value = 0


@cocotb.test()
async def answers_every_address(dut):
    """Values after reset; SLVERR where nothing is; read-only registers stay."""
    bench = Bench(dut)
    await bench.start()
    config = named_config(parameters()["config"])
    for name in CONFIG_REGISTERS:
        assert await bench.read(name) == getattr(config, name)
    used = set()
    for name, register in REGISTERS.items():
        for word in range(register.width // 32):
            used.add(register.offset + 4 * word)
            if name not in CONFIG_REGISTERS:
                expected = register.reset if word == 0 else 0
                assert await bench.read(name, word) == expected, name
            if register.access == Access.READ:
                assert await bench.write(name, 0xFFFFFFFF, word) == AxiResp.SLVERR
    for address in range(0, REGISTER_SPACE, 4):
        if address not in used:
            assert (await bench.master.read(address, 4)).resp == AxiResp.SLVERR, hex(address)
            assert (await bench.master.write(address, b"\1\2\3\4")).resp == AxiResp.SLVERR, hex(address)


@cocotb.test()
async def keeps_what_is_written(dut):
    """Every writable bit, byte strobes, and locks while a program runs."""
    bench = Bench(dut)
    await bench.start()
    rng = generator()
    width = named_config(parameters()["config"]).address_width
    masks = {"program_address": ((1 << width) - 32), "program_length": (1 << 24) - 1, "watchdog": (1 << 32) - 1,
             "window_base": (1 << width + 1) - 1, "window_limit": (1 << width + 1) - 1, "irq_enable": 7}
    kept = dict.fromkeys(masks, 0)
    for name, mask in masks.items():
        for word in range(REGISTERS[name].width // 32):
            value = int(rng.integers(0, 1 << 32))
            assert await bench.write(name, value, word) == AxiResp.OKAY
            kept[name] |= (value << 32 * word) & mask
            assert await bench.read(name, word) == kept[name] >> 32 * word & 0xFFFFFFFF
    address = REGISTERS["watchdog"].offset
    await bench.master.write(address + 1, b"\xaa\xbb")
    kept["watchdog"] = kept["watchdog"] & 0xFF0000FF | 0xBBAA00
    assert await bench.read("watchdog") == kept["watchdog"]
    await bench.doorbell()
    for name in masks:
        response = await bench.write(name, 0)
        assert response == (AxiResp.SLVERR if REGISTERS[name].locked else AxiResp.OKAY), name
        if REGISTERS[name].locked:
            assert await bench.read(name) == kept[name] & 0xFFFFFFFF
    assert await bench.read("status") == 1


@cocotb.test()
async def accepts_any_alignment_with_pauses(dut):
    """Reads and writes of 1 to 8 bytes at any address, several at a time, while every channel pauses at random."""
    bench = Bench(dut)
    await bench.start()
    rng = generator(5)
    buses = ((bench.master.write_if, ("aw", "w", "b")), (bench.master.read_if, ("ar", "r")))
    for bus, names in buses:
        for name in names:
            random = generator(6 + len(name) + ord(name[0]))
            getattr(bus, f"{name}_channel").set_pause_generator(
                iter(lambda random=random: bool(random.random() < 0.5), None))
    base, width = REGISTERS["window_base"].offset, named_config(parameters()["config"]).address_width
    kept = bytearray(16)  # window_base and window_limit
    mask = bytes.fromhex(f"{(2 << width) - 1:016x}")[::-1] * 2
    for _ in range(100):
        at, count = int(rng.integers(0, 16)), int(rng.integers(1, 9))
        data = rng.bytes(min(count, 16 - at))
        reading = bench.master.init_read(REGISTERS["identity"].offset + int(rng.integers(0, 4)), 1)
        response = await bench.master.write(base + at, data)
        assert response.resp == AxiResp.OKAY
        kept[at:at + len(data)] = data
        kept = bytearray(a & b for a, b in zip(kept, mask, strict=True))
        at, count = int(rng.integers(0, 16)), int(rng.integers(1, 9))
        response = await bench.master.read(base + at, min(count, 16 - at))
        assert (response.resp, bytes(response.data)) == (AxiResp.OKAY, bytes(kept[at:at + count]))
        await reading.wait()
        assert reading.data.resp == AxiResp.OKAY
    # Two words, of which one is read only: the worse response, and the other word is written.
    response = await bench.master.write(REGISTERS["watchdog"].offset - 4, bytes(range(8)))
    assert response.resp == AxiResp.OKAY
    assert (await bench.master.write(REGISTERS["fault_code"].offset - 4, bytes(8))).resp == AxiResp.SLVERR


@cocotb.test()
async def runs_stops_and_reports(dut):
    """Doorbell to done, fault, abort and watchdog: status, interrupt, halt, clear."""
    bench = Bench(dut)
    await bench.start()
    await bench.write("irq_enable", 0b111)
    starts = 0

    async def count_starts():
        nonlocal starts
        while True:
            await RisingEdge(dut.clk)
            starts += bool(dut.start.value)
    cocotb.start_soon(count_starts())

    await bench.doorbell()
    await bench.doorbell()  # ignored: it runs
    assert (starts, await bench.read("status"), bool(dut.irq.value)) == (1, 1, False)
    await bench.finish()
    assert (await bench.read("status"), await bench.read("irq_status"), bool(dut.irq.value)) == (2, 1, True)
    await bench.write("irq_status", 2)
    assert dut.irq.value == 1
    await bench.write("irq_status", 1)
    assert dut.irq.value == 0

    await bench.doorbell()
    dut.fault.value, dut.fault_unit.value, dut.fault_index.value = Fault.WINDOW, FaultUnit.STORE, 1234
    await bench.cycles(3)
    await ReadOnly()
    assert (dut.halt.value, dut.clear.value, dut.irq.value) == (1, 0, 1)
    await bench.cycles(1)
    assert await bench.read("status") == 0b101  # still drains
    dut.drained.value = 1
    dut.fault.value = 0
    await bench.cycles(3)
    assert await bench.read("status") == 0b100
    assert [await bench.read(f"fault_{n}") for n in ("code", "unit", "instruction")] == [
        Fault.WINDOW, FaultUnit.STORE, 1234]
    await bench.write("irq_status", 7)

    await bench.doorbell()
    assert await bench.read("fault_code") == 0
    await bench.write("control", 2)
    await bench.cycles(4)
    assert (await bench.read("status"), await bench.read("irq_status")) == (0b1000, 0b100)
    await bench.write("irq_status", 7)

    await bench.write("watchdog", 50)
    await bench.doorbell()
    dut.progress.value = 1
    await bench.cycles(200)
    assert await bench.read("status") == 1
    dut.progress.value = 0
    await bench.cycles(40)
    assert (dut.expired.value, dut.irq.value) == (0, 0)
    await bench.cycles(15)
    assert (dut.expired.value, dut.irq.value) == (1, 0)
    dut.fault.value, dut.fault_unit.value, dut.fault_index.value = Fault.WATCHDOG, FaultUnit.SEQUENCER, 77
    await bench.cycles(3)
    assert (dut.expired.value, dut.irq.value) == (0, 1)
    assert [await bench.read(f"fault_{n}") for n in ("code", "unit", "instruction")] == [
        Fault.WATCHDOG, FaultUnit.SEQUENCER, 77]


@cocotb.test()
async def counts_exactly(dut):
    """Every counter, in every phase of the shared memory; cleared by the doorbell; stopped at the end."""
    bench = Bench(dut)
    await bench.start()
    rng = generator(3)
    for length in (3, 20, 333):
        await bench.doorbell()
        expected = [0] * len(COUNTERS)
        while not dut.running.value:
            await RisingEdge(dut.clk)
        for _ in range(length):
            events = {name: int(rng.integers(0, 5 if name == "instructions" else 2)) for name in COUNTERS}
            dut.events.value = _packed(events)
            expected = [count + event for count, event in zip(expected, events.values(), strict=True)]
            await RisingEdge(dut.clk)
        dut.events.value = 0
        if length == 20:  # readable while it runs
            values = [await bench.read(name) + (await bench.read(name, 1) << 32) for name in COUNTERS]
            assert values == expected
        await bench.finish()
        dut.events.value = _packed(dict.fromkeys(COUNTERS, 1))
        values = [await bench.read(name) + (await bench.read(name, 1) << 32) for name in COUNTERS]
        assert values == expected
        dut.events.value = 0
