"""The program builder: instructions written one after the other, tokens inserted by itself."""

import struct

import numpy as np
from macaw_hw import isa
from macaw_hw.isa import Queue

from .disassembler import disassemble
from .footprint import chainable, footprint
from .timing import Clock, Timing

__all__ = ["Program"]


class _Accesses:
    """For each place of a local memory, the last instruction of each queue that read or wrote it (-1: none)."""

    def __init__(self, places):
        self._read = np.full((len(Queue), places), -1, dtype=np.int32)
        self._written = np.full((len(Queue), places), -1, dtype=np.int32)

    def conflicts(self, read, written, needs):
        if read.size:
            np.maximum(needs, self._written[:, read].max(axis=1), out=needs)
        if written.size:
            np.maximum(needs, self._written[:, written].max(axis=1), out=needs)
            np.maximum(needs, self._read[:, written].max(axis=1), out=needs)

    def add(self, queue, index, read, written):
        self._read[queue, read] = index
        self._written[queue, written] = index


class _Intervals:
    """Byte intervals that the instructions of one queue touched, in order."""

    def __init__(self):
        self._items, self._used = np.zeros((3, 256), dtype=np.int64), 0

    def add(self, index, low, high):
        if self._used == self._items.shape[1]:
            self._items = np.concatenate([self._items, np.zeros_like(self._items)], axis=1)
        self._items[:, self._used] = low, high, index
        self._used += 1

    def last_overlap(self, low, high, known):
        """The last instruction after ``known`` that touched a byte of the interval, or -1."""
        lows, highs, indices = self._items[:, :self._used]
        first = np.searchsorted(indices, known, side="right")
        hits = np.flatnonzero((lows[first:] < high) & (highs[first:] > low))
        return int(indices[first + hits[-1]]) if hits.size else -1


class Program:
    """Instructions in program order.

    Kernels are written as plain sequential code. For every access that conflicts with an earlier one of another queue
    (read after write, write after read, write after write, in vector memory, tile memory or memory), the
    builder makes the later instruction wait for the earlier one with a token; what is ordered already,
    directly or through other tokens, costs none. The four queues thereby overlap as far as the data
    allow. Instructions are fetched in program order and each queue holds ``config.queue_depth`` of them: the
    order in which independent work is emitted decides how far each queue runs ahead.

    Parameters
    ----------
    config : macaw_hw.config.Config
    timing : macaw.timing.Timing, optional
        Latencies for :attr:`estimate`.

    Attributes
    ----------
    estimate : int
        Estimated cycles from doorbell to end, for choosing the order of emission; not a promise.
    """

    def __init__(self, config, timing=None):
        self.config = config
        self._clock = Clock(config, timing or Timing())
        self._instructions = []
        self._by_queue = [[] for _ in Queue]
        self._finish = [[] for _ in Queue]
        self._clocks = [[] for _ in Queue]
        self._known = np.full((len(Queue), len(Queue)), -1, dtype=np.int32)
        self._rows, self._tiles = _Accesses(config.vector_rows), _Accesses(config.tiles)
        self._memory_read, self._memory_written = _Intervals(), _Intervals()
        self._bytes = None

    def __len__(self):
        return len(self._instructions)

    @property
    def estimate(self):
        return self._clock.end

    @property
    def estimated_busy(self):
        """Estimated cycles in which each queue's unit works, by the queue's name in lower case."""
        return {queue.name.lower(): self._clock.busy[queue] for queue in Queue}

    def load(self, **fields):
        """Append a LOAD. Returns the estimated cycle at which it is done, as all four do."""
        return self._append(isa.LOAD, fields)

    def matrix(self, **fields):
        """Append a MATRIX; ``y_stride`` is 1 unless given."""
        return self._append(isa.MATRIX, {"y_stride": 1, **fields})

    def vector(self, op, *, scalar=0.0, **fields):
        """Append a VECTOR; ``scalar`` is a number, rounded to float32. ``a_inner``, ``b_inner``, ``d_inner`` and
        ``tile_inner`` are 1 unless given. It is chained to the VECTOR before it where that is legal, unless ``chain``
        is 0."""
        bits = struct.unpack("<I", struct.pack("<f", scalar))[0]
        defaults = {"a_inner": 1, "b_inner": 1, "d_inner": 1, "tile_inner": 1, "outer": 1, "chain": 1}
        return self._append(isa.VECTOR, {**defaults, "op": int(op), "scalar": bits, **fields})

    def store(self, **fields):
        """Append a STORE."""
        return self._append(isa.STORE, fields)

    def _append(self, format, given):
        # Encoding and decoding completes the fields and checks each against its range.
        fields = isa.decode(isa.encode(format.opcode, **given))[1]
        for message, broken in isa.violations(format, fields, self.config.size):
            if broken:
                raise ValueError(f"{format.opcode.name}: {message}")
        touched = footprint(format, fields, self.config)
        self._check_local(format, fields, touched)

        queue, own = format.queue, self._by_queue[format.queue]
        index = len(own)
        if queue == Queue.VECTOR:
            fields["chain"] &= bool(own) and chainable(own[-1], fields)
        needs = self._needs(queue, touched)
        ready = self._wait(queue, fields, needs)

        self._rows.add(queue, index, touched.rows_read, touched.rows_written)
        self._tiles.add(queue, index, touched.tiles_read, touched.tiles_written)
        for log, parts in ((self._memory_read, touched.memory_read), (self._memory_written, touched.memory_written)):
            for low, high in parts:
                log.add(index, low, high)
        own.append(fields)
        self._instructions.append((format, fields))
        self._clocks[queue].append(self._known[queue].copy())
        done = self._clock.issue(format, fields, ready)
        self._finish[queue].append(max(done, self._finish[queue][-1] if index else 0))
        self._bytes = None
        return done

    def _check_local(self, format, fields, touched):
        for what, limit, places in (
                ("vector row", self.config.vector_rows, (touched.rows_read, touched.rows_written)),
                ("tile", self.config.tiles, (touched.tiles_read, touched.tiles_written))):
            for place in places:
                if place.size and not 0 <= place.min() <= place.max() < limit:
                    worst = place.max() if place.max() >= limit else place.min()
                    raise ValueError(f"{what} must be from 0 to {limit - 1}, not {worst}, in: "
                                     f"{disassemble((format, fields))}")

    def _needs(self, queue, touched):
        """For each other queue, the last instruction that must be done first (-1: none)."""
        needs = np.full(len(Queue), -1, dtype=np.int32)
        self._rows.conflicts(touched.rows_read, touched.rows_written, needs)
        self._tiles.conflicts(touched.tiles_read, touched.tiles_written, needs)
        for low, high in touched.memory_read:
            last = self._memory_written.last_overlap(low, high, self._known[queue][Queue.STORE])
            needs[Queue.STORE] = max(needs[Queue.STORE], last)
        for low, high in touched.memory_written:
            last = self._memory_read.last_overlap(low, high, self._known[queue][Queue.LOAD])
            needs[Queue.LOAD] = max(needs[Queue.LOAD], last)
        return needs

    def _wait(self, queue, fields, needs):
        """Set the tokens for ``needs``; returns the estimated time at which all are fulfilled."""
        known, ready = self._known[queue], 0
        order = sorted((q for q in Queue if q != queue and needs[q] >= 0),
                       key=lambda q: self._finish[q][needs[q]], reverse=True)
        for other in order:
            need = int(needs[other])
            ready = max(ready, self._finish[other][need])
            if need <= known[other]:
                continue
            source = self._by_queue[other][need]
            assert not source["post"] >> queue & 1, "two waits for one token"
            source["post"] |= 1 << queue
            fields["wait"] |= 1 << other
            np.maximum(known, self._clocks[other][need], out=known)
            known[other] = max(known[other], need)
        return ready

    def to_bytes(self):
        """The encoded program: 32 bytes for each instruction."""
        if self._bytes is None:
            self._check_tokens()
            self._bytes = b"".join(isa.encode(format.opcode, **{n: v for n, v in fields.items() if n != "opcode"})
                                   for format, fields in self._instructions)
        return self._bytes

    def _check_tokens(self):
        """Every wait has its post, and no counter of tokens can overflow."""
        balance = np.zeros((len(Queue), len(Queue)), dtype=np.int64)
        for format, fields in self._instructions:
            for other in Queue:
                balance[format.queue, other] += fields["post"] >> other & 1
                balance[other, format.queue] -= fields["wait"] >> other & 1
            assert balance.min() >= 0, "a token is taken before it is posted"
            if balance.max() + self.config.queue_depth > isa.TOKEN_LIMIT:
                raise ValueError(f"more than {isa.TOKEN_LIMIT} tokens would wait; split the program")
        assert not balance.any(), "a token is never taken"

    def disassemble(self):
        """One line of text for each instruction."""
        return "\n".join(f"{index:6}  {disassemble(instruction)}"
                         for index, instruction in enumerate(self._instructions))
