"""Where time goes in a routed design: its slow paths by the modules that they start and end in.

nextpnr reports one critical path. To know what to pipeline one needs all of them that are too long,
and not ten thousand alike: the worst for each pair of modules. They come from the delays that
nextpnr writes as SDF (IEEE 1497), which are those of its own analysis.
"""

import gzip
from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

__all__ = ["Delays", "Group", "read_sdf", "slow_groups"]

_CLOCKS = ("CLK", "WCK")
_CARRY = "FCO"
_INNER = ("FCO", "WDO", "WADO", "F1", "FXA", "FXB", "DI")    # pins that only a wire within a slice reaches
_PS = 1e-3
_END_CELLS = 2      # of a carry chain, at each end


@dataclass(frozen=True)
class Delays:
    """What an SDF file says, in ns; a pin is a tuple of cell and port.

    Attributes
    ----------
    cells : dict from cell to type
    wires : dict from an output pin to the input pins that it drives, with delays
    through : dict from an input pin to the outputs of the same cell that follow it, with delays
    launch : dict from the output pin of a register or memory to its delay after the clock
    setup : dict from the input pin of one to its time before the clock
    """
    cells: dict
    wires: dict
    through: dict
    launch: dict
    setup: dict

    def named(self) -> dict:
        """For each cell the one that says where it belongs: itself, but for the ends of a carry chain,
        which nextpnr adds, a cell of that chain."""
        links = [(source, sink) for (source, port), sinks in self.wires.items() if port == _CARRY
                 for (sink, _), _ in sinks]
        owners = {cell: None if cell.startswith("$nextpnr") else cell for cell in self.cells}
        for _ in range(_END_CELLS):
            for source, sink in links:
                owners[source] = owners[source] or owners[sink]
                owners[sink] = owners[sink] or owners[source]
        return {cell: owner or cell for cell, owner in owners.items()}

    def with_wires(self, time: float) -> "Delays":
        """The same cells with ``time`` ns for every wire that is not part of a cell's own slice: an estimate
        for a design that is not placed."""
        return replace(self, wires={
            source: [(sink, 0.0 if source[1].startswith(_INNER) or sink[1] in _INNER else time)
                     for sink, _ in sinks] for source, sinks in self.wires.items()})


@dataclass(frozen=True)
class Group:
    """The slowest path from one module to another, and how many endpoints have one too slow.

    ``delay`` in ns, from clock to clock; ``levels`` counts the LUTs, carry chains and multipliers on
    the way; ``modules`` are those it goes through, in order, as far as names tell (`hierarchy`).
    """
    start_module: str
    end_module: str
    delay: float
    start: str
    end: str
    levels: int
    modules: tuple[str, ...]
    endpoints: int

    @property
    def mhz(self) -> float:
        """The frequency that this path allows."""
        return 1e3 / self.delay


def read_sdf(path: Path) -> Delays:
    """Read what nextpnr wrote, compressed by `flow`. Of each triple of delays the slowest counts."""
    delays = Delays({}, defaultdict(list), defaultdict(list), {}, {})
    cell = kind = ""
    with gzip.open(path, "rt") as file:
        for line in file:
            word, _, rest = line.strip().replace("\\", "").partition(" ")
            if word == "(INTERCONNECT":
                source, sink, time, *_ = rest.split(" ")
                delays.wires[_pin(source)].append((_pin(sink), _slowest(time)))
            elif word == "(IOPATH":
                source, sink, time, *_ = rest.split(" ")
                if source.startswith(_CLOCKS):
                    pin = cell, sink
                    delays.launch[pin] = max(_slowest(time), delays.launch.get(pin, 0))
                else:
                    delays.through[cell, source].append(((cell, sink), _slowest(time)))
            elif word == "(SETUPHOLD":
                _, port, _, _, time, *_ = rest.split(" ")
                delays.setup[cell, port.rstrip(")")] = _slowest(time)
            elif word == "(CELLTYPE":
                kind = rest.strip('")')
            elif word == "(INSTANCE" and rest != ")":
                cell = rest.removesuffix(")")
                delays.cells[cell] = kind
    return delays


def slow_groups(delays: Delays, hierarchy, threshold: float) -> list[Group]:
    """For each pair of modules the slowest path of at least ``threshold`` ns, the slowest first.

    Parameters
    ----------
    delays : Delays
    hierarchy : Hierarchy
    threshold : float
        0 for all of them; with a high one most of the design is never looked at.
    """
    order, left = _order(delays)
    arrivals: dict = defaultdict(dict)    # output pin -> module of the start -> (time, pin before)
    for pin, time in delays.launch.items():
        if pin in left:
            arrivals[pin][hierarchy.group(pin[0])] = time, None
    worst: dict = {}
    endpoints: dict = defaultdict(set)
    for pin in order:
        for start, (time, _) in arrivals.get(pin, {}).items():
            if time + left[pin] < threshold:
                continue
            for sink, wire in delays.wires.get(pin, ()):
                at = time + wire
                if sink in delays.setup:
                    total = at + delays.setup[sink]
                    pair = start, hierarchy.group(sink[0])
                    if total >= threshold:
                        endpoints[pair].add(sink)
                        if total > worst.get(pair, (0,))[0]:
                            worst[pair] = total, pin, sink
                for out, logic in delays.through.get(sink, ()):
                    if at + logic > arrivals[out].get(start, (0,))[0]:
                        arrivals[out][start] = at + logic, pin
    groups = []
    for (start, end), (total, pin, sink) in worst.items():
        pins = [pin]
        while (pin := arrivals[pin][start][1]) is not None:
            pins.append(pin)
        cells = [cell for cell, _ in reversed(pins)]
        modules = filter(None, map(hierarchy.group, (*cells, sink[0])))
        groups.append(Group(start, end, total, hierarchy.register(cells[0]),
                            hierarchy.register(sink[0]), sum(port != _CARRY for _, port in pins) - 1,
                            tuple(module for module, _ in groupby(modules)),
                            len(endpoints[start, end])))
    return sorted(groups, key=lambda group: -group.delay)


def _order(delays):
    """Output pins, each after all that it depends on, and the longest delay from each to a register."""
    following = {pin: [out for sink, _ in sinks for out, _ in delays.through.get(sink, ())]
                 for pin, sinks in delays.wires.items()}
    before = defaultdict(int)
    for outs in following.values():
        for out in outs:
            before[out] += 1
    order = [pin for pin in following if not before[pin]]
    for pin in order:
        for out in following.get(pin, ()):
            before[out] -= 1
            if not before[out]:
                order.append(out)
    left = {}
    for pin in reversed(order):
        left[pin] = max((wire + max((delays.setup.get(sink, 0.0),
                                     *(logic + left.get(out, 0.0)
                                       for out, logic in delays.through.get(sink, ()))))
                         for sink, wire in delays.wires.get(pin, ())), default=0.0)
    return order, left


def _pin(text):
    cell, _, port = text.rpartition("/")
    return cell, port


def _slowest(triple):
    return int(triple.rstrip(")").rpartition(":")[2]) * _PS
