"""MAC array: N x N int8 multipliers, weight stationary, with double-buffered weights."""

from amaranth.hdl import Module, Signal, signed
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for, ceil_log2

from .interfaces import mantissas

__all__ = ["sum_shape", "MacRow", "MacArray"]


def sum_shape(rows):
    """Shape that holds any sum of ``rows`` products of two int8: from -128*127 to 128*128 each."""
    return signed(bits_for(rows * 128 * 128, require_sign_bit=True))


class MacRow(wiring.Component):
    """Row ``index`` of the array: N cells that multiply one activation by N weights.

    ::

        i_x, i_valid, i_first --> [reg] --> o_x, o_valid, o_first     to the next row
                                    |
        weights --> [shadow] --> [active] * activation
        (load)              (first)   |
                                    [reg]
                                      |
        i_sum ----------------------->+--> [reg] --> o_sum            to the next row

    The lowest byte of ``i_x`` is this row's activation, the others travel on. In the cycle after ``i_valid``
    the activation is multiplied, and two cycles later the products, added to ``i_sum`` of the cycle
    before, are in ``o_sum``. With ``i_first`` the shadow weights become the active ones, in time for
    this activation. ``load`` writes the shadow weights; done in the same cycle, the old ones move on.

    Parameters
    ----------
    size : int
        N.
    index : int
        0 for the row that activations enter first; it has no ``i_sum``. The last one, N - 1, has no ``o_x``.

    Members
    -------
    i_x : In(8 * (N - index)), o_x : Out(8 * (N - index - 1))
    i_valid, i_first : In(1), o_valid, o_first : Out(1)
    weights : In(8 * N), load : In(1)
    i_sum, o_sum : arrays of N of `sum_shape` of ``index`` and ``index`` + 1
    """

    def __init__(self, *, size, index):
        if index not in range(size):
            raise ValueError(f"index must be from 0 to {size - 1}, not {index!r}")
        self._size = size
        self._index = index
        members = {
            "i_x": In(8 * (size - index)), "i_valid": In(1), "i_first": In(1),
            "o_valid": Out(1), "o_first": Out(1),
            "weights": In(8 * size), "load": In(1),
            "o_sum": Out(sum_shape(index + 1)).array(size),
        }
        if index > 0:
            members["i_sum"] = In(sum_shape(index)).array(size)
        if index < size - 1:
            members["o_x"] = Out(8 * (size - index - 1))
        super().__init__(members)

    @property
    def size(self):
        return self._size

    @property
    def index(self):
        return self._index

    def elaborate(self, platform):
        m = Module()
        activation = Signal(signed(8), reset_less=True)
        multiplied = Signal()
        m.d.sync += [self.o_valid.eq(self.i_valid), multiplied.eq(self.o_valid)]
        with m.If(self.i_valid):
            m.d.sync += [activation.eq(self.i_x[:8]), self.o_first.eq(self.i_first)]
            if self.index < self.size - 1:
                m.d.sync += self.o_x.eq(self.i_x[8:])
        for column in range(self.size):
            shadow = Signal(signed(8), name=f"shadow{column}", reset_less=True)
            active = Signal(signed(8), name=f"active{column}", reset_less=True)
            with m.If(self.load):
                m.d.sync += shadow.eq(self.weights[8 * column:8 * column + 8])
            with m.If(self.i_valid & self.i_first):
                m.d.sync += active.eq(shadow)
            total = Signal(sum_shape(self.index + 1), name=f"sum{column}", reset_less=True)
            product = Signal(signed(16), name=f"product{column}", reset_less=True)
            m.d.sync += product.eq(activation * active)
            with m.If(multiplied):
                m.d.sync += total.eq(product + self.i_sum[column] if self.index else product)
            m.d.comb += self.o_sum[column].eq(total)
        return m


class MacArray(wiring.Component):
    """Products of streamed rows with a stationary N x N tile: ``o_sum[c] = sum(x[r] * w[r][c])``.

    ::

                          x (row of N int8)           weights of row r
                                 |                           |
                                 v                           v
                     row 0  x[0] * w[0][:]  <-- shadow <-----+
                                 |                           |
                     row 1  x[1] * w[1][:]  <-- shadow <-----+
                                ...                          |
                     row N-1     |          <-- shadow <-----+
                                 v
                               o_sum

    One row of activations enters per cycle, and one row of sums leaves `latency` cycles later; gaps are allowed
    and there is no backpressure. Row r of the array works r cycles after row 0, so all sums of an activation
    row leave in the same cycle.

    Weights are double-buffered. ``load`` writes row ``weight_row`` of the shadow tile; an activation row
    with ``first`` is the first to be multiplied with the shadow tile, as it wanders through the array. If it
    enters in cycle t, row r of the shadow tile must be loaded in cycle t + r - 1 at the latest, and row r of the
    next tile in cycle t + r at the earliest.

    Parameters
    ----------
    config : Config

    Members
    -------
    x : In(mantissas), valid, first : In(1)
        Activations of one row.
    weights : In(mantissas), weight_row : In, load : In(1)
        One row of the shadow tile.
    o_sum : array of N sums, o_valid : Out(1)
        Exact sums. They are held until the next.
    """

    def __init__(self, *, config):
        self._config = config
        size = config.size
        super().__init__({
            "x": In(mantissas(config)), "valid": In(1), "first": In(1),
            "weights": In(mantissas(config)), "weight_row": In(ceil_log2(size)), "load": In(1),
            "o_sum": Out(sum_shape(size)).array(size), "o_valid": Out(1),
        })

    @property
    def config(self):
        return self._config

    @property
    def latency(self):
        """Cycles from ``valid`` to ``o_valid``."""
        return self.config.size + 2

    def elaborate(self, platform):
        m = Module()
        size = self.config.size
        x, valid, first, sums = self.x.as_value(), self.valid, self.first, None
        for index in range(size):
            m.submodules[f"row{index}"] = row = MacRow(size=size, index=index)
            m.d.comb += [
                row.i_x.eq(x), row.i_valid.eq(valid), row.i_first.eq(first),
                row.weights.eq(self.weights), row.load.eq(self.load & (self.weight_row == index)),
            ]
            if index > 0:
                m.d.comb += [row.i_sum[column].eq(sums[column]) for column in range(size)]
            x, valid, first, sums = getattr(row, "o_x", None), row.o_valid, row.o_first, row.o_sum
        m.d.comb += [self.o_sum[column].eq(sums[column]) for column in range(size)]
        multiplied = Signal()
        m.d.sync += [multiplied.eq(valid), self.o_valid.eq(multiplied)]
        return m
