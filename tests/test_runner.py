"""cocotb runs: what passes, what fails and how, and what is compiled again."""

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from macaw_sim import runner, tools
from macaw_sim.runner import SimulationError, build_verilog, run_cocotb, simulators

TESTBENCH = '''
import cocotb
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge
from macaw_sim.testbenches import generator, parameters


async def start(dut):
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 1
    dut.step__amount.value = 0
    for _ in range(2):
        await RisingEdge(dut.clk)
    dut.rst.value = 0


@cocotb.test()
async def counts(dut):
    await start(dut)
    expected = 0
    for _ in range(50):
        amount = int(generator().integers(256))
        dut.step__amount.value = amount
        await RisingEdge(dut.clk)
        assert dut.count.value.to_unsigned() == expected
        expected = (expected + amount + parameters()["error"]) % 256


@cocotb.test()
async def other(dut):
    await start(dut)
    with open("seen", "w") as file:
        file.write(str(int(generator(1).integers(1 << 30))))
'''


class Counter(wiring.Component):
    step: In(wiring.Signature({"amount": Out(8)}))
    count: Out(8)

    def elaborate(self, platform):
        m = Module()
        m.d.sync += self.count.eq(self.count + self.step.amount)
        return m


@pytest.fixture
def testbench(tmp_path, monkeypatch):
    """Name of an importable testbench module."""
    (tmp_path / "testbench_of_counter.py").write_text(TESTBENCH)
    monkeypatch.syspath_prepend(tmp_path)
    return "testbench_of_counter"


@pytest.mark.parametrize("simulator", simulators())
def test_passes_and_fails(testbench, simulator, capsys):
    def run(**options):
        return run_cocotb(Counter(), testbench, name="counter", simulator=simulator, **options)
    directory = run(parameters={"error": 0}, seed=77)
    assert (directory / "run.log").is_file()
    assert "seed 77" in capsys.readouterr().out
    first = (directory / "seen").read_text()
    assert (run(parameters={"error": 0}, seed=77, testcase="other") / "seen").read_text() == first
    assert (run(parameters={"error": 0}, seed=78, testcase="other") / "seen").read_text() != first
    with pytest.raises(SimulationError, match="seed 77: 1 of 2 tests failed") as error:
        run(parameters={"error": 1}, seed=77)
    assert "assert dut.count.value.to_unsigned() == expected" in str(error.value)
    with pytest.raises(SimulationError, match="no test ran|No tests|not found"):
        run(testcase="missing")


@pytest.mark.parametrize("simulator", simulators())
def test_testbench_that_cannot_be_imported(simulator):
    with pytest.raises(SimulationError, match="No module named 'no_such_testbench'"):
        run_cocotb(Counter(), "no_such_testbench", name="counter", simulator=simulator)


@pytest.mark.parametrize("simulator", simulators())
def test_verilog_that_does_not_build(simulator):
    with pytest.raises(SimulationError, match="broken does not build: (?s:.*)syntax error"):
        build_verilog("module broken(input clk);\n  wire = ;\nendmodule\n", name="broken", simulator=simulator)


def test_builds_once_for_each_content(tmp_path, monkeypatch):
    monkeypatch.setenv("MACAW_BUILD", str(tmp_path))
    built = []
    def build(self, *, build_dir, **options):
        built.append(build_dir)
    monkeypatch.setattr(type(runner._runner("verilator")), "build", build)
    def text(width):
        return f"module m(input [{width}:0] a, output [{width}:0] b);\n  assign b = a;\nendmodule\n"
    directories = [build_verilog(text(width), name="m") for width in (1, 2, 1)]
    assert directories[0] == directories[2] != directories[1]
    assert built == directories[:2]


def test_broken_build_is_not_taken_for_a_good_one(tmp_path, monkeypatch):
    monkeypatch.setenv("MACAW_BUILD", str(tmp_path))
    for _ in range(2):
        with pytest.raises(SimulationError):
            build_verilog("module broken(;\n", name="broken", simulator=simulators()[-1])


def test_unknown_simulator():
    with pytest.raises(ValueError, match="^simulator must be verilator or icarus, not 'other'$"):
        run_cocotb(Counter(), "x", name="counter", simulator="other")


def test_without_icarus(monkeypatch):
    def missing():
        raise tools.ToolError("Icarus Verilog is missing")
    monkeypatch.setattr(tools, "icarus", missing)
    assert simulators() == ["verilator"]
    with pytest.raises(tools.ToolError):
        run_cocotb(Counter(), "x", name="counter", simulator="icarus")


def test_environment_is_as_before():
    import os
    before = dict(os.environ)
    build_verilog("module m(input a, output b);\n  assign b = a;\nendmodule\n", name="m", simulator=simulators()[-1])
    assert dict(os.environ) == before
