"""Area and speed of an accelerator on an FPGA, out of context, with the tools that YoWASP packages."""

from collections import Counter
from dataclasses import asdict
from statistics import median_low

from macaw_hw.config import CONFIGS
from macaw_hw.verilog import MODULE, generate

from ..errors import MacawError
from . import flow
from .hierarchy import UNITS, Hierarchy, unit
from .paths import read_sdf, slow_groups

__all__ = ["CELLS", "FREQUENCY", "WIRE", "measure"]

CELLS = {"LUTs": "TRELLIS_COMB", "flip-flops": "TRELLIS_FF", "multipliers": "MULT18X18D",
         "block RAM": "DP16KD"}
"""What is counted, and what nextpnr calls it. A LUT is one with four inputs; a carry of two bits
takes two, and a distributed memory of 16 x 4 bits six: four for its data, two for its write port."""

FREQUENCY = 100.0
"""Target in MHz, unless another is asked for. Paths that are too slow for it are listed."""

WIRE = 1.1
"""Time in ns that a wire takes on the long paths of a placed accelerator; for what is not placed."""


def measure(name: str, device: str, frequency: float, seeds: int,
            progress: flow.Progress | None = None) -> dict:
    """Synthesize a named configuration, place and route it ``seeds`` times, and report.

    Parameters
    ----------
    name : str
        One of `macaw_hw.config.CONFIGS`.
    device : str
        One of `flow.DEVICES`.
    frequency : float
        What the tools aim at, in MHz.
    seeds : int
        How many placements, with seeds from 1. With 0 nothing is placed, and the design need not fit:
        cells, and slow paths as they would be if each wire took `WIRE`.

    Returns
    -------
    What ``docs/synthesis.md`` describes as the JSON of ``macaw synth``.

    Raises
    ------
    MacawError
        When a tool is missing or fails, or the design does not fit.
    """
    flow.require("yosys", "nextpnr")
    config, part = CONFIGS[name], flow.DEVICES[device]
    if progress:
        progress("Verilog", 0)
    verilog = generate(config)
    netlist = flow.synthesize(verilog, MODULE, part, progress)
    packed = flow.pack(netlist, part, progress)
    if seeds:
        _check_fit(packed, device)
    hierarchy = Hierarchy(verilog, MODULE)
    luts = packed.utilization[CELLS["LUTs"]][0]
    report = {
        "config": name, "parameters": config.to_dict(), "macs": config.peak_macs,
        "device": device, "speed_grade": int(part.speed), "tools": flow.versions(),
        "cells": {what: dict(zip(("used", "available"), packed.utilization[cell], strict=True))
                  for what, cell in CELLS.items()},
        "luts_per_mac": luts / config.peak_macs,
        "units": _units(packed),
    }
    routes = [_route(netlist, part, frequency, seed, seeds, progress)
              for seed in range(1, seeds + 1)]
    if routes:
        report |= _timing(routes, hierarchy, frequency)
        report["gmacs_per_kilolut"] = config.peak_macs * report["fmax_mhz"]["median"] / luts
    else:
        estimate = read_sdf(packed.delays).with_wires(WIRE)
        report |= {"wire_ns": WIRE, **_paths(estimate, hierarchy, frequency, frequency)}
    return report


def _check_fit(packed, device):
    for what, cell in CELLS.items():
        used, available = packed.utilization[cell]
        if used > available:
            raise MacawError(f"the design needs {used:,} {what} and {device} has {available:,}: "
                             "choose a smaller --config or a larger --device, or only count the "
                             "cells with --seeds 0")


def _units(packed):
    """Cells by unit, for each unit and each kind of cell of `CELLS`."""
    delays = read_sdf(packed.delays)
    kinds = {cell: what for what, cell in CELLS.items()}
    counts = Counter((unit(owner), kinds[delays.cells[cell]])
                     for cell, owner in delays.named().items() if delays.cells[cell] in kinds)
    return {name: {what: counts[name, what] for what in CELLS} for name in UNITS}


def _route(netlist, part, frequency, seed, seeds, progress):
    def with_seed(title, seconds):
        progress(f"{title}, seed {seed} of {seeds}", seconds)

    return flow.place_and_route(netlist, part, frequency=frequency, seed=seed,
                                progress=progress and with_seed)


def _timing(routes, hierarchy, frequency):
    """Highest frequencies, and the slow paths of the placement that is their median."""
    fmax = [min(achieved for achieved, _ in routed.fmax.values()) for routed in routes]
    median = median_low(fmax)
    delays = read_sdf(routes[fmax.index(median)].delays)
    return {"fmax_mhz": {"seeds": fmax, "median": median},
            **_paths(delays, hierarchy, frequency, max(frequency, median + 1))}


def _paths(delays, hierarchy, frequency, below):
    groups = slow_groups(delays, hierarchy, 1e3 / below)
    return {"target_mhz": frequency,
            "slow_paths": [asdict(group) | {"mhz": group.mhz} for group in groups]}
