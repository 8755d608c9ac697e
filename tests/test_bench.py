"""Measurements: workloads and their limits, what is counted, the speed of the simulation, the commands."""

import json

import pytest
from macaw import bench, cli, plots, workloads
from macaw.bench import Measurement
from macaw.workloads import HARDWARE, WORKLOADS, Workload
from macaw_hw.config import Config
from macaw_hw.registers import COUNTERS

TINY = Workload(layers=(20, 12, 10), batch=8)


@pytest.mark.parametrize("work, config, cycles", [
    ("train-64", "n16", 51_136), ("train-256", "n16", 204_544), ("train-32", "n16-wide", 25_568),
    ("train-32", "n8", 102_272), ("infer-64", "n16", 25_408), ("infer-1", "n16", 6_400),
    ("dense-1024", "n16", 4_194_304), ("train-1024", "n16", 1_195_520)])
def test_limits(work, config, cycles):
    assert WORKLOADS[work].limit(HARDWARE[config]) == workloads.Limit(cycles, "array")
    bar = bench.bar(work, config)
    assert cycles < bar < 1.13 * cycles
    assert bench.bar(work, config, latency=150) is None


def test_limit_of_the_bus():
    """Float32 weights travel in both directions; bfp8 weights where the tile memory is too small for them."""
    work = Workload(layers=(784, 128, 10), batch=1)
    weights, pixels = 784 * 128 + 128 * 10, 784
    assert work.limit(HARDWARE["n16"]) == workloads.Limit((4 * weights + pixels) / 16, "bus")
    small = Config(size=16, tile_bank_tiles=64)
    assert work.limit(small).cycles == (4 * weights + pixels + 400 * 16 * 17) / 16
    assert Workload(layers=(784, 128, 10), batch=1, training=False).limit(HARDWARE["n16"]).part == "array"


@pytest.fixture(scope="module")
def measurement():
    return bench.measure("train-64", "n4", workload=TINY)


def test_measurement(measurement):
    assert measurement.useful_macs == 8 * (2 * 360 + 120)
    assert measurement.cycles == measurement.counters["cycles"] > measurement.limit == 4 * (360 + 8 * 10) / 4
    assert measurement.ratio == measurement.cycles / measurement.limit
    assert measurement.utilization == pytest.approx(measurement.useful_macs / 16 / measurement.cycles)
    beats = measurement.counters["beats_read"] + measurement.counters["beats_written"]
    assert measurement.intensity == measurement.useful_macs / (4 * beats)
    assert set(measurement.counters) == set(COUNTERS) and measurement.khz > 0


def test_steady_state(measurement):
    """Another step takes exactly as long; a longer read latency takes longer."""
    assert bench.measure("train-64", "n4", workload=TINY).cycles == measurement.cycles
    assert bench.measure("train-64", "n4", latency=150, workload=TINY).cycles > measurement.cycles


def test_inference():
    work = Workload(layers=(20, 12, 10), batch=4, training=False)
    found = bench.measure("infer-64", "n4", workload=work)
    assert found.useful_macs == 4 * 360 and found.limit == 4 * (5 * 3 + 3 * 3) and found.cycles > found.limit


def test_speed():
    found = bench.speed("n4", seconds=0.2, workload=TINY)
    assert found.array_khz > found.khz > 0 and 0 < found.inside < 1
    assert found.ratio == pytest.approx(found.khz / found.array_khz)


def _measurement(work, config, **changes):
    return Measurement(**{**dict(work=work, config=config, latency=40, cycles=2, useful_macs=3, limit=1.0,
                                 limit_part="array", utilization=0.5, ratio=2.0, bar=None, intensity=1.0, khz=1.0,
                                 counters={}), **changes})


def test_anchors_stand_beside_their_case_only():
    assert {anchor.case for anchor in bench.ANCHORS} <= set(bench.CASES)
    one = _measurement("infer-1", "n16")
    assert [(anchor.system, m) for anchor, m in bench.anchors([one, _measurement("infer-1", "n8")])] == [
        ("NNgen 1.3.4, 16x16, AXI 128", one)]
    assert bench.anchors([_measurement("infer-1", "n16", latency=10)]) == []


def test_roofline():
    points = [("a", "n4", 0.5, 3.0), ("b", "n16", 40.0, 200.0)]
    picture = plots.roofline(points, {name: HARDWARE[name] for name in ("n4", "n16")}, "title")
    assert picture.startswith(b"\x89PNG") and len(picture) > 5_000


def test_commands(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(WORKLOADS, "train-64", TINY)
    monkeypatch.setitem(WORKLOADS, "infer-1", Workload(layers=(20, 12, 10), batch=1, training=False))
    def macaw(*arguments):
        with pytest.raises(SystemExit) as end:
            cli.main([str(a) for a in arguments])
        assert end.value.code == 0
        return capsys.readouterr().out

    out = macaw("bench", "--config", "n4", "--work", "train-64", "--work", "infer-1", "--latency", 10, "--latency", 40,
                "--seconds", 0.1, "-o", tmp_path / "new" / "b.json")
    report = json.loads((tmp_path / "new" / "b.json").read_text())
    assert [(m["work"], m["config"], m["latency"]) for m in report["measurements"]] == [
        ("train-64", "n4", 10), ("infer-1", "n4", 10), ("train-64", "n4", 40), ("infer-1", "n4", 40)]
    assert all(str(m["cycles"]) in out for m in report["measurements"])
    assert report["speed"][0]["config"] == "n4" and "Simulation of n4 in training" in out
    assert (tmp_path / "new" / "b.png").read_bytes().startswith(b"\x89PNG")

    out = macaw("trace", "--config", "n4", "--output", tmp_path / "trace")
    content = json.loads((tmp_path / "trace" / "trace.json").read_text())
    cycles = next(m["cycles"] for m in report["measurements"] if (m["work"], m["latency"]) == ("train-64", 40))
    assert content["otherData"]["cycles"] == cycles and f"{cycles} cycles" in out
    assert (tmp_path / "trace" / "timeline.png").read_bytes().startswith(b"\x89PNG")
