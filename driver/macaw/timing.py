"""An estimate of when instructions run, good enough to decide the order in which to emit them."""

from dataclasses import dataclass

from macaw_hw.isa import INSTRUCTION_BYTES, DataFormat, Opcode, Queue, VectorOp

from .footprint import dma_size, element_bytes

__all__ = ["Timing", "Clock"]


@dataclass(frozen=True)
class Timing:
    """Latencies in cycles that the estimate assumes.

    Parameters
    ----------
    memory : int
        From a read address to its first beat, and from a last written beat to its response.
    issue : int
        From the last token that an instruction waits for to its first access.
    matrix, vector : int
        Pipeline of the array and of the float32 lanes, without the N rows of the array itself.
    """
    memory: int = 40
    issue: int = 4
    matrix: int = 12
    vector: int = 14


class Clock:
    """Tracks the time of the four queues and of the instruction fetch while a program is written."""

    def __init__(self, config, timing):
        self._config, self._timing = config, timing
        self._free = [0] * len(Queue)
        self._starts = [[] for _ in Queue]
        self._fetched = timing.memory
        self._written = 0, 0
        """When the latest VECTOR has written its first row, and when it is done."""
        self.busy = [0] * len(Queue)
        self.end = 0

    def _cost(self, format, fields):
        """Cycles that an instruction occupies its unit, and cycles from then until it is done."""
        config, timing = self._config, self._timing
        n = config.size
        if format.opcode == Opcode.MATRIX:
            return max(fields["rows"], n) * fields["k_tiles"], 2 * n + timing.matrix
        if format.opcode == Opcode.VECTOR:
            rows = fields["inner"] * fields["outer"] * (1 + self._conflict(fields))
            return rows + 1, timing.vector + (n + 4) * fields["to_tile"]
        runs = fields["count0"] * fields["count1"] * fields["count2"] * fields["count3"]
        beats = -(-fields["run"] * element_bytes(fields["format"], config) // config.bus_bytes)
        rows = dma_size(fields, config)
        if fields["format"] == DataFormat.BFP8:
            rows *= n + 1
        return max(runs * beats, rows), timing.memory

    def _conflict(self, fields):
        """Whether a VECTOR reads different rows of one bank as its two operands, which takes two cycles."""
        uses, depth = VectorOp(fields["op"]).operands, self._config.vector_bank_rows
        return uses.a and uses.b and fields["a"] != fields["b"] and fields["a"] // depth == fields["b"] // depth

    def issue(self, format, fields, ready):
        """Account for the next instruction of the program, whose operands are ready at ``ready``.

        Returns the time at which it is done.
        """
        queue = format.queue
        starts = self._starts[queue]
        self._fetched += INSTRUCTION_BYTES // self._config.bus_bytes
        if len(starts) >= self._config.queue_depth:
            self._fetched = max(self._fetched, starts[-self._config.queue_depth])
        occupied, rest = self._cost(format, fields)
        start = max(self._free[queue], self._fetched, ready + self._timing.issue)
        if format.opcode == Opcode.VECTOR:
            start = max(start, self._written[not fields["chain"]])
            self._written = start + self._timing.vector * fields["to_vector"], start + occupied + rest
        starts.append(start)
        self._free[queue] = start + occupied
        self.busy[queue] += occupied
        done = start + occupied + rest
        self.end = max(self.end, done)
        return done
