"""MATRIX: one whole reduction on the MAC array."""

import numpy as np
from macaw_hw.config import Config
from macaw_hw.isa import Fault

from ..arithmetic import matrix_product
from .indices import LOCAL_SPACE, walk
from .state import DeviceFault, State

__all__ = ["Matrix"]

_CHUNK = 1 << 22
"""Sums that are computed at a time."""


class Matrix:
    """``Y += X W`` over ``k_tiles`` reduction tiles.

    Attributes
    ----------
    fault : Fault
        NONE, or what the instruction ends with wherever it runs.
    """

    def __init__(self, fields: dict, config: Config):
        self._size = config.size
        self._rows = fields["rows"]
        self._accumulate = bool(fields["accumulate"])
        self._x_transpose, self._w_transpose = bool(fields["x_transpose"]), bool(fields["w_transpose"])
        tile_rows = -(-self._rows // config.size)
        self._y = walk(fields["y"], (self._rows, fields["y_stride"]), limit=config.vector_rows)
        self._x = walk(fields["x"], (fields["k_tiles"], fields["x_k_stride"]),
                       (tile_rows, fields["x_row_stride"]), limit=config.tiles)
        self._w = walk(fields["w"], (fields["k_tiles"], fields["w_k_stride"]), limit=config.tiles)
        broken = any(places is None for places in (self._x, self._w, self._y))
        self.fault = Fault.LOCAL_ADDRESS if broken else Fault.NONE

    def run(self, state: State) -> None:
        if self.fault != Fault.NONE:
            raise DeviceFault(self.fault)
        rows, size = self._rows, self._size
        total = self._y.read(state.vector) if self._accumulate else None
        chunk = max(1, _CHUNK // (rows * size))
        x_tiles, w_tiles = self._x.indices, self._w.indices
        for k in range(0, len(w_tiles), chunk):
            tiles, weights = x_tiles[k:k + chunk], w_tiles[k:k + chunk]
            x, w = state.mantissas.take(tiles, axis=0), state.mantissas.take(weights, axis=0)
            x = x.swapaxes(-1, -2) if self._x_transpose else x
            w = w.swapaxes(-1, -2) if self._w_transpose else w
            x_exponent = np.repeat(state.exponents[tiles], size, axis=1)[:, :rows]
            total = matrix_product(x.reshape(len(x), -1, size)[:, :rows], x_exponent, w,
                                   state.exponents[weights], total)
        self._y.write(state.vector, total)

    def accesses(self):
        """(space, places, written) for each range of places that the instruction touches."""
        yield "tile", np.unique(self._x.indices), False
        yield "tile", np.unique(self._w.indices), False
        if self._accumulate:
            yield "vector row", self._y.indices, False
        yield "vector row", self._y.indices, True

    def hazard(self):
        """What the instruction does in an order that the hardware does not promise, or None."""
        visits = np.bincount(self._y.indices, minlength=LOCAL_SPACE)
        if visits.max() > 1:
            return f"accumulates more than once per pass into vector row {int(visits.argmax())}"
        return None
