"""AXI4 masters: the other side of the bus, and the rules that the master must keep.

The other side is any memory that keeps its own rules: it accepts when it likes, and answers only what was
asked, in order. Sizes, burst types and ids are constants of the top level, proven in `top`.
"""

from amaranth.hdl import Cat, Mux, Signal
from amaranth.utils import exact_log2

__all__ = ["PAGE", "burst", "read_bus", "write_bus"]

PAGE = 4096


def burst(bench, what, axi, config, window):
    """Shape and place of the bursts of one address channel, which is given as (valid, address, length)."""
    valid, address, length = axi
    base, limit = window
    offset = exact_log2(config.bus_bytes)
    bench.check(f"{what}: whole beats", ~valid | (address[:offset] == 0))
    bench.check(f"{what}: never across 4 KiB", ~valid | (address[offset:12] + length < PAGE >> offset))
    bench.check(f"{what}: no beat below the window", ~valid | (address + config.bus_bytes > base))
    bench.check(f"{what}: no beat beyond the window", ~valid | (address + (length << offset) < limit))
    bench.reach(f"{what}: several beats up to the end of 4 KiB", valid & (length > 2) & (
        address[offset:12] + length == (PAGE >> offset) - 1))


def read_bus(bench, axi, config, window, *, bursts, fair=None, exact=False, count=True, rules=True):
    """Answers the reads of ``axi`` and checks them. Returns the number of bursts without all their data.

    Parameters
    ----------
    window : (base, limit)
    bursts : int
        Bursts that may be outstanding; more are not accepted.
    count : bool
        Whether to check that there are never more.
    fair : int
        Nothing is refused or late for this many cycles in a row.
    rules : bool
        Whether to check the rules of AXI4.
    exact : bool
        Each burst has ``arlen`` + 1 beats; else the last beat may be any, so the property is a stronger one.
    """
    m = bench.m
    if rules:
        bench.stable("AR", axi.arvalid, axi.arready, axi.araddr, axi.arlen)
        burst(bench, "AR", (axi.arvalid, axi.araddr, axi.arlen), config, window)
    choice = (lambda name: bench.fair(fair, name)) if fair else (lambda name: bench.free(1, name))
    outstanding, waits = Signal(range(bursts + 2)), bench.past(axi.rvalid & ~axi.rready)
    answer = Cat(axi.rdata, axi.rresp)
    accepted, ended = axi.arvalid & axi.arready, axi.rvalid & axi.rready & axi.rlast
    m.d.sync += outstanding.eq(outstanding + accepted - ended)
    m.d.comb += [
        axi.arready.eq(choice("arready") & (outstanding <= bursts)),
        axi.rvalid.eq(waits | choice("rvalid") & (outstanding != 0)),
        answer.eq(Mux(waits, bench.past(answer), bench.free(len(answer), "answer"))),
    ]
    if exact:
        lengths = [Signal(8, name=f"length{i}") for i in range(bursts + 1)]
        beat = Signal(8)
        with m.If(ended):
            m.d.sync += [one.eq(following) for one, following in zip(lengths, lengths[1:], strict=False)]
        for i, length in enumerate(lengths):
            with m.If(accepted & (outstanding - ended == i)):
                m.d.sync += length.eq(axi.arlen)
        m.d.comb += axi.rlast.eq(beat == lengths[0])
        with m.If(axi.rvalid & axi.rready):
            m.d.sync += beat.eq(Mux(axi.rlast, 0, beat + 1))
    else:
        m.d.comb += axi.rlast.eq(Mux(waits, bench.past(axi.rlast), choice("rlast")))
    if count:
        bench.check(f"AR: at most {bursts} bursts outstanding", outstanding <= bursts)
    return outstanding


def write_bus(bench, axi, config, window, *, bursts, fair=None, beats=True, rules=True):
    """Takes the writes of ``axi`` and checks them. Returns the number of bursts without response.

    Parameters
    ----------
    window : (base, limit)
    bursts : int
        Bursts that may be outstanding.
    fair : int
        Nothing is refused or late for this many cycles in a row.
    rules : bool
        Whether to check the rules of AXI4.
    beats : bool
        Whether to check how beats belong to addresses, and how many bursts are outstanding.
    """
    m = bench.m
    choice = (lambda name: bench.fair(fair, name)) if fair else (lambda name: bench.free(1, name))
    if rules:
        bench.stable("AW", axi.awvalid, axi.awready, axi.awaddr, axi.awlen)
        bench.stable("W", axi.wvalid, axi.wready, axi.wdata, axi.wstrb, axi.wlast)
        burst(bench, "AW", (axi.awvalid, axi.awaddr, axi.awlen), config, window)
    m.d.comb += [axi.awready.eq(choice("awready")), axi.wready.eq(choice("wready"))]

    # One response for each burst whose address and data have passed.
    counts = range(bursts + 2)
    addresses, data = Signal(counts), Signal(counts)
    response = axi.bvalid & axi.bready
    waits = bench.past(axi.bvalid & ~axi.bready)
    moved = axi.wvalid & axi.wready
    m.d.comb += [
        axi.bvalid.eq(waits | choice("bvalid") & (addresses != 0) & (data != 0)),
        axi.bresp.eq(Mux(waits, bench.past(axi.bresp), bench.free(2, "bresp"))),
    ]
    m.d.sync += [addresses.eq(addresses + (axi.awvalid & axi.awready) - response),
                 data.eq(data + (moved & axi.wlast) - response)]
    offered = axi.awvalid & ~bench.past(axi.awvalid & ~axi.awready)
    outstanding = Signal(counts)
    m.d.sync += outstanding.eq(outstanding + offered - response)
    bench.reach("B: an error", response & (axi.bresp == 2))
    if beats:
        bench.check(f"AW: at most {bursts} bursts outstanding", outstanding + offered <= bursts)
        _beats(bench, axi, config, window, offered, counts)
    return outstanding


def _beats(bench, axi, config, window, offered, counts):
    """Any one burst, from its address to its last beat."""
    m = bench.m
    base, limit = window
    offset = exact_log2(config.bus_bytes)
    moved = axi.wvalid & axi.wready
    open_bursts = Signal(counts)
    followed, ahead = Signal(), Signal(counts)
    address, length, beat = Signal.like(axi.awaddr), Signal(8), Signal(8)
    m.d.sync += open_bursts.eq(open_bursts + offered - (moved & axi.wlast))
    bench.check("W: no beat before its address is offered", ~axi.wvalid | (open_bursts + offered != 0))
    current = followed & (ahead == 0)
    with m.If(bench.free(1, "pick") & offered & ~followed):
        m.d.sync += [followed.eq(1), ahead.eq(open_bursts - (moved & axi.wlast)), address.eq(axi.awaddr),
                     length.eq(axi.awlen), beat.eq(0)]
    with m.Elif(followed & moved):
        m.d.sync += [ahead.eq(Mux(axi.wlast & (ahead != 0), ahead - 1, ahead)),
                     followed.eq(~(current & axi.wlast)), beat.eq(beat + current)]
    bench.check("W: AWLEN + 1 beats, the last one with `last`",
                ~(current & axi.wvalid) | (axi.wlast == (beat == length)))
    lane = bench.constant(offset, "lane")
    place = Signal(config.address_width + 1)
    m.d.comb += place.eq(address + (beat << offset) + lane)
    bench.check("W: no strobe outside the window",
                ~(current & axi.wvalid & axi.wstrb.bit_select(lane, 1)) | ((place >= base) & (place < limit)))
    bench.reach("W: a full burst of 3 beats", current & axi.wvalid & axi.wlast & (length == 2)
                & axi.wstrb.all())
