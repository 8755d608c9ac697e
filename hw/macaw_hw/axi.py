"""AXI4 plumbing: several read masters on one bus."""

from amaranth.hdl import Array, Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from .interfaces import AxiRead

__all__ = ["ReadArbiter"]


class ReadArbiter(wiring.Component):
    """Merges read masters into one that tells them apart by id.

    ::

        masters[0] AR --+--> round robin --> axi AR, arid
        masters[1] AR --+
        masters[0] R <--+--- rid <---------- axi R, rid
        masters[1] R <--+

    Master ``n`` has id ``n``. Addresses pass in the cycle they are offered, in turn while several are
    offered; one that waits for ``arready`` stays. Read data may come back in any order that AXI allows
    between ids; a master that is not ready stalls those behind it.

    Parameters
    ----------
    config : Config
    masters : int
        Number of read masters, at least 2.

    Members
    -------
    masters : array of In(AxiRead)
    axi : Out(AxiRead)
    arid, rid : Out, In
        Ids that belong to ``axi``.

    Raises
    ------
    ValueError
        With fewer than 2 masters.
    """

    def __init__(self, *, config, masters=2):
        if masters < 2:
            raise ValueError(f"masters must be at least 2, not {masters!r}")
        self._config = config
        width = ceil_log2(masters)
        super().__init__({
            "masters": In(AxiRead(config)).array(masters),
            "axi": Out(AxiRead(config)), "arid": Out(width), "rid": In(width),
        })

    @property
    def config(self):
        return self._config

    def elaborate(self, platform):
        m = Module()
        axi, masters = self.axi, list(self.masters)
        waiting = Cat(master.arvalid for master in masters)

        # The latest one served comes last in the next choice; a choice that waits is kept.
        latest, held = Signal.like(self.arid), Signal()
        choice = Signal.like(self.arid)
        with m.Switch(latest):
            for last in range(len(masters)):
                with m.Case(last):
                    for offset in reversed(range(1, len(masters) + 1)):
                        candidate = (last + offset) % len(masters)
                        with m.If(waiting[candidate]):
                            m.d.comb += choice.eq(candidate)
        m.d.comb += [
            self.arid.eq(Mux(held, latest, choice)),
            axi.arvalid.eq(waiting.any()),
            axi.araddr.eq(Array(master.araddr for master in masters)[self.arid]),
            axi.arlen.eq(Array(master.arlen for master in masters)[self.arid]),
            axi.rready.eq(Array(master.rready for master in masters)[self.rid]),
        ]
        with m.If(axi.arvalid):
            m.d.sync += [held.eq(~axi.arready), latest.eq(self.arid)]
        for index, master in enumerate(masters):
            m.d.comb += [
                master.arready.eq(axi.arready & (self.arid == index)),
                master.rdata.eq(axi.rdata), master.rresp.eq(axi.rresp), master.rlast.eq(axi.rlast),
                master.rvalid.eq(axi.rvalid & (self.rid == index)),
            ]
        return m
