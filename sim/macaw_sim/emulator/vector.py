"""VECTOR: the float32 lanes and the quantizer."""

import numpy as np
from macaw_hw.config import Config
from macaw_hw.isa import Fault, VectorOp

from ..arithmetic import NonFiniteError, from_bits, quantize_tile, vector_op
from .indices import LOCAL_SPACE, Places, walk
from .state import DeviceFault, State

__all__ = ["Vector"]

_UNUSED = Places(np.empty(0, np.int64))
"""In place of the rows or tiles of an operand that the instruction does not have."""


class Vector:
    """``d = op(a, b, scalar)`` over two nested loops.

    Attributes
    ----------
    fault : Fault
        NONE, or what the instruction ends with wherever it runs.
    """

    def __init__(self, fields: dict, config: Config):
        self._size = config.size
        self._chain = bool(fields["chain"])
        self._op = VectorOp(fields["op"])
        self._scalar = from_bits(fields["scalar"])[()]
        self._shuffle = np.arange(config.size) ^ fields["shuffle"] if fields["shuffle"] else None
        self._outer, self._inner = fields["outer"], fields["inner"]
        self._tiles_per_outer = -(-self._inner // config.size)

        def rows(operand, used):
            loops = (self._outer, fields[f"{operand}_outer"]), (self._inner, fields[f"{operand}_inner"])
            return walk(fields[operand], *loops, limit=config.vector_rows) if used else _UNUSED

        reads = self._op.operands
        self._a, self._b = rows("a", reads.a), rows("b", reads.b)
        self._d = rows("d", fields["to_vector"])
        self._tile = walk(fields["tile"], (self._outer, fields["tile_outer"]),
                          (self._tiles_per_outer, fields["tile_inner"]),
                          limit=config.tiles) if fields["to_tile"] else _UNUSED
        broken = None in (self._a, self._b, self._d, self._tile)
        self.fault = Fault.LOCAL_ADDRESS if broken else Fault.NONE

    def run(self, state: State) -> None:
        if self.fault != Fault.NONE:
            raise DeviceFault(self.fault)
        shape = (self._outer, self._inner, self._size)
        a = self._a.read(state.vector) if self._a else np.empty(shape, np.float32)
        b = self._b.read(state.vector) if self._b else None
        if b is not None and self._shuffle is not None:
            b = b.take(self._shuffle, axis=-1)
        result = vector_op(self._op, a, b, self._scalar)
        if self._tile:
            self._quantize(state, result)
        if self._d:
            self._d.write(state.vector, result)

    def _quantize(self, state: State, result: np.ndarray) -> None:
        missing = self._tiles_per_outer * self._size - self._inner
        if missing:
            result = np.pad(result, ((0, 0), (0, missing), (0, 0)))
        try:
            mantissas, exponents = quantize_tile(result.reshape(-1, self._size, self._size))
        except NonFiniteError:
            raise DeviceFault(Fault.NON_FINITE) from None
        self._tile.write(state.mantissas, mantissas.reshape(*self._tile.indices.shape, self._size, self._size))
        self._tile.write(state.exponents, exponents.reshape(self._tile.indices.shape))

    def accesses(self):
        """(space, places, written) for each range of places that the instruction touches."""
        for space, places, written in (("vector row", self._a, False), ("vector row", self._b, False),
                                       ("vector row", self._d, True), ("tile", self._tile, True)):
            if places:
                yield space, np.unique(places.indices), written

    def hazard(self):
        """What the instruction does in an order that the hardware does not promise, or None."""
        if not self._d:
            return None
        written = self._d.indices.reshape(-1)
        iteration = np.arange(written.size)
        first = np.full(written.max() + 1, written.size)
        first[written[::-1]] = iteration[::-1]
        for read in (self._a, self._b):
            if read:
                rows = read.indices.reshape(-1)
                known = rows < first.size
                late = known & (first[np.where(known, rows, 0)] < iteration)
                if late.any():
                    return f"reads vector row {rows[late.argmax()]} after writing it in an earlier iteration"
        return None

    def overtakes(self, before: "Vector"):
        """The vector row that this instruction would read too early if it is chained to ``before``, or None."""
        if not self._chain or not before._d:
            return None
        written = before._d.indices.reshape(-1)
        last = np.full(LOCAL_SPACE, -1)
        last[written] = np.arange(written.size)
        for read in (self._a, self._b):
            if read:
                rows = read.indices.reshape(-1)
                early = last[rows] > np.arange(rows.size)
                if early.any():
                    return int(rows[early.argmax()])
        return None
