"""Byte alignment in the DMA engine, and conversion of pixels."""

from amaranth.hdl import C, Cat, Module, Mux, Signal, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import exact_log2

__all__ = ["rotate", "at_least", "uint8_to_float32", "float32_to_uint8", "Beat", "Word", "BytePacker", "StreamBuffer"]


def rotate(m, value, amount, width=8):
    """``value`` with element ``i`` moved to ``i + amount``, modulo the number of elements.

    ``width`` is the size of an element in bits; there are 2 to the length of ``amount`` elements. The
    result is a combinational signal.
    """
    for bit in range(len(amount)):
        cut = len(value) - (width << bit)
        turned = Signal(len(value), name=f"turned{1 << bit}")
        m.d.comb += turned.eq(Mux(amount[bit], Cat(value[cut:], value[:cut]), value))
        value = turned
    return value


def at_least(m, bound, elements, width=8):
    """A mask of ``elements`` times ``width`` bits: those of element ``i`` are set where ``i >= bound``."""
    bits, mask = Signal(elements, name="from_bound"), Signal(elements * width, name="mask")
    m.d.comb += bits.eq(Cat(bound <= i for i in range(elements)))
    m.d.comb += mask.eq(Cat(bits[i].replicate(width) for i in range(elements)))
    return mask


def uint8_to_float32(m, value):
    """Bits of the float32 equal to the 8-bit ``value``, as a combinational signal."""
    zeros, result = Signal(3, name="leading_zeros"), Signal(32, name="float32")
    for bit in (2, 1, 0):
        shift = 1 << bit
        shifted = Signal(8, name=f"shifted{shift}")
        m.d.comb += [zeros[bit].eq(~value[8 - shift:].any()),
                     shifted.eq(Mux(zeros[bit], value << shift, value))]
        value = shifted
    # 134 less zeros is 128 and up to 6 more, or 127.
    one = zeros.all()
    exponent = Cat(zeros[0], ~(zeros[1] ^ zeros[0]), ~(zeros[2] ^ (zeros[1] & zeros[0])), one.replicate(4), ~one)
    # Bit 7 is now the hidden one of the significand; only zero has none.
    with m.If(value[7]):
        m.d.comb += result.eq(Cat(C(0, 16), value[:7], exponent))
    return result


def float32_to_uint8(m, value):
    """The float32 ``value`` (bits) rounded half to even and clipped to 0..255, and whether it is not finite.

    Both are combinational signals of the cycle after.
    """
    exponent, negative = value[23:31], value[31]
    # For 128 <= value < 256, eight bits of integer and one below; smaller values shift right by up to 8.
    lost, kept, below = Signal(8, name="lost"), Signal(9, name="kept"), Signal(name="below")
    zero, large, infinite = Signal(name="zero"), Signal(name="large"), Signal(name="infinite")
    # Bits instead of differences: right by 134 - exponent is left by one, then right by 7 less the lowest three bits of
    # the exponent, and by 8 below 128.
    right = Cat(~exponent[:3], exponent[3])
    small = ~exponent[7] & ~exponent[1:7].all()  # below 126
    m.d.sync += [
        Cat(lost, kept).eq(Cat(C(0, 9), value[15:23], C(1, 1)) >> right),
        below.eq(value[:15].any()), zero.eq(negative | small),
        large.eq(exponent[7] & (exponent[3:7].any() | exponent[:3].all())),  # above 134
        infinite.eq(exponent.all()),
    ]
    rounded, result = Signal(9, name="rounded"), Signal(8, name="uint8")
    up = kept[0] & (kept[1] | lost.any() | below)
    m.d.comb += rounded.eq(kept[1:] + up)
    with m.If(~zero):
        m.d.comb += result.eq(Mux(large | rounded[8], 255, rounded[:8]))
    return result, infinite


class Beat(data.StructLayout):
    """One beat of read data: of its bytes, ``start`` to ``end`` (inclusive) count.

    ``group_end`` and ``last`` mark the last beat of a group of rows and of an instruction. With ``error``
    (the bus) or ``outside`` (the window) there are no data.
    """
    def __init__(self, config):
        offset = unsigned(exact_log2(config.bus_bytes))
        super().__init__({
            "data": unsigned(8 * config.bus_bytes), "start": offset, "end": offset,
            "group_end": unsigned(1), "last": unsigned(1), "error": unsigned(1), "outside": unsigned(1),
        })


class Word(data.StructLayout):
    """``bus_bytes`` bytes of a group of rows, all of them full but the last, which zeros fill.

    ``upper`` says that bytes of the upper half count; other fields are those of `Beat`.
    """
    def __init__(self, config):
        super().__init__({
            "data": unsigned(8 * config.bus_bytes), "upper": unsigned(1),
            "group_end": unsigned(1), "last": unsigned(1), "error": unsigned(1), "outside": unsigned(1),
        })


class BytePacker(wiring.Component):
    """Packs the bytes that count of consecutive beats into full words, group by group.

    ::

        i --> rotate to the fill level --> register --+--> bytes from the fill level on --> o
                                                      |                                     ^
                                                      +--> residue --> bytes below ---------+

    One beat per cycle, and one cycle more where the end of a group does not fit the word that it
    completes. Latency is one cycle.

    Parameters
    ----------
    config : Config

    Members
    -------
    i : In(stream of Beat)
    o : Out(stream of Word)
    """

    def __init__(self, *, config):
        self._config = config
        super().__init__({"i": In(stream.Signature(Beat(config))), "o": Out(stream.Signature(Word(config)))})

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        size = self.config.bus_bytes
        offset = exact_log2(size)
        beat, word = self.i.p, self.o.p

        # First stage: rotate so that the first byte that counts comes to the fill level.
        fill, following = Signal(offset), Signal(offset + 1)
        amount = Signal(offset)
        m.d.comb += [
            amount.eq(fill - beat.start),
            following.eq(fill + (beat.end - beat.start)[:offset] + 1),
        ]
        turned = rotate(m, beat.data, amount)
        valid, taken = Signal(), Signal()
        item = Signal(Word(self.config), reset_less=True)
        total, new = Signal(offset, reset_less=True), Signal(size, reset_less=True)
        full, gives, final, short = (Signal(reset_less=True) for _ in range(4))
        m.d.comb += self.i.ready.eq(~valid | taken)
        with m.If(self.i.ready):
            m.d.sync += valid.eq(self.i.valid)
        with m.If(self.i.ready & self.i.valid):
            fits = ~following[offset] | (following[:offset] == 0)
            m.d.sync += [
                item.data.eq(turned), new.eq(at_least(m, fill, size, 1)), total.eq(following),
                item.group_end.eq(beat.group_end), item.last.eq(beat.last),
                item.error.eq(beat.error), item.outside.eq(beat.outside),
                full.eq(following[offset]), final.eq(beat.group_end & fits),
                short.eq(beat.group_end & ~following[offset]),
                gives.eq(following[offset] | beat.group_end | beat.error | beat.outside),
                fill.eq(Mux(beat.group_end, 0, following)),
            ]

        # Second stage: residue below the level, new bytes from it on. Where the end of a group does not fit, the
        # rest of the item makes the last word.
        residue = Signal(8 * size, reset_less=True)
        unused = at_least(m, total, size, 1)
        m.d.comb += [
            word.upper.eq(~short | (total > size // 2)),
            word.group_end.eq(final), word.last.eq(final & item.last),
            word.error.eq(item.error), word.outside.eq(item.outside),
            self.o.valid.eq(valid & gives),
            taken.eq(valid & (~gives | (self.o.ready & (final | ~item.group_end)))),
        ]
        with m.If(self.o.valid & self.o.ready & item.group_end & ~final):
            m.d.sync += [final.eq(1), short.eq(1), new.eq(-1)]
        for i in range(size):
            bits = slice(8 * i, 8 * i + 8)
            m.d.comb += word.data[bits].eq(Mux(short & unused[i], 0, Mux(new[i], item.data[bits], residue[bits])))
            with m.If(taken & (full | new[i])):
                m.d.sync += residue[bits].eq(item.data[bits])
        return m


class StreamBuffer(wiring.Component):
    """A stream whose ``valid``, ``payload`` and ``ready`` all come from registers: two places, one cycle.

    Parameters
    ----------
    shape : shape of the payload

    Members
    -------
    i : In(stream)
    o : Out(stream)
    """

    def __init__(self, *, shape):
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        i, o = self.i, self.o
        spare, full = Signal.like(i.payload, reset_less=True), Signal()
        m.d.comb += i.ready.eq(~full)
        with m.If(~full):
            m.d.sync += spare.eq(i.payload)
        with m.If(~o.valid | o.ready):
            m.d.sync += [o.payload.eq(Mux(full, spare, i.payload)), o.valid.eq(full | i.valid), full.eq(0)]
        with m.Elif(i.valid):
            m.d.sync += full.eq(1)
        return m
