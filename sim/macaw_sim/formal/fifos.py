"""FIFOs as the units use them: order, no loss, no overflow, stable output."""

from amaranth.hdl import Mux, Signal
from amaranth.lib import fifo
from macaw_hw.block_fifo import BlockFIFO
from macaw_hw.ring_fifo import RingFIFO

from .bench import proof

__all__ = ["follow", "ring_fifo", "ring_fifo_16", "sync_fifo_buffered", "block_fifo", "block_fifo_distributed"]


def follow(bench, what, write, written, read, returned, depth, places=None, stored=None):
    """Any one item, followed from end to end of something that holds at most ``depth``, in order.

    The prover picks an item, which has a number, counted modulo ``places``; it must come out as it was when
    as many came out as had gone in before it.

    Parameters
    ----------
    write, read : bits
        An item goes in, comes out.
    written, returned : values
        The item.
    places : int
        At least ``depth``, which is the default; invariants are simple if it is the period of the pointers inside.
    stored : function
        If given, what lies at the place with a number. Then it is a lemma that the item lies at its place until it
        leaves, and `places` must be a power of two.
    """
    places = places or depth
    m = bench.m

    def register(shape, name):
        return Signal(shape, name=bench.unique(f"{what} {name}"))

    inside = register(range(depth + 1), "inside")
    writes, reads, place = (register(range(places), name) for name in ("writes", "reads", "place"))
    followed, item = register(1, "followed"), register(len(written), "item")
    m.d.sync += inside.eq(inside + write - read)
    for counter, event in ((writes, write), (reads, read)):
        with m.If(event):
            m.d.sync += counter.eq(Mux(counter == places - 1, 0, counter + 1))
    leaves = followed & read & (reads == place)
    with m.If(bench.free(1, f"{what} pick") & ~followed & write):
        m.d.sync += [followed.eq(1), item.eq(written), place.eq(writes)]
    with m.Elif(leaves):
        m.d.sync += followed.eq(0)
    bench.check(f"{what}: items leave in order and unchanged", ~leaves | (returned == item))
    bench.check(f"{what}: nothing leaves that did not enter", ~read | (inside != 0))
    bench.check(f"{what}: never more than {depth} inside", ~write | (inside != depth) | read)
    if stored is not None:
        bench.check(f"{what}: lemma: the item is among those inside",
                    ~followed | ((place - reads)[:len(place)] < inside))
        bench.check(f"{what}: lemma: the item lies at its place", ~followed | (stored(place) == item))
    bench.reach(f"{what}: full", inside == depth)
    if places > 1:
        another = register(1, "another")
        m.d.sync += another.eq(followed & ~leaves & (another | (read & (reads != place))))
        bench.reach(f"{what}: the item leaves after another", leaves & another)
    return inside


def _fifo(bench, kind, depth, latency):
    unit, stored = kind(width=1, depth=depth), None
    if kind is RingFIFO:
        inner = bench.add("fifo", unit, "w_en", "w_data", "r_en")

        def stored(place):
            port = inner.submodules.storage.read_port(domain="comb")
            bench.m.d.comb += port.addr.eq(place)
            return port.data
    else:
        bench.m.submodules.fifo = unit
    bench.m.d.comb += [signal.eq(bench.free(1, signal.name)) for signal in (unit.w_en, unit.w_data, unit.r_en)]
    inside = follow(bench, "fifo", unit.w_en & unit.w_rdy, unit.w_data, unit.r_en & unit.r_rdy, unit.r_data, depth,
                    stored=stored)
    bench.check("room exactly if not full" if latency == 0 else "room if not full",
                unit.w_rdy == (inside != depth) if latency == 0 else unit.w_rdy | (inside >= depth - 1))
    bench.check("the level counts what is inside", unit.level == inside)
    if latency == 0:
        bench.check("output as soon as something is inside", unit.r_rdy == (inside != 0))
    else:
        bench.within("output after something went in", latency + 1, (inside != 0) & ~unit.r_rdy, unit.r_rdy)
    bench.stable("output", unit.r_rdy, unit.r_en, unit.r_data)


@proof("RingFIFO, 4 places: order, no loss, no overflow, stable output", reach=20)
def ring_fifo(bench):
    _fifo(bench, RingFIFO, 4, 0)


@proof("RingFIFO, 16 places: the same", reach=20)
def ring_fifo_16(bench):
    _fifo(bench, RingFIFO, 16, 0)


@proof("SyncFIFOBuffered, 4 places: the same", reach=20)
def sync_fifo_buffered(bench):
    _fifo(bench, fifo.SyncFIFOBuffered, 4, 1)


def _block_fifo(bench, depth, block):
    """Items that enter only where a place was reserved for them, in a cycle before."""
    unit, latency = BlockFIFO(width=1, depth=depth, block=block), BlockFIFO.LATENCY[block]
    bench.add("fifo", unit, "reserve", "w_en")
    owed, most = Signal(range(depth + 1)), depth + latency - 2  # as many are in registers, no place in the memory
    bench.m.d.comb += [unit.reserve.eq(unit.room & bench.free(1, "reserve")),
                       unit.w_en.eq((owed != 0) & bench.free(1, "w_en"))]
    bench.m.d.sync += owed.eq(owed + unit.reserve - unit.w_en)
    leaves = unit.r_en & unit.r_rdy
    inside = follow(bench, "fifo", unit.w_en, unit.w_data, leaves, unit.r_data, most, 2 * depth)
    bench.check("never more places given away than there are", owed + inside <= most)
    bench.check(f"room for {depth - 1}", unit.room | (owed + inside >= depth - 1))
    bench.check("empty exactly if nothing is inside", unit.empty == (inside == 0))
    bench.within("output after something went in", latency, (inside != 0) & ~unit.r_rdy, unit.r_rdy)
    before = unit.empty
    for _ in range(latency - 1):
        before = bench.past(before, init=1)
    bench.check("no item sooner than it says", ~unit.r_rdy | bench.past(unit.r_rdy) | ~before)
    bench.stable("output", unit.r_rdy, unit.r_en, unit.r_data)
    row = Signal(range(4))
    bench.m.d.sync += row.eq(Mux(leaves, row + (row != 3), 0))
    bench.reach("items leave in 4 cycles in a row", leaves & (row == 3))


@proof("BlockFIFO in block memory, 4 places: order, no loss, room for 3, output within 3 cycles", reach=20)
def block_fifo(bench):
    _block_fifo(bench, 4, True)


@proof("the same in distributed memory, output within 2 cycles", reach=20)
def block_fifo_distributed(bench):
    _block_fifo(bench, 4, False)
