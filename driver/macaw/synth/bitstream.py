"""A bitstream for a board: accelerator, block memory, and the bridge for the serial backend."""

import json
from pathlib import Path

from macaw_sim import tools

from ..errors import MacawError
from ..files import writable_folder, write_atomically
from . import flow

__all__ = ["write_bitstream"]

_MHZ = 1e6


def write_bitstream(name: str, output: Path | None, seed: int,
                    progress: flow.Progress | None) -> tuple[Path, dict]:
    """Write the bitstream of a board, and JSON with its area and timing beside it.

    Parameters
    ----------
    name : str
        One of `macaw_hw.board.boards.BOARDS`.
    output : Path, optional
        The ``.bit`` file; by default ``build/synth/macaw_BOARD.bit``.
    seed : int
        Of the placement.

    Returns
    -------
    The path, and what the JSON has: configuration, clock and highest frequency in MHz, cells used
    and available.

    Raises
    ------
    MacawError
        When a package is missing, a tool fails, or the clock of the board is too fast for the
        result.
    """
    flow.require("yosys", "nextpnr", "ecppack")
    try:
        import amaranth_boards  # noqa: F401
    except ImportError:
        raise MacawError("amaranth-boards is missing: run pip install amaranth-boards "
                         "(or pip install 'macaw[fpga]')") from None
    from macaw_hw.board.boards import build

    output = Path(output or tools.output_directory("synth") / f"macaw_{name}.bit")
    writable_folder(output.parent)
    design = build(name)
    board = design.board
    part = flow.Part(board.device, board.package, board.speed)
    netlist = flow.synthesize(design.verilog, "top", part, progress)
    routed = flow.place_and_route(netlist, part, frequency=board.clock / _MHZ, seed=seed,
                                  constraints=design.constraints, progress=progress)
    frequency = min(achieved for achieved, _ in routed.fmax.values())
    report = {"board": name, "config": design.config.to_dict(), "memory": board.memory,
              "baud": board.baud, "clock_mhz": board.clock / _MHZ, "fmax_mhz": frequency,
              "seed": seed,
              "cells": {cell: {"used": used, "available": available}
                        for cell, (used, available) in routed.utilization.items() if used}}
    if frequency * _MHZ < board.clock:
        raise MacawError(f"the design reaches {frequency:.1f} MHz, less than the "
                         f"{board.clock / _MHZ:.1f} MHz of the board's clock "
                         f"(logs in {routed.folder}); try another --seed")
    write_atomically(output, flow.bits(routed, progress))
    write_atomically(output.with_suffix(".json"), json.dumps(report, indent=1) + "\n")
    return output, report
