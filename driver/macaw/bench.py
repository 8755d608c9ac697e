"""Measurements on the RTL: cycles beside their limits, speed of the simulation, published figures of others."""

import ctypes
import os
import time
from dataclasses import asdict, dataclass
from importlib import metadata

from .device import Device
from .workloads import HARDWARE, WORKLOADS

__all__ = ["ANCHORS", "CASES", "Anchor", "Measurement", "Speed", "anchors", "bar", "measure", "report", "speed"]

CASES = (("train-64", "n16"), ("train-256", "n16"), ("train-32", "n16-wide"), ("train-32", "n8"), ("infer-64", "n16"),
         ("infer-1", "n16"), ("dense-1024", "n16"), ("train-1024", "n16"))
"""What `macaw bench` measures unless told otherwise: a name of `WORKLOADS`, a name of `HARDWARE`."""

_BARS = {("train-64", "n16"): 54_500, ("train-256", "n16"): 210_000, ("train-32", "n16-wide"): 27_600,
         ("train-32", "n8"): 108_500, ("infer-64", "n16"): 26_700, ("infer-1", "n16"): 7_200,
         ("dense-1024", "n16"): 4_240_000}
_SLACK = {("train-1024", "n16"): 1.10}
_BAR_LATENCY = 40
_ARRAY_CHUNK = 20_000


@dataclass(frozen=True)
class Anchor:
    """A published or reproduced figure of another system, beside the case that compares with it.

    ``cycles`` is None where only the utilization compares.
    """
    case: tuple
    system: str
    work: str
    cycles: int | None
    utilization: float


ANCHORS = (
    Anchor(("train-32", "n8"), "EILE (789f73d), 64 INT16", "784-128-10, batch 32, with SGD update", 116_942, 0.875),
    Anchor(("train-32", "n16-wide"), "RedMulE (51cd064), 48 FP16 FMA",
           "the five products of a 784-128-10 step, batch 32", None, 0.9255),
    Anchor(("dense-1024", "n16"), "RedMulE (51cd064), 48 FP16 FMA", "96x96x96 product", None, 0.9958),
    Anchor(("infer-64", "n16"), "jofrfu/tinyTPU, 14x14 int8", "784-504-10, batch 14", None, 0.9806),
    Anchor(("infer-64", "n16"), "NNgen 1.3.4, 8x8, AXI 128", "784-128-10, batch 16", None, 0.732),
    Anchor(("infer-1", "n16"), "NNgen 1.3.4, 16x16, AXI 128", "784-128-10, batch 1", 8_986, 0.044),
)
"""Measured side by side on one machine with Verilator 5.048; utilization counts useful MACs."""

SIMULATORS = (("NNgen 4x4", "115"), ("RedMulE", "63-83"), ("dnn-rtl", "70-73"))
"""Simulation speed of other systems under Verilator in kHz, from the same measurements."""


@dataclass(frozen=True)
class Measurement:
    """One workload on one configuration, from the doorbell to the interrupt in the steady state.

    Attributes
    ----------
    work, config : str
    latency : int
        Read latency of the memory in cycles.
    cycles, useful_macs : int
    limit : float
        Cycles; ``limit_part`` is ``array`` or ``bus``.
    utilization, ratio : float
        Useful MACs over cycles and peak; cycles over the limit.
    bar : int or None
        The most cycles that are good enough, where there is such a number.
    intensity : float
        Useful MACs per byte on the bus, both directions.
    khz : float
        Simulated cycles per second of wall time in the simulator.
    counters : dict of str to int
    """
    work: str
    config: str
    latency: int
    cycles: int
    useful_macs: int
    limit: float
    limit_part: str
    utilization: float
    ratio: float
    bar: int | None
    intensity: float
    khz: float
    counters: dict


def bar(work, config, latency=_BAR_LATENCY):
    """The most cycles that are good enough, or None."""
    if latency != _BAR_LATENCY:
        return None
    if (work, config) in _SLACK:
        return int(_SLACK[work, config] * WORKLOADS[work].limit(HARDWARE[config]).cycles)
    return _BARS.get((work, config))


def measure(work, config, latency=_BAR_LATENCY, workload=None):
    """A `Measurement` of the workload named ``work``, or of ``workload`` under that name."""
    workload, hardware = workload or WORKLOADS[work], HARDWARE[config]
    with Device(hardware, backend="verilator", dram_bytes=workload.memory, read_latency=latency) as device:
        run = workload.prepare(device)
        seconds, simulated = device.backend.seconds, device.backend.cycles
        counters = run()
        seconds, simulated = device.backend.seconds - seconds, device.backend.cycles - simulated
    limit, cycles = workload.limit(hardware), counters["cycles"]
    traffic = (counters["beats_read"] + counters["beats_written"]) * hardware.bus_bytes
    return Measurement(
        work=work, config=config, latency=latency, cycles=cycles, useful_macs=workload.macs, limit=limit.cycles,
        limit_part=limit.part, utilization=workload.macs / (cycles * hardware.peak_macs), ratio=cycles / limit.cycles,
        bar=bar(work, config, latency), intensity=workload.macs / traffic, khz=simulated / seconds / 1000,
        counters=dict(counters))


@dataclass(frozen=True)
class Speed:
    """How fast the simulator is in training steps, host included, beside the bare MAC array with random data.

    Attributes
    ----------
    config : str
    khz, array_khz : float
        Simulated cycles per second of processor time of this process.
    ratio : float
        ``khz / array_khz``.
    inside : float
        Share of the wall time of training that is spent in the compiled simulator, from 0 to 1.
    """
    config: str
    khz: float
    array_khz: float
    ratio: float
    inside: float


def speed(config, seconds=20, work="train-64", workload=None):
    """Measure the `Speed`, in turns over about ``seconds``, so that other load on the machine concerns both alike."""
    from macaw_sim.verilator.build import build_array

    workload = workload or WORKLOADS[work]
    library = ctypes.CDLL(str(build_array(HARDWARE[config])))
    library.array_run.restype, library.array_run.argtypes = ctypes.c_uint64, [ctypes.c_uint64]
    wall = training = inside = array = 0.0
    cycles = array_cycles = 0
    with Device(HARDWARE[config], backend="verilator", dram_bytes=workload.memory) as device:
        run, backend = workload.prepare(device), device.backend
        end = time.monotonic() + seconds
        while not cycles or time.monotonic() < end:
            start, used, before, simulator = time.perf_counter(), time.process_time(), backend.cycles, backend.seconds
            run()
            wall += time.perf_counter() - start
            training += time.process_time() - used
            cycles += backend.cycles - before
            inside += backend.seconds - simulator
            used = time.process_time()
            library.array_run(_ARRAY_CHUNK)
            array += time.process_time() - used
            array_cycles += _ARRAY_CHUNK
    khz, array_khz = cycles / training / 1000, array_cycles / array / 1000
    return Speed(config=config, khz=khz, array_khz=array_khz, ratio=khz / array_khz, inside=inside / wall)


def anchors(measurements):
    """Pairs of an `Anchor` and the measurement that compares with it."""
    found = {(m.work, m.config): m for m in measurements if m.latency == _BAR_LATENCY}
    return [(anchor, found[anchor.case]) for anchor in ANCHORS if anchor.case in found]


def report(measurements, speeds):
    """Everything that was measured, as JSON can hold it."""
    from macaw_sim import tools

    return {
        "macaw": metadata.version("macaw"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "processors": os.cpu_count(),
        "tools": {name: str(version) for name, version in tools.versions().items()},
        "configs": {m.config: HARDWARE[m.config].to_dict() for m in measurements},
        "workloads": {m.work: asdict(WORKLOADS[m.work]) for m in measurements if m.work in WORKLOADS},
        "measurements": [asdict(m) for m in measurements],
        "speed": [asdict(s) for s in speeds],
        "anchors": [asdict(anchor) | {"our_cycles": m.cycles, "our_utilization": m.utilization}
                    for anchor, m in anchors(measurements)],
    }
