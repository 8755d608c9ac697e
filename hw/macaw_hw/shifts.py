"""Shifts of significands by multiplexers or, where the device has some to spare, by multiplier blocks.

A number times a power of two is shifted, so a block does the work of three levels of multiplexers, some 3 LUTs a
bit. A number too wide for a block is cut into parts; their products have no bit in common.
"""

from amaranth.hdl import Cat, Const, Mux, Signal, Value

__all__ = ["BLOCK_WIDTH", "shift_multipliers", "blocks", "product_parts", "leading", "skip_bytes", "skip_bits"]

BLOCK_WIDTH = 18
"""Bits of an operand of a multiplier block, unsigned."""

_DEVICE = 156
"""Blocks of the LFE5U-85F that the supported configurations are for."""
_USES = ("convert", 1), ("lane", 2), ("accumulator", 2), ("accumulator", 2), ("lane", 2)
"""Shifts of a lane or a column, and their blocks; first what saves most."""


def shift_multipliers(config):
    """Multiplier blocks for the shifts in each lane's adder (``lane``), in each adder (``accumulator``) and each
    conversion (``convert``) of the accumulator: what the products of ``config`` leave of the device."""
    given = dict.fromkeys((name for name, _ in _USES), 0)
    spare = _DEVICE - config.peak_macs - 4 * config.size  # a `FloatMul` in each lane
    for name, count in _USES:
        if count * config.size <= spare:
            given[name] += count
            spare -= count * config.size
    return given


def blocks(width):
    """Multiplier blocks for a shift of ``width`` bits."""
    return -(-width // BLOCK_WIDTH)


def product_parts(value, power):
    """``value`` times ``power``, a power of two below 256: pairs of an offset and a product, which don't overlap."""
    step = -(-len(value) // blocks(len(value)))
    return [(i, (value[i:i + step] * power)[:step + 7]) for i in range(0, len(value), step)]


def leading(value):
    """The first bit that is set among the top 8 of ``value``, as a number that has but one bit: bit i for i zeros
    before it; 0 if there is none."""
    return Cat(value[-1 - i] & ~value[len(value) - i:].any() for i in range(8))


def skip_bytes(m, value, fill=0):
    """Shifts ``value``, of 17 to 32 bits, left by whole bytes until its top byte is not zero, or holds the last bits.

    ``fill`` comes from below. Returns the result and by how many bytes.
    """
    count = -(-len(value) // 8)
    full = [value[len(value) - 8 * i - 8:len(value) - 8 * i].any() for i in range(count - 1)] + [Const(1)]
    choices = [_left(value, 8 * i, fill) for i in range(count)]
    skipped = Signal(2, name="skipped_bytes")
    result = Signal.like(value, name="skipped_to_byte")
    m.d.comb += [
        skipped.eq(Cat(~full[0] & (full[1] | ~full[2]), ~full[0] & ~full[1])),
        result.eq(Mux(skipped[1], Mux(skipped[0], choices[-1], choices[2]),
                      Mux(skipped[0], choices[1], choices[0]))),
    ]
    return result, skipped


def skip_bits(m, value, fill=0):
    """The rest: shifts ``value`` left by up to 7 bits until its top bit is set, and returns by how many bits.

    Both come a cycle later.
    """
    later = Signal(reset_less=True, name="fill_later")
    pairs = Signal(2, name="pairs")
    middle, skipped = Signal.like(value, name="skipped_pairs", reset_less=True), Signal(2, reset_less=True)
    result = Signal.like(value, name="skipped_to_bit")
    m.d.comb += [
        pairs.eq(Cat(~Mux(pairs[1], value[-6:-4].any(), value[-2:].any()), ~value[-4:].any())),
        result.eq(Mux(middle[-1], middle, _left(middle, 1, later))),
    ]
    m.d.sync += [
        skipped.eq(pairs), later.eq(fill),
        middle.eq(Mux(pairs[1], Mux(pairs[0], _left(value, 6, fill), _left(value, 4, fill)),
                      Mux(pairs[0], _left(value, 2, fill), value))),
    ]
    return result, Cat(~middle[-1], skipped)


def _left(value, places, fill):
    return Cat(Value.cast(fill).replicate(places), value[:len(value) - places])
