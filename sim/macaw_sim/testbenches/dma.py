"""DMA engine: every format, alignment, length and stall against `dma_model`; bursts, faults, halts, speed."""

import cocotb
import numpy as np
from cocotb.triggers import RisingEdge
from macaw_hw.config import Config
from macaw_hw.isa import LOOPS, DataFormat, Fault, Opcode, encode

from ..arithmetic import pack_tiles, quantize_tile
from . import generator, parameters
from .dma_bench import Bench, Stalls
from .dma_model import LocalMemories, Region, bursts_of, load_events, runs, store_events

__all__ = []

BASE, SIZE = 0x1_2C00, 1 << 15
STALLS = {
    "none": Stalls(),
    "latency": Stalls(latency=(5, 40)),
    "bus": Stalls(ar=.5, r=.5, aw=.5, w=.5, b=.5, latency=(1, 12)),
    "local": Stalls(local=.6),
    "all": Stalls(ar=.3, r=.3, aw=.3, w=.3, b=.3, local=.3, latency=(1, 30)),
    "late_addresses": Stalls(ar=.9, aw=.9),
}
_OPCODES = {"load": Opcode.LOAD, "store": Opcode.STORE}


def fields_of(unit, **given):
    """All fields of an instruction, by name."""
    defaults = {f"count{i}": 1 for i in range(LOOPS)} | {f"stride{i}": 0 for i in range(LOOPS)}
    return {"opcode": _OPCODES[unit], "wait": 0, "post": 0, "format": 0, "pack": 0, "address": BASE, "local": 0,
            "run": 1, **defaults, **given}


async def make_bench(dut, *salt, bus=True):
    config, rng = Config(**parameters()["config"]), generator(*salt)
    local = LocalMemories(config, rng)
    # Numbers that stores of bytes accept, except where a test wants others.
    values = rng.normal(100, 120, local.vector.shape).astype(np.float32)
    values[::3] = rng.integers(-4, 520, values[::3].shape) / 2
    local.vector[:] = values.view(np.uint32)
    region = Region(BASE, rng.integers(0, 256, SIZE))
    bench = Bench(dut, config, rng, region, local, bus=bus)
    await bench.start()
    return bench


class Expected:
    """What a program of one unit does: its log, where each instruction ends in it, its bursts, its fault.

    With a BUS_WRITE fault the log goes on, since writes do not wait for the responses of earlier ones.
    """

    def __init__(self, bench, unit, program):
        self.log, self.ends, self.bursts, self.fault = [], [], [], Fault.NONE
        config = bench.config
        for fields in program:
            if unit == "load":
                events, self.fault = load_events(fields, config, bench.region, bench.window, bench.read_errors)
            else:
                events, self.fault = store_events(fields, config, bench.local, bench.window)
            bursts = list(bursts_of(fields, config, bench.window))
            if unit == "store" and self.fault != Fault.LOCAL_ADDRESS and any(
                    first <= error < first + beats * config.bus_bytes
                    for first, beats in bursts for error in bench.write_errors):
                self.fault = Fault.BUS_WRITE
            self.log += events
            self.bursts += bursts
            if self.fault == Fault.NONE:
                self.ends.append(len(self.log))
            elif self.fault != Fault.BUS_WRITE:
                break
            else:  # what comes later may be written before the response is there
                for later in program[len(self.ends) + 1:]:
                    self.log += store_events(later, config, bench.local, bench.window)[0]
                break


async def execute(bench, unit, program, *faults):
    """Run a program and compare all that it does with the model; a fault ends in halt and reset.

    ``faults`` are those that the program may end with, so that none hides what a test is about.
    """
    expected = Expected(bench, unit, program)
    assert expected.fault in (faults or (Fault.NONE,)), expected.fault
    for fields in program:
        bench.push(unit, encode(**fields))
    done = bench.load_done if unit == "load" else bench.store_done
    await bench.until(lambda: len(done) == len(program) or bench.get(f"{unit}__fault"))
    if expected.fault == Fault.NONE:
        for _ in range(4):
            await RisingEdge(bench.dut.clk)
        log = bench.local_log if unit == "load" else bench.bus_log
        compare(log, expected.log)
        bursts = [burst[:2] for burst in bench.reads] if unit == "load" else bench.writes
        assert bursts == expected.bursts
        assert len(done) == len(program), "more done pulses than instructions"
        assert all(a >= b for a, b in zip(done, expected.ends, strict=True)), "done before the last write"
        assert bench.get(f"{unit}__fault") == Fault.NONE
        assert bench.get(f"{unit}_idle") and not bench.get(f"{unit}__busy")
        bench.clear()
        return
    await check_fault(bench, unit, expected)


async def check_fault(bench, unit, expected):
    assert bench.get(f"{unit}__fault") == expected.fault, f"{bench.get(f'{unit}__fault')} != {expected.fault}"
    done = bench.load_done if unit == "load" else bench.store_done
    assert len(done) == len(expected.ends), f"fault after {len(done)} instructions, not {len(expected.ends)}"
    issued = len(bench.reads), len(bench.writes)
    bench.halt()
    await bench.until(lambda: bench.get("load_idle") and bench.get("store_idle"), limit=3000)
    assert len(bench.reads) - issued[0] <= 1 and len(bench.writes) - issued[1] <= 1, "bursts after the fault"
    if unit == "load":
        # A row of bytes that is only half a word of the bus may be missing.
        compare(bench.local_log, expected.log[:len(bench.local_log)])
        assert len(expected.log) - len(bench.local_log) < bench.config.bus_bytes // bench.config.size
        assert [burst[:2] for burst in bench.reads][:len(expected.bursts)] == expected.bursts[:len(bench.reads)]
    else:
        # A beat in which a fault is found is not written at all.
        compare(bench.bus_log, expected.log[:len(bench.bus_log)])
        before = (expected.ends or [0])[-1]
        if expected.fault != Fault.BUS_WRITE:
            before = max(before, len(expected.log) - bench.config.bus_bytes + 1)
        assert len(bench.bus_log) >= before
    await bench.reset()


def compare(log, expected):
    if log == expected:
        return
    for index, (a, b) in enumerate(zip(log, expected, strict=False)):
        assert a == b, f"event {index} of {len(expected)} is {a}, not {b}"
    raise AssertionError(f"{len(log)} events, not {len(expected)}; the first more or less is "
                         f"{[*log, *expected][min(len(log), len(expected))]}")


def alignment_program(bench, unit):
    """Every format, alignment and length."""
    config, rng = bench.config, bench.rng
    n, bus = config.size, config.bus_bytes
    lengths = {DataFormat.FLOAT32: [*range(1, n + 3), 2 * n, 2 * n + 1], DataFormat.BFP8: [1, 2],
               DataFormat.UINT8: [*range(1, bus + 3), 2 * bus - 1, 2 * bus, 3 * bus + 1]}
    for format, runs_ in lengths.items():
        depth = config.tiles if format == DataFormat.BFP8 else config.vector_rows
        for run in runs_:
            for offset in range(bus):
                yield fields_of(unit, format=format, run=run, local=int(rng.integers(depth - 8)),
                                address=BASE + int(rng.integers(SIZE // 2)) // bus * bus + offset)


def random_loops(bench, unit):
    """Four loops of random counts and strides, inside of memory and of the local memories."""
    config, rng = bench.config, bench.rng
    while True:
        format = DataFormat(int(rng.integers(3)))
        counts = [int(rng.choice([1, 1, 2, 3, 5])) for _ in range(LOOPS)]
        strides = [int(rng.choice([0, 1, -1, 7, -64, 100, int(rng.integers(-700, 700))])) for _ in range(LOOPS)]
        run = 1 if format == DataFormat.BFP8 else int(rng.integers(1, 3 * config.size))
        fields = fields_of(
            unit, format=format, pack=0 if format == DataFormat.BFP8 else int(rng.integers(4)), run=run,
            address=BASE + int(rng.integers(SIZE)), local=int(rng.integers(64)),
            **{f"count{i}": c for i, c in enumerate(counts)}, **{f"stride{i}": s for i, s in enumerate(strides)})
        lengths = list(runs(fields, config))
        groups = sum(-(-count // config.size) for _, count, _ in lengths)
        depth = config.tiles if format == DataFormat.BFP8 else config.vector_rows
        if (len(lengths) <= 60 and groups <= depth - 64
                and min(a for a, _, _ in lengths) >= BASE and max(a + c for a, c, _ in lengths) <= BASE + SIZE):
            return fields


@cocotb.test()
@cocotb.parametrize(unit=["load", "store"], stalls=list(STALLS))
async def aligns_everything(dut, unit, stalls):
    bench = await make_bench(dut, 1)
    bench.stalls = STALLS[stalls]
    program = list(alignment_program(bench, unit))
    await execute(bench, unit, program)


@cocotb.test()
@cocotb.parametrize(unit=["load", "store"], stalls=["none", "all"])
async def moves_trained_weights(dut, unit, stalls):
    """A corner of a trained layer, as rows of float32 with their stride in memory and as quantized tiles."""
    bench = await make_bench(dut, 4)
    bench.stalls = STALLS[stalls]
    n, tile_bytes = bench.config.size, bench.config.tile_bytes
    with np.load(parameters()["npz"]) as file:
        weights = np.ascontiguousarray(file["w"][:16, :100], np.float32)
    mantissas, exponents = quantize_tile(weights[:n, :4 * n].reshape(n, -1, n).swapaxes(0, 1))
    if unit == "load":
        bench.region.bytes[:weights.nbytes] = weights.view(np.uint8).ravel()
        bench.region.bytes[weights.nbytes:][:4 * tile_bytes] = pack_tiles(mantissas, exponents).ravel()
    else:
        rows = weights[:, :100 // n * n].reshape(-1, n).view(np.uint32)
        bench.local.vector[:len(rows)] = rows
        bench.local.mantissas[:4], bench.local.exponents[:4] = mantissas, exponents
    await execute(bench, unit, [
        fields_of(unit, run=100, count0=16, stride0=400),
        fields_of(unit, run=n + 1, count0=16, stride0=400, pack=1, local=8, address=BASE + 36),
        fields_of(unit, run=4, format=DataFormat.BFP8, address=BASE + weights.nbytes)])


@cocotb.test()
@cocotb.parametrize(unit=["load", "store"], stalls=["none", "all"])
async def runs_nested_loops(dut, unit, stalls):
    bench = await make_bench(dut, 2)
    bench.stalls = STALLS[stalls]
    await execute(bench, unit, [random_loops(bench, unit) for _ in range(60)])


@cocotb.test()
@cocotb.parametrize(unit=["load", "store"])
async def splits_long_runs(dut, unit):
    """At 256 beats and at 4 KiB, wherever the run begins; the address of each burst is checked."""
    bench = await make_bench(dut, 3)
    bench.stalls = Stalls(ar=.3, r=.1, aw=.3, w=.1, b=.3, local=.1, latency=(1, 30))
    program = []
    for offset in (0, 1, bench.config.bus_bytes - 1, 4095):
        address = (BASE + 4095) // 4096 * 4096 + offset
        program += [fields_of(unit, address=address, run=run) for run in (2100, 4096 // 4 + 1)]
        program += [fields_of(unit, address=address, run=4091, format=DataFormat.UINT8)]
    await execute(bench, unit, program)


@cocotb.test()
@cocotb.parametrize(unit=["load", "store"])
async def checks_the_window(dut, unit):
    """The last byte inside is reached, the first one outside is not, wherever it comes in the program."""
    bench = await make_bench(dut, 4)
    rng, bus = bench.rng, bench.config.bus_bytes
    first, end = BASE, BASE + SIZE
    for round in range(12):
        bench.stalls = STALLS["all" if round % 2 else "none"]
        low, high = first + int(rng.integers(3 * bus)), end - int(rng.integers(3 * bus))
        bench.set_window(low, high)
        run = int(rng.integers(1, 3 * bus))
        inside = [fields_of(unit, format=DataFormat.UINT8, address=address, run=run) for address in (low, high - run)]
        await execute(bench, unit, inside)
        across = dict(format=DataFormat.UINT8, run=run, pack=int(rng.integers(2)))
        beyond = low + (1 << bench.config.address_width)  # what the bus would cut off
        for bad in (
            fields_of(unit, **across, address=low - 1),
            fields_of(unit, **across, address=high - run + 1),
            fields_of(unit, **across, address=high - 3 * run, stride0=run, count0=9),
            fields_of(unit, **across, address=low + 2 * run + 1, stride0=-run, count0=9),
            fields_of(unit, **across, address=high),
            fields_of(unit, **across, address=min(beyond, (1 << 40) - 1)),
            fields_of(unit, **across, address=(1 << 40) - 1),
        ):
            await execute(bench, unit, [*inside, random_inside(bench, unit, low, high), bad, inside[0]],
                          Fault.WINDOW)
            bench.set_window(low, high)


def random_inside(bench, unit, low, high):
    return fields_of(unit, format=DataFormat.FLOAT32, run=3, address=(low + high) // 2, count0=3, stride0=100)


@cocotb.test()
@cocotb.parametrize(unit=["load", "store"])
async def checks_local_addresses(dut, unit):
    """The last row and tile are reached, one more is a fault, and so is every address beyond."""
    bench = await make_bench(dut, 5)
    config = bench.config
    for format, depth, run in ((DataFormat.FLOAT32, config.vector_rows, 3 * config.size),
                               (DataFormat.UINT8, config.vector_rows, 3 * config.size),
                               (DataFormat.UINT8, config.vector_rows, 2 * config.size + 1),
                               (DataFormat.BFP8, config.tiles, 3)):
        for local in (depth - 3, depth - 2, depth - 1, depth, 2 * depth, 65535):
            bench.stalls = STALLS["all" if local % 2 else "none"]
            good = fields_of(unit, format=format, run=run, address=BASE + local % 5)
            await execute(bench, unit, [good, good | {"local": local}, good], Fault.NONE, Fault.LOCAL_ADDRESS)


@cocotb.test()
@cocotb.parametrize(unit=["load", "store"], stalls=["none", "latency", "all"])
async def survives_two_faults(dut, unit, stalls):
    """A local address that is outside, and behind it a run that leaves the window: one report, and no wait for an
    answer to a burst that never was."""
    bench = await make_bench(dut, 12)
    bench.stalls = STALLS[stalls]
    for before in (1, 2, 5):
        bad = fields_of(unit, address=BASE + SIZE - 4 * before, stride0=4, count0=before + 1, run=1,
                        local=bench.config.vector_rows)
        await execute(bench, unit, [bad], Fault.LOCAL_ADDRESS)


@cocotb.test()
@cocotb.parametrize(unit=["load", "store"], stalls=["none", "latency", "all"])
async def reports_bus_errors(dut, unit, stalls):
    """Any beat of any instruction: the fault names the instruction, what came before is there."""
    bench = await make_bench(dut, 6)
    rng, bus = bench.rng, bench.config.bus_bytes
    for _ in range(15):
        bench.stalls = STALLS[stalls]
        program = [random_loops(bench, unit) for _ in range(int(rng.integers(2, 7)))]
        victim = list(bursts_of(program[int(rng.integers(len(program)))], bench.config, bench.window))
        first, beats = victim[int(rng.integers(len(victim)))]
        error = {first + int(rng.integers(beats)) * bus}
        bench.read_errors, bench.write_errors = (error, set()) if unit == "load" else (set(), error)
        await execute(bench, unit, program, Fault.BUS_READ if unit == "load" else Fault.BUS_WRITE)
        bench.read_errors, bench.write_errors = set(), set()
        await execute(bench, unit, program[:2])


@cocotb.test()
async def converts_all_pixels(dut):
    """uint8 to float32: all values. Back: halves around every integer, neighbours, clipping, tiny numbers."""
    bench = await make_bench(dut, 7)
    bench.region.bytes[:256] = np.arange(256)
    await execute(bench, "load", [fields_of("load", format=DataFormat.UINT8, run=256)])
    halves = np.arange(-3, 600, dtype=np.float32) / 2
    values = np.concatenate([
        halves, np.nextafter(halves, np.float32(-9e9)), np.nextafter(halves, np.float32(9e9)),
        np.float32([0, -0.0, 1e-45, -1e-45, 1e-38, 3e38, -3e38, 255.4999, 255.5, 256, 257, 511.9, 65536.5, 2**31]),
        bench.rng.integers(0, 0x7F80_0000, 300, dtype=np.uint32).view(np.float32),
        bench.rng.uniform(-2, 258, 300).astype(np.float32)])
    flat = bench.local.vector.reshape(-1)
    assert len(values) < len(flat)
    flat[:len(values)] = values.view(np.uint32)
    await execute(bench, "store", [fields_of("store", format=DataFormat.UINT8, run=len(values), address=BASE + 1)])


@cocotb.test()
async def refuses_non_finite_pixels(dut):
    """In lanes that are stored, and only there."""
    bench = await make_bench(dut, 8)
    n = bench.config.size
    for round in range(20):
        bench.stalls = STALLS["all" if round % 2 else "none"]
        bad = [0x7F800000, 0xFF800000, 0x7FC00000, 0xFFFFFFFF][round % 4]
        bench.local.vector[:, n - 1] = bad
        run = dict(format=DataFormat.UINT8, run=n - 1, count0=5, stride0=n + 1)
        good = fields_of("store", **run, address=BASE + round)
        await execute(bench, "store", [good, good | {"local": 7}])
        row, lane = int(bench.rng.integers(5)), int(bench.rng.integers(n - 1))
        before = bench.local.vector[20 + row, lane]
        bench.local.vector[20 + row, lane] = bad
        await execute(bench, "store", [good, good | {"local": 20}, good], Fault.NON_FINITE)
        bench.local.vector[20 + row, lane] = before


@cocotb.test()
async def halts_at_any_time(dut):
    """Under halt all bursts end without the local memories; after reset everything works again."""
    bench = await make_bench(dut, 9)
    rng = bench.rng
    for round in range(25):
        bench.stalls = list(STALLS.values())[round % len(STALLS)]
        programs = {unit: [random_loops(bench, unit) for _ in range(6)] for unit in ("load", "store")}
        expected = {unit: Expected(bench, unit, programs[unit]) for unit in programs}
        for unit, program in programs.items():
            for fields in program:
                bench.push(unit, encode(**fields))
        for _ in range(int(rng.integers(1, 250))):
            await RisingEdge(dut.clk)
        bench.halt()
        stalls = bench.stalls
        bench.stalls = Stalls(r=stalls.r, w=stalls.w, b=stalls.b, ar=stalls.ar, aw=stalls.aw, local=1,
                              latency=stalls.latency)
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        written = len(bench.local_log)
        await bench.until(lambda: bench.get("load_idle") and bench.get("store_idle"), limit=3000)
        assert len(bench.local_log) == written
        compare(bench.local_log, expected["load"].log[:len(bench.local_log)])
        compare(bench.bus_log, expected["store"].log[:len(bench.bus_log)])
        await bench.reset()
        bench.stalls = Stalls()
        for unit, program in programs.items():
            await execute(bench, unit, program[:2])


@cocotb.test()
@cocotb.parametrize(stalls=["none", "all"])
async def shares_the_bus(dut, stalls):
    """Loads, stores and another read master at a time; neither master waits for more than one burst."""
    bench = await make_bench(dut, 10)
    bench.stalls = STALLS[stalls]
    bus = bench.config.bus_bytes
    programs = {unit: [random_loops(bench, unit) for _ in range(40)] for unit in ("load", "store")}
    expected = {unit: Expected(bench, unit, programs[unit]) for unit in programs}
    fetches = [(BASE + 32 * int(bench.rng.integers(SIZE // 64)), 32 // bus) for _ in range(60)]
    bench.fetches.extend(fetches)
    for unit, program in programs.items():
        for fields in program:
            bench.push(unit, encode(**fields))
    await bench.until(lambda: len(bench.load_done) == 40 and len(bench.store_done) == 40
                      and len(bench.fetched) == 60 * 32 // bus)
    compare(bench.local_log, expected["load"].log)
    compare(bench.bus_log, expected["store"].log)
    wanted = [(int.from_bytes(bench.region.read(address + i * bus, bus).tobytes(), "little"), int(i + 1 == beats))
              for address, beats in fetches for i in range(beats)]
    compare(bench.fetched, wanted)
    ids = [id for _, _, id in bench.reads]
    assert [burst[:2] for burst in bench.reads if burst[2] == 0] == expected["load"].bursts
    # While both ask all the time they take turns.
    together = ids[4:ids.index(1) + 60]
    longest = max(len(run) for run in "".join(map(str, together)).split("1"))
    assert stalls != "none" or longest <= 3, f"{longest} loads in a row"


async def cycles(bench, unit, program):
    begin = bench.cycle
    beats = sum(beats for fields in program for _, beats in bursts_of(fields, bench.config, bench.window))
    await execute(bench, unit, program)
    return beats, bench.cycle - begin


@cocotb.test()
@cocotb.parametrize(unit=["load", "store"])
async def keeps_its_speed(dut, unit):
    """Beats per cycle of long runs, of short ones, and of instructions in a row, at a latency of 30 cycles."""
    bench = await make_bench(dut, 11)
    config, latency = bench.config, 30
    n, bus = config.size, config.bus_bytes
    rows, wide = config.vector_rows, bus // n
    narrow = {"load": 1 / wide, "store": 1 / 4}[unit]
    own = {"load": 5, "store": 15}[unit]  # cycles that a burst is outstanding beside the memory's
    tiles = min(config.tiles // 2, SIZE // config.tile_bytes)
    long_floats = fields_of(unit, run=min(rows * n, SIZE // 8))
    programs = {
        "float32, one long run": ([long_floats], 1, latency),
        "float32, one long run, no alignment": ([long_floats | {"address": BASE + 1}], 1, latency),
        "uint8, one long run": ([fields_of(unit, format=DataFormat.UINT8, run=rows * n // 2)], narrow, latency),
        "bfp8, one long run": ([fields_of(unit, format=DataFormat.BFP8, run=tiles)], 1 / wide, latency),
        "float32, runs of one beat": ([fields_of(unit, run=bus // 4, count0=200, stride0=4 * bus)], 1 / 2, 8),
        "the same, bound by latency": (
            [fields_of(unit, run=bus // 4, count0=100, stride0=4 * bus)], 16 / (latency + own), latency),
        "float32, instructions of 16 beats": (
            [fields_of(unit, run=4 * bus, local=k) for k in range(20)], 16 / 17, latency),
    }
    for what, (program, rate, latency) in programs.items():
        bench.stalls = Stalls(latency=(latency, latency))
        beats, taken = await cycles(bench, unit, program)
        dut._log.info("%s: %s: %d beats in %d cycles, %.3f per cycle", unit, what, beats, taken, beats / taken)
        assert taken <= 1.03 * beats / rate + latency + 25, what


@cocotb.test()
async def works_with_another_bus_model(dut):
    """cocotbext-axi as the memory, with pauses: load, and store elsewhere; nothing else changes."""
    from cocotbext.axi import AxiBus, AxiRam
    bench = await make_bench(dut, 12, bus=False)
    ram = AxiRam(AxiBus.from_prefix(dut, "m_axi"), dut.clk, dut.rst, size=1 << 18)
    rng = bench.rng
    pause = lambda: iter(lambda: bool(rng.random() < 0.3), None)  # noqa: E731
    for channel in (ram.write_if.aw_channel, ram.write_if.w_channel, ram.write_if.b_channel,
                    ram.read_if.ar_channel, ram.read_if.r_channel):
        channel.set_pause_generator(pause())
    bench.stalls = STALLS["local"]
    ram.write(BASE, bench.region.bytes.tobytes())
    await RisingEdge(dut.clk)
    for unit in ("load", "store"):
        program = [random_loops(bench, unit) for _ in range(25)]
        expected = Expected(bench, unit, program)
        assert expected.fault == Fault.NONE
        done = bench.load_done if unit == "load" else bench.store_done
        for fields in program:
            bench.push(unit, encode(**fields))
        await bench.until(lambda done=done: len(done) == 25)
        if unit == "load":
            compare(bench.local_log, expected.log)
        else:
            for address, byte in expected.log:
                bench.region.bytes[address - BASE] = byte
    assert ram.read(BASE, SIZE) == bench.region.bytes.tobytes()
    assert not any(ram.read(BASE - 64, 64)) and not any(ram.read(BASE + SIZE, 64))
