"""Merged lanes: which modules are merged, and that nothing else changes."""

import re
import subprocess

import pytest
from amaranth.back import verilog
from amaranth.hdl import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from macaw_hw.config import named_config
from macaw_sim import tools
from macaw_sim.fuzz import campaign
from macaw_sim.fuzz.case import image_bytes
from macaw_sim.verilator.backend import VerilatorBackend
from macaw_sim.verilator.build import cached_verilog
from macaw_sim.verilator.lanes import merge_lanes

_COMPARE = """
module compare(input clk, input rst, input [31:0] x, input [1:0] op, output same, output right, output [31:0] o);
  wire [31:0] other, third;
""" + "".join(f"""
  {module} {module}(.clk(clk), .rst(rst), .op(op),
    .x__0(x[7:0]), .x__1(x[15:8]), .x__2(x[23:16]), .x__3(x[31:24]),
    .o__0({o}[7:0]), .o__1({o}[15:8]), .o__2({o}[23:16]), .o__3({o}[31:24]));
""" for module, o in (("macaw", "o"), ("merged", "other"), ("wrong", "third"))) + """
  assign same = o == other;
  assign right = o == third;
endmodule
"""

_MAIN = """
#include <cstdint>
#include <cstdio>
#include "Vcompare.h"
int main() {
    Vcompare top;
    uint32_t random = 1, different = 0, noticed = 0, seen = 0;
    for (int cycle = 0; cycle < 5000; ++cycle) {
        random = random * 1664525 + 1013904223;
        top.x = random ^ random >> 11;
        top.op = random >> 30;
        top.rst = (random >> 16 & 255) == 0;
        top.clk = 1, top.eval();
        top.clk = 0, top.eval();
        different += !top.same;
        noticed += !top.right;
        seen |= top.o;
    }
    printf("%u %u %x", different, noticed, seen);
}
"""


class _Inner(wiring.Component):
    """A register and a comparison; ``o`` is combinational."""

    i: In(8)
    limit: In(8)
    o: Out(8)

    def elaborate(self, platform):
        m = Module()
        held = Signal(8)
        m.d.sync += held.eq(self.i)
        m.d.comb += self.o.eq(Mux(held > self.limit, self.limit, held))
        return m


class _Lane(wiring.Component):
    """With what lanes are made of: choices, parts of signals, a module inside."""

    def __init__(self, *, width=8, memory=False):
        self._width, self._memory = width, memory
        super().__init__({"x": In(width), "op": In(2), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.inner = inner = _Inner()
        m.d.comb += [inner.i.eq(self.x), inner.limit.eq(200)]
        total = Signal(self._width, init=5)
        with m.Switch(self.op):
            with m.Case(0):
                m.d.sync += total.eq(total + inner.o)
            with m.Case(1):
                m.d.sync += total.eq(Cat(total[4:], inner.o[:4]))
            with m.Default(), m.If(self.x[0] & (total > 9)):
                m.d.sync += total.eq(~total)
        m.d.comb += self.o.eq(total)
        if self._memory:
            m.submodules.memory = memory = Memory(shape=self._width, depth=4, init=[])
            write, read = memory.write_port(), memory.read_port()
            m.d.comb += [write.data.eq(total), write.en.eq(1), write.addr.eq(self.op), read.addr.eq(self.op),
                         read.en.eq(1), self.o.eq(read.data)]
        return m


class _Lanes(wiring.Component):
    def __init__(self, *, count, **options):
        self._count, self._options = count, options
        width = options.get("width", 8)
        super().__init__({"x": In(width).array(count), "op": In(2), "o": Out(width).array(count)})

    def elaborate(self, platform):
        m = Module()
        for i in range(self._count):
            m.submodules[f"lane{i}"] = lane = _Lane(**self._options)
            m.d.comb += [lane.x.eq(self.x[i]), lane.op.eq(self.op), self.o[i].eq(lane.o)]
        return m


def _text(**options):
    return verilog.convert(_Lanes(**options), name="macaw", emit_src=False, strip_internal_attrs=True)


def _merged(text):
    return re.findall(r"^  \\(\S+_lanes) +\\\S+ +\($", merge_lanes(text), re.MULTILINE)


def test_equal_instances_become_one():
    text = _text(count=4)
    merged = merge_lanes(text)
    assert _merged(text) == ["macaw.lane0_lanes"]
    assert not re.search(r"^  \\macaw.lane\d  lane\d \(", merged, re.MULTILINE)
    assert merged == merge_lanes(text)


@pytest.mark.parametrize("options", [{"count": 3}, {"count": 4, "width": 65}, {"count": 4, "memory": True}])
def test_others_stay(options):
    text = _text(**options)
    assert merge_lanes(text).rstrip() == text.rstrip()


def test_a_difference_keeps_lanes_apart():
    text = _text(count=4)
    assert _merged(text.replace("8'hc8", "8'hc7", 1)) == []


def test_lanes_of_the_accelerator():
    assert sorted(_merged(cached_verilog(named_config("n4")))) == [
        "macaw.activation.lane0_lanes", "macaw.activation.quantizer.lane0_lanes", "macaw.matrix.accumulator.add0_lanes",
        "macaw.matrix.accumulator.convert0_lanes"]


def test_merged_lanes_compute_the_same(tmp_path):
    """... and a defect in them is noticed."""
    text = _text(count=4)
    merged = merge_lanes(text).replace("module macaw(", "module merged(")
    wrong = re.sub(r"(module \\macaw.lane0_lanes .*?)== 2'b01", r"\1== 2'b11", merged, count=1, flags=re.DOTALL)
    wrong = re.sub(r"^(module |  )\\macaw\.", r"\1\\wrong.", wrong, flags=re.MULTILINE).replace("merged(", "wrong(")
    (tmp_path / "all.v").write_text(
        merged + wrong + text[text.index("module macaw("):text.index("endmodule")] + "endmodule\n" + _COMPARE)
    (tmp_path / "main.cpp").write_text(_MAIN)
    subprocess.run(["verilator", "--cc", "--exe", "--build", "-Wno-fatal", "--top-module", "compare", "all.v",
                    "main.cpp", "-o", "compare"], cwd=tmp_path, env=tools.verilator_environment(), check=True,
                   capture_output=True)
    result = subprocess.run([tmp_path / "obj_dir" / "compare"], capture_output=True, text=True, check=True).stdout
    different, noticed, seen = result.split()
    assert int(different) == 0 and int(noticed) > 0
    assert seen == "ffffffff"


def test_random_programs(monkeypatch, seed):
    """Merged lanes and emulator; elsewhere, random programs run on the Verilog as it is."""
    monkeypatch.setattr(campaign, "device", lambda config, seed, options, verilog: VerilatorBackend(
        config, dram_bytes=image_bytes(config), seed=seed, **options))
    campaign.legal(named_config("n4"), programs=60, seed=seed)
