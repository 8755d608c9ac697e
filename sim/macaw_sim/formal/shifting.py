"""Shifts of significands: by multiplexers, and as products with a power of two."""

from amaranth.hdl import Cat, Const, Signal
from macaw_hw import shifts as hardware

from .bench import proof

__all__ = ["shifts"]

_WIDTHS = 18, 24, 26, 28
"""Of one block and of two, of 3 bytes and of 4, all that the units use."""


@proof("Shifts: products with a power of two are shifted numbers; whole bytes, then bits are skipped up to the first "
       "one, and nothing of it is lost")
def shifts(bench):
    m = bench.m
    begun = bench.past(Const(1))
    for width in _WIDTHS:
        value, fill, places = bench.free(width, "value"), bench.free(1, "fill"), bench.free(3, "places")
        power = Signal(8, name=f"power{width}")
        m.d.comb += power.eq(1 << places)

        parts = hardware.product_parts(value, power)
        joined = Signal(width + 7, name=f"joined{width}")
        m.d.comb += joined.eq(_joined(parts))
        bench.check(f"products of {width} bits: together the shifted number", joined == (value << places))

        first = Signal(8, name=f"first{width}")
        m.d.comb += first.eq(hardware.leading(value))
        for i in range(8):
            bench.check(f"leading {width}: bit {i} for {i} zeros",
                        first[i] == (value[width - 1 - i:] == 1))

        result, skipped = hardware.skip_bytes(m, value, fill)
        _skips(bench, f"bytes of {width} bits", value, fill, result, 8 * skipped)
        bench.check(f"bytes of {width} bits: no more than leave a bit", 8 * skipped < width)
        bench.check(f"bytes of {width} bits: up to the first that is not zero",
                    result[-8:].any() | (8 * skipped + 8 >= width))

        result, skipped = hardware.skip_bits(m, value, fill)
        _skips(bench, f"bits of {width}", bench.past(value), bench.past(fill), result, skipped, ~begun)
        bench.check(f"bits of {width}: up to the first one, or 7", result[-1] | (skipped == 7) | ~begun)
        bench.reach(f"7 of {width} bits skipped", (skipped == 7) & result[-1])


def _joined(parts):
    """Parts that do not overlap: their sum has no carries, so that it is a disjunction."""
    joined = 0
    for offset, product in parts:
        joined |= product << offset
    return joined


def _skips(bench, what, value, fill, result, places, unless=0):
    """``result`` is ``value`` shifted left by ``places``, with ``fill`` from below; all that leaves is zeros. Not
    if ``unless``."""
    width = len(value)
    wide = Signal(2 * width + 32, name=bench.unique(f"{what} wide"))
    bench.m.d.comb += wide.eq(Cat(fill.replicate(width), value) << places)
    bench.check(f"{what}: shifted, no one is lost", (result == wide[width:2 * width]) | unless)
    bench.check(f"{what}: only zeros are skipped", ~wide[2 * width:].any() | unless)
