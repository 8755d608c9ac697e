"""Tiles on their way to memory."""

from itertools import cycle

from macaw_hw.isa import DataFormat

__all__ = ["Outgoing"]

_PLACES = 4


class Outgoing:
    """Tiles that the lanes make and that go home at once, in a few places in turns."""

    def __init__(self, job):
        self._job = job
        layers = job.plan.layers
        size = max(*(len(group) for layer in layers for group in layer.x.groups), *(b.tiles for b in job.batches))
        places = 1 if job.thrift else _PLACES
        start = job.tiles.allocate(places * size, job.plan.stationary, long=True)
        self._places = cycle(range(start, start + places * size, size))

    def make(self, emit, address, count):
        """``emit(place)`` makes ``count`` tiles from a place on; they are stored. Returns what ``emit`` returns."""
        place = next(self._places)
        time = emit(place)
        self._job.program.store(format=DataFormat.BFP8, address=address, local=place, run=count)
        return time
