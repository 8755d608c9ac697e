"""The check that tokens order every two accesses that conflict.

The result of a program must not depend on how fast its queues run. Instructions of one queue run in order;
instructions of different queues are ordered only by tokens. Each instruction gets a vector clock (Mattern,
1988): for each queue, how many of its instructions are known to be done when it starts. Each place of a
memory gets the last instruction of each queue that read and that wrote it. An access to a place conflicts
when another queue's access, at least one of both a write, is not covered by the clock. Data play no part in
it, so a program is checked once, whatever it runs on.
"""

from collections import deque

import numpy as np
from macaw_hw.isa import Queue

__all__ = ["SynchronizationError", "check"]

_VERBS = {False: "reads", True: "writes"}
_REMEDY = "No token orders them: the one that must be first has to post a token that the other waits for."


class SynchronizationError(Exception):
    """A program whose result depends on timing; the message names the instructions and the place.

    Attributes
    ----------
    instructions : tuple of int
        Indices in the program of the two instructions, or of the one that conflicts with itself.
    """

    def __init__(self, message, instructions):
        super().__init__(message)
        self.instructions = instructions


class _History:
    """For each place of one memory, the last read and write by each queue (as its position in the queue)."""

    def __init__(self, places):
        self.last = {written: np.zeros((places, len(Queue)), np.int32) for written in (False, True)}

    def conflict(self, places, written, clock):
        """An earlier access that ``clock`` does not cover: its place, queue, position in the queue, and
        whether it wrote. None when there is no such access."""
        for kind in ((True, False) if written else (True,)):
            last = self.last[kind][places]
            if (last > clock).any():
                row, queue = np.argwhere(last > clock)[0]
                return int(places[row]), int(queue), int(last[row, queue]), kind
        return None

    def record(self, places, written, queue, position):
        self.last[written][places, queue] = position


class _Segments:
    """Memory cut at the bounds of every access, so that each access is a set of whole segments."""

    def __init__(self, intervals):
        bounds = [bound for pair in intervals for bound in pair]
        self.bounds = np.unique(np.concatenate(bounds)) if bounds else np.zeros(1, np.int64)

    def __len__(self):
        return len(self.bounds)

    def of(self, intervals):
        first, beyond = (np.searchsorted(self.bounds, bound) for bound in intervals)
        lengths = beyond - first
        ends = np.cumsum(lengths)
        return np.arange(ends[-1]) + np.repeat(first - (ends - lengths), lengths)


def check(headers, steps, order, config, describe):
    """Check the instructions ``order`` of a program for conflicts.

    Parameters
    ----------
    headers : list of schedule.Header
    steps : list
        Of each instruction the unit's model, with ``accesses()`` and ``hazard()``; of VECTOR also ``overtakes()``.
    order : list of int
        Indices in a legal order.
    config : Config
    describe : callable
        From an index to the short form of an instruction for the message.

    Raises
    ------
    SynchronizationError
        For the first conflict in ``order``.
    """
    accesses = {index: list(steps[index].accesses()) for index in order}
    segments = _Segments([places for touched in accesses.values()
                          for space, places, _ in touched if space == "memory"])
    history = {"vector row": _History(config.vector_rows), "tile": _History(config.tiles),
               "memory": _History(len(segments))}
    posted = {(source, target): deque() for source in Queue for target in Queue}
    clocks = np.zeros((len(Queue), len(Queue)), np.int32)  # of the latest instruction of each queue
    vector = None
    members = [[] for _ in Queue]

    for index in order:
        queue = headers[index].queue
        hazard = steps[index].hazard()
        if hazard:
            raise SynchronizationError(f"instruction {index} ({describe(index)}) {hazard}", (index,))
        if queue == Queue.VECTOR:
            row = None if vector is None else steps[index].overtakes(steps[vector])
            if row is not None:
                raise SynchronizationError(
                    f"instruction {index} ({describe(index)}) reads vector row {row}, which instruction {vector} "
                    f"({describe(vector)}) writes in a later iteration. It must not be chained to that.",
                    (vector, index))
            vector = index
        clock = clocks[queue]
        for source in Queue:
            if headers[index].wait >> source & 1:
                np.maximum(clock, posted[source, queue].popleft(), out=clock)
        members[queue].append(index)
        clock[queue] = len(members[queue])

        touched = [(space, segments.of(places) if space == "memory" else places, written)
                   for space, places, written in accesses[index]]
        for space, places, written in touched:
            found = history[space].conflict(places, written, clock)
            if found:
                place, other_queue, position, wrote = found
                other = members[other_queue][position - 1]
                name = f"{space} {place}" if space != "memory" else f"memory 0x{segments.bounds[place]:x}"
                raise SynchronizationError(
                    f"instruction {index} ({describe(index)}) {_VERBS[written]} {name}, which instruction "
                    f"{other} ({describe(other)}) {_VERBS[wrote]}. {_REMEDY}", (other, index))
        for space, places, written in touched:
            history[space].record(places, written, queue, clock[queue])
        for target in Queue:
            if headers[index].post >> target & 1:
                posted[queue, target].append(clock.copy())
