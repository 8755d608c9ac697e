"""Arbiters: one grant at a time, nobody waits for ever where that is promised."""

from amaranth.hdl import Cat, Signal
from macaw_hw import axi
from macaw_hw.config import Config

from .bench import proof

__all__ = ["read_arbiter"]

_SMALL = Config(size=4, address_width=20)


def _read_arbiter(bench, masters):
    m = bench.m
    arbiter = axi.ReadArbiter(config=_SMALL, masters=masters)
    bench.add("arbiter", arbiter, "masters")
    bus = arbiter.axi
    accepted, received = [], []
    for number, master in enumerate(arbiter.masters):
        payload = Cat(master.araddr, master.arlen)
        bench.offer(master.arvalid, master.arready, payload)
        m.d.comb += master.rready.eq(bench.free(1, "rready"))
        accepted.append(master.arvalid & master.arready)
        received.append(master.rvalid & master.rready)
        # Rounds: how often others were served while this one waited.
        others = Signal(range(masters + 1))
        with m.If(master.arvalid & ~master.arready):
            m.d.sync += others.eq(others + (bus.arvalid & bus.arready))
        with m.Else():
            m.d.sync += others.eq(0)
        bench.check(f"master {number} waits for at most {masters - 1} others", others < masters)
        bench.check(f"master {number}: its address passes under its id",
                    ~accepted[-1] | (arbiter.arid == number) & (payload == Cat(bus.araddr, bus.arlen)))
        bench.check(f"master {number}: data only under its id, unchanged",
                    ~master.rvalid | bus.rvalid & (arbiter.rid == number) & (
                        Cat(master.rdata, master.rresp, master.rlast) == Cat(bus.rdata, bus.rresp, bus.rlast)))
        bench.reach(f"master {number} waits for {masters - 1} others and is served",
                    accepted[-1] & (others == masters - 1))
    bench.stable("AR", bus.arvalid, bus.arready, bus.araddr, bus.arlen, arbiter.arid)
    bench.check("at most one master is granted", sum(accepted) <= 1)
    bench.check("a master is granted exactly when the bus accepts", sum(accepted) == (bus.arvalid & bus.arready))
    bench.check("the bus is offered whatever a master offers",
                bus.arvalid == Cat(master.arvalid for master in arbiter.masters).any())
    bench.check("data reach exactly one master", ~(bus.rvalid & bus.rready) | (sum(received) == 1)
                | (arbiter.rid >= masters))
    bench.check("a master accepts data exactly when the bus does",
                (sum(received) != 0) == (bus.rvalid & bus.rready & (arbiter.rid < masters)))


@proof("ReadArbiter, 2 masters: mutual exclusion, stable addresses, round robin, data to the right master")
def read_arbiter(bench):
    _read_arbiter(bench, 2)


@proof("the same with 3 masters")
def read_arbiter_3(bench):
    _read_arbiter(bench, 3)
