"""The Verilator backend, with a small accelerator that copies memory in place of the real one."""

import re
import signal
import struct
import subprocess
import sys
import time
from functools import cache

import numpy as np
import pytest
from amaranth.back import verilog
from axi_copier import DEFECTS, REGISTERS, SILENT, Copier
from macaw_hw.config import Config
from macaw_sim import tools
from macaw_sim.backend import Backend, BusError
from macaw_sim.verilator.backend import ProtocolError, VerilatorBackend
from macaw_sim.verilator.build import BuildError, build_library, cached_verilog

SIZE = 1 << 18
SOURCE, TARGET = 0x1000, 0x10000


@cache
def _verilog(width):
    return verilog.convert(Copier(bus_bytes=width), name="macaw", emit_src=False, strip_internal_attrs=True)


def _backend(width=16, **options):
    return VerilatorBackend(Config(size=width), dram_bytes=SIZE, verilog=_verilog(width), **options)


@pytest.fixture
def make(rng):
    """Makes backends whose memory is random, and closes them."""
    made = []
    def make(width=16, **options):
        made.append(_backend(width, **options))
        made[-1].dram[:] = rng.integers(0, 256, SIZE, dtype=np.uint8)
        return made[-1]
    yield make
    for backend in made:
        backend.close()


def _start(backend, *, source=SOURCE, target=TARGET, bursts=8, beats=16, strobe=0xFFFFFFFF, defect="none"):
    for name, value in {"source": source, "target": target, "bursts": bursts, "beats": beats, "strobe": strobe,
                        "defect": DEFECTS.index(defect), "control": 1}.items():
        backend.write_register(REGISTERS[name], value)


def _copy(backend, **options):
    """A whole copy; the responses that the device saw."""
    _start(backend, **options)
    assert backend.wait_interrupt(50_000)
    backend.write_register(REGISTERS["control"], 0)
    return backend.read_register(REGISTERS["response"])


@pytest.mark.parametrize("width", [4, 8, 16])
@pytest.mark.parametrize("timing", [
    {}, {"read_latency": 1, "write_latency": 1}, {"stalls": 0.4, "reorder": True, "interleave": True},
    {"read_bandwidth": 0.3, "write_bandwidth": 0.5, "outstanding": 1}], ids=["default", "fast", "stalls", "slow"])
def test_copy(make, width, timing, seed):
    backend = make(width, seed=seed, **timing)
    assert isinstance(backend, Backend)
    expected = backend.dram.copy()
    length = 8 * 16 * width
    expected[TARGET:TARGET + length] = expected[SOURCE:SOURCE + length]
    assert _copy(backend) == 0
    assert (backend.dram == expected).all()
    assert backend.statistics() == {"bursts_read": 8, "beats_read": 128, "bursts_written": 8, "beats_written": 128}
    assert not backend.wait_interrupt(10)


def test_strobes(make):
    backend = make(16)
    expected = backend.dram.copy()
    for lane in (0, 3, 15):
        expected[TARGET + lane:TARGET + 256:16] = expected[SOURCE + lane:SOURCE + 256:16]
    _copy(backend, bursts=1, strobe=0x8009)
    assert (backend.dram == expected).all()


def test_cycles_follow_latency_and_seed(make):
    def cycles(**options):
        backend = make(16, **options)
        _copy(backend)
        return backend.cycles
    assert cycles(read_latency=60) - cycles(read_latency=40) == 8 * 20
    assert cycles(write_latency=60) - cycles(write_latency=20) == 8 * 40
    assert cycles(stalls=0.3, seed=5) == cycles(stalls=0.3, seed=5)
    assert len({cycles(stalls=0.3, seed=seed) for seed in range(5)}) > 1


def test_limit_of_a_wait(make):
    backend = make(16)
    for limit in (1, 7, 20_000, 45_001):
        before = backend.cycles
        assert not backend.wait_interrupt(limit)
        assert backend.cycles - before == limit
    assert backend.seconds > 0
    _start(backend)
    assert backend.wait_interrupt(10_000)
    before = backend.cycles
    assert backend.wait_interrupt(10_000) and backend.cycles == before


def test_registers(make):
    backend = make(16, stalls=0.5)
    for value in (0, 1, 0x12345678, 0xFFFFFFFF):
        backend.write_register(REGISTERS["target"], value)
        assert backend.read_register(REGISTERS["target"]) == value
    with pytest.raises(BusError, match="^the device rejects a read of register 0x44$"):
        backend.read_register(0x44)
    with pytest.raises(BusError, match="^the device rejects a write of register 0x48$"):
        backend.write_register(0x48, 1)
    assert backend.read_register(REGISTERS["target"]) == 0xFFFFFFFF


@pytest.mark.parametrize("access", ["read", "write"])
def test_register_that_never_answers(make, access):
    backend = make(16)
    with pytest.raises(TimeoutError, match=f"no answer to a {access} of register 0x20 within 10000 cycles"):
        backend.read_register(SILENT) if access == "read" else backend.write_register(SILENT, 1)
    backend.reset()
    assert _copy(backend) == 0


@pytest.mark.parametrize("response, code", [("SLVERR", 2), ("DECERR", 3)])
def test_injected_errors(make, response, code):
    backend = make(16)
    backend.inject_error(SOURCE + 40, response=response, on="read")
    assert _copy(backend) == code
    backend.clear_errors()
    before = backend.dram.copy()
    backend.inject_error(TARGET + 256, 16, response=response, on="write")
    backend.dram[SOURCE:SOURCE + 2048] += 1
    assert _copy(backend) == code
    changed = np.flatnonzero(backend.dram[TARGET:TARGET + 2048] != before[TARGET:TARGET + 2048])
    assert not np.isin(changed, range(256, 272)).any() and len(changed) > 1000
    backend.clear_errors()
    assert _copy(backend) == 0


def test_outside_dram(make):
    backend = make(16)
    assert _copy(backend, source=SIZE - 1024) == 3
    assert _copy(backend, target=SIZE) == 3
    assert _copy(backend) == 0


def test_memory_that_stops_answering(make):
    backend = make(16)
    expected = backend.dram.copy()
    backend.stop_answering(after=120)
    _start(backend)
    assert not backend.wait_interrupt(5000)
    assert (backend.dram[TARGET:TARGET + 2048] != expected[SOURCE:SOURCE + 2048]).any()
    backend.resume_answering()
    assert backend.wait_interrupt(5000)
    assert (backend.dram[TARGET:TARGET + 2048] == expected[SOURCE:SOURCE + 2048]).all()


def test_reset_amid_a_burst(make):
    backend = make(16)
    _start(backend)
    backend.wait_interrupt(100)
    backend.reset()
    assert not backend.wait_interrupt(3000)
    assert _copy(backend) == 0


@pytest.mark.parametrize("defect, message", [
    ("araddr", "AR changed before it was accepted"), ("arvalid", "ARVALID fell before ARREADY"),
    ("wdata", "W changed before it was accepted"), ("wlast", "WLAST is 0 in beat 16 of 16"),
    ("arburst", "ARBURST is 0, not 1 (INCR), at address 0x1000"),
    ("arsize", "ARSIZE is 3: beats of 8 bytes on a bus of 16")])
def test_protocol_violation(make, defect, message):
    backend = make(16, stalls=0.5)
    with pytest.raises(ProtocolError, match=rf"^AXI protocol violation in cycle \d+: {re.escape(message)}$"):
        _copy(backend, defect=defect)
    backend.reset()
    assert _copy(backend) == 0


def test_burst_across_4_kib(make):
    backend = make(16)
    with pytest.raises(ProtocolError, match="AR burst of 16 beats at address 0x1f80 crosses 4 KiB"):
        _copy(backend, source=0x1F80)


def test_keyboard_interrupt(make):
    backend = make(16)
    start = time.monotonic()
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    with pytest.raises(KeyboardInterrupt):
        backend.wait_interrupt(1 << 50)
    assert time.monotonic() - start < 5
    assert _copy(backend) == 0


@pytest.mark.parametrize("format", ["fst", "vcd"])
def test_waveform_of_a_range_of_cycles(make, tmp_path, format):
    backend = make(16, waveform=tmp_path / "sub" / f"wave.{format}", waveform_cycles=(50, 149))
    assert _copy(backend) == 0
    assert backend.cycles > 300
    backend.close()
    content = backend.waveform.read_bytes()
    # 10 ns a cycle, in ps; the clock rises in the middle.
    if format == "fst":
        assert content[0] == 0 and struct.unpack(">QQQ", content[1:25]) == (329, 500_000, 1_495_000)
    else:
        times = [int(t) for t in re.findall(rb"^#(\d+)", content, re.MULTILINE)]
        assert (times[0], times[-1], len(times)) == (500_000, 1_495_000, 200)
        assert b"m_axi_araddr" in content and b" left " in content


def test_waveform_with_another_suffix():
    with pytest.raises(ValueError, match="^waveform must end in .fst or .vcd, not '.png'$"):
        _backend(waveform="wave.png")


@pytest.mark.parametrize("options, message", [
    ({"read_latency": 0}, "read_latency must be from 1 to 1048576, not 0"),
    ({"write_latency": 0}, "write_latency must be from 1 to 1048576, not 0"),
    ({"read_bandwidth": 0}, "read_bandwidth must be above 0 and at most 1, not 0"),
    ({"write_bandwidth": 1.5}, "write_bandwidth must be above 0 and at most 1, not 1.5"),
    ({"stalls": 1}, "stalls must be from 0 to 0.9, not 1"),
    ({"outstanding": 0}, "outstanding must be from 1 to 256, not 0"),
    ({"threads": 0}, "threads must be from 1 to 64, not 0")])
def test_option_out_of_range(options, message):
    with pytest.raises(ValueError) as error:
        _backend(**options)
    assert str(error.value) == message


def test_size_of_dram():
    with pytest.raises(ValueError, match="^dram_bytes must be a positive multiple of 4096, not 100$"):
        VerilatorBackend(Config(size=16), dram_bytes=100, verilog=_verilog(16))


def test_verilog_of_another_width():
    with pytest.raises(ValueError, match="^the Verilog has a bus of 16 bytes, not the 8 of config.bus_bytes$"):
        VerilatorBackend(Config(size=8), dram_bytes=SIZE, verilog=_verilog(16))


def test_closed(make):
    backend = make(16)
    backend.wait_interrupt(10)
    cycles = backend.cycles
    backend.close()
    backend.close()
    assert backend.cycles == cycles and not hasattr(backend, "dram")
    with pytest.raises(RuntimeError, match="^the backend is closed$"):
        backend.read_register(0)


def test_two_devices_in_one_process(make):
    first, second = make(16), make(4)
    _start(first)
    before = first.cycles
    assert _copy(second) == 0
    assert first.cycles == before
    assert first.wait_interrupt(10_000)


def test_failed_build_says_why(tmp_path, monkeypatch):
    monkeypatch.setenv("MACAW_BUILD", str(tmp_path))
    for _ in range(2):
        with pytest.raises(BuildError) as error:
            build_library("module macaw(input clk);\n  wire x = ;\nendmodule\n")
        lines = str(error.value).splitlines()
        assert re.match(rf"the simulator does not build: verilator failed \(log: {tmp_path}.*\.log\)$", lines[0])
        assert "%Error: macaw.v:2" in lines[1] and len(lines) <= 6
    with pytest.raises(BuildError, match="make failed(?s:.*)harness.cpp(?s:.*)error: "):
        build_library("module macaw(input clk);\nendmodule\n")
    assert not list(tmp_path.rglob("*.so"))


def test_generated_verilog_is_remembered(tmp_path, monkeypatch):
    monkeypatch.setenv("MACAW_BUILD", str(tmp_path))
    generated = []
    def generate(config):
        generated.append(config)
        return f"verilog of {config.size}"
    monkeypatch.setattr("macaw_hw.verilog.generate", generate)
    texts = [cached_verilog(Config(size=size)) for size in (4, 8, 4)]
    assert texts == ["verilog of 4", "verilog of 8", "verilog of 4"]
    assert generated == [Config(size=4), Config(size=8)]


def test_without_compiler(tmp_path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(tools.ToolError, match="^the C\\+\\+ compiler 'no-such-compiler'"):
        _backend()


def test_processes_build_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MACAW_BUILD", str(tmp_path))
    (tmp_path / "macaw.v").write_text(_verilog(4))
    code = ("import sys, pathlib; from macaw_sim.verilator import build\n"
            "real = build._build\n"
            "build._build = lambda *a: (print('built'), real(*a))\n"
            "print(build.build_library(pathlib.Path(sys.argv[1]).read_text()))")
    running = [subprocess.Popen([sys.executable, "-c", code, tmp_path / "macaw.v"], text=True, stdout=subprocess.PIPE)
               for _ in range(2)]
    outputs = [process.communicate(timeout=200)[0].split() for process in running]
    assert sorted(map(len, outputs)) == [1, 2] and outputs[0][-1] == outputs[1][-1]
    assert [path.suffix for path in sorted((tmp_path / "sim" / "verilator").iterdir())] == [".lock", ".log", ".so"]
