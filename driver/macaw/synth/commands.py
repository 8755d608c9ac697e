"""The commands that synthesize, apart from reading their options."""

import json
from pathlib import Path

from macaw_sim import tools

from ..console import console, new_table, print_table, shown
from ..errors import MacawError
from ..files import writable_folder, write_atomically

__all__ = ["bitstream", "synth"]

_STAGE_SECONDS = 30
_SHOWN_PATHS = 10


def synth(config, device, frequency, seeds, output):
    """Measure area and speed of a configuration; print the tables and write JSON.

    Raises
    ------
    MacawError
        Also, after all that, when a frequency was asked for and the median misses it.
    """
    from .measure import FREQUENCY, measure

    output = Path(output or tools.output_directory("synth") / f"macaw_{config}_{device}.json")
    writable_folder(output.parent)
    with _Stages() as stages:
        report = measure(config, device, frequency or FREQUENCY, seeds, stages)
    write_atomically(output, json.dumps(report, indent=1) + "\n")
    _area(report)
    _paths(report)
    if seeds:
        _speed(report)
    print(f"Wrote {shown(output)}.")
    if frequency and seeds and report["fmax_mhz"]["median"] < frequency:
        raise MacawError(f"the design reaches {report['fmax_mhz']['median']:.1f} MHz (median of "
                         f"{_seeds(seeds)}), less than the {frequency:g} MHz asked for with --freq")


def _area(report):
    table = new_table(f"{report['config']} on {report['device']}, speed grade "
                      f"{report['speed_grade']}, out of context", "unit", *report["cells"], "LUTs per MAC")
    used = {what: cell["used"] for what, cell in report["cells"].items()}
    for name, counts in (*report["units"].items(), ("all", used)):
        if any(counts.values()):
            table.add_row(name, *(f"{count or ''}" for count in counts.values()),
                          f"{counts['LUTs'] / report['macs']:.0f}", end_section=name == "other")
    table.add_row("of the device", *(f"{cell['used'] / cell['available']:.1%}"
                                     for cell in report["cells"].values()), "")
    print_table(table)


def _paths(report):
    paths = report["slow_paths"]
    target = f"{report['target_mhz']:g} MHz"
    table = new_table(f"Slowest paths, by the modules they start and end in (target {target})", "MHz", "ns",
                      "levels", "from", "to", "through", "endpoints")
    for path in paths[:_SHOWN_PATHS]:
        between = dict.fromkeys(module for module in path["modules"]
                                if module not in (path["start_module"], path["end_module"]))
        table.add_row(f"{path['mhz']:.1f}", f"{path['delay']:.1f}", str(path["levels"]), path["start"],
                      path["end"], ", ".join(between), str(path["endpoints"]))
    if paths:
        print_table(table)
    if len(paths) > _SHOWN_PATHS:
        print(f"{len(paths) - _SHOWN_PATHS} more such pairs of modules are in the JSON.")
    if "wire_ns" in report:
        print(f"Nothing is placed: paths are estimated with {report['wire_ns']} ns for each wire, and "
              f"{'those above' if paths else 'none'} may miss {target}.")


def _speed(report):
    fmax = report["fmax_mhz"]
    print(f"Fmax {fmax['median']:.1f} MHz, median of {_seeds(len(fmax['seeds']))} "
          f"({', '.join(f'{value:.1f}' for value in fmax['seeds'])}); "
          f"{report['macs'] * fmax['median'] / 1e3:.2f} GMAC/s, "
          f"{report['gmacs_per_kilolut']:.3f} GMAC/s per 1,000 LUTs.")


def _seeds(count):
    return f"{count} seed{'s' * (count > 1)}"


def bitstream(board, seed, output):
    """Write a bitstream; print its area and timing."""
    from macaw_hw.board.boards import BOARDS

    from .bitstream import write_bitstream

    with _Stages() as stages:
        path, report = write_bitstream(board, output, seed, stages)
    table = new_table(f"{board}: {report['fmax_mhz']:.1f} MHz, its clock {report['clock_mhz']:.1f} MHz",
                   "cell", "used", "available", "")
    for cell, count in report["cells"].items():
        table.add_row(cell, str(count["used"]), str(count["available"]), f"{count['used'] / count['available']:.1%}")
    print_table(table)
    print(f"Wrote {shown(path)} and {path.with_suffix('.json').name}. On the board, the driver finds it with "
          f"Device({BOARDS[board].config!r}, 'serial', port=..., baud={report['baud']}).")


class _Stages:
    """What a tool flow does at the moment: a line that changes on a terminal, else a line now and then."""

    def __init__(self):
        self._title, self._printed = None, 0.0
        self._status = console.status("") if console.is_terminal else None

    def __enter__(self):
        if self._status:
            self._status.start()
        return self

    def __exit__(self, *exception):
        if self._status:
            self._status.stop()

    def __call__(self, title, seconds):
        if self._status:
            self._status.update(f"{title}, {seconds:.0f} s")
        elif title != self._title or seconds - self._printed > _STAGE_SECONDS:
            print(f"{title}, {seconds:.0f} s", flush=True)
            self._title, self._printed = title, seconds
