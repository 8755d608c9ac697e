"""What a proof is made of: a unit, an environment, and what must hold.

::

    free inputs --> environment --> unit --> monitors --> bad_* , reached_*
         ^              ^                       |
         +--------------+-----------------------+

A :class:`Bench` becomes one flat module whose inputs the prover chooses freely in every cycle. An output
``bad_*`` is 1 in a cycle where a property is violated, ``reached_*`` where a situation occurs that must be
possible. ``rst`` is one of the inputs and resets everything, monitors included, at any time, so that
what holds also holds after a reset from any state.
"""

from collections.abc import Callable
from dataclasses import dataclass

from amaranth.hdl import Cat, ClockDomain, Elaboratable, Module, Mux, Signal, Value
from amaranth.lib.wiring import In

__all__ = ["Bench", "Proof", "PROOFS", "proof"]


class Bench(Elaboratable):
    """A module under construction, with its properties.

    Attributes
    ----------
    m : Module
        Where proofs add the unit and their own logic.
    domain : ClockDomain
        The only one.
    inputs : list of Signal
        What the prover chooses.
    checks, situations : dict of str to Signal
        Bits that must never be 1; bits that must be able to become 1.
    """

    def __init__(self):
        self.m = Module()
        self.m.domains.sync = self.domain = ClockDomain("sync")
        self.inputs, self.checks, self.situations = [self.domain.rst], {}, {}
        self._names = set()
        self._allowed = Signal()
        self._broken = Signal()
        self._assumptions = []

    def elaborate(self, platform):
        allowed = Cat(self._assumptions).all() if self._assumptions else 1
        self.m.d.comb += self._allowed.eq(allowed & ~self._broken)
        self.m.d.sync += self._broken.eq(~self._allowed)
        return self.m

    @property
    def ports(self):
        return [self.domain.clk, *self.inputs, *self.checks.values(), *self.situations.values()]

    def unique(self, name):
        """``name`` as an identifier of its own."""
        plain = "".join(c if c.isalnum() else "_" for c in name)
        number = 1
        while plain in self._names:
            number += 1
            plain = f"{plain.rstrip('0123456789')}{number}"
        self._names.add(plain)
        return plain

    def free(self, shape=1, name="free"):
        """A signal with any value in any cycle."""
        signal = Signal(shape, name=self.unique(name))
        self.inputs.append(signal)
        return signal

    def add(self, name, component, *driven):
        """Adds a component; its inputs are free, but for those that the proof drives.

        ``driven``: their paths, as ``"axi.rvalid"``, or the beginning of several, as ``"axi"``. The component
        is elaborated at once, and its `Module` is returned: so a lemma can speak of the components inside.
        """
        inner = component.elaborate(None)
        component.elaborate = lambda platform: inner
        self.m.submodules[name] = component
        for path, member, value in component.signature.flatten(component):
            path = ".".join(map(str, path))
            if member.flow == In and not any(path == own or path.startswith(f"{own}.") for own in driven):
                value = Value.cast(value)
                self.m.d.comb += value.eq(self.free(len(value), path))
        return inner

    def offer(self, valid, ready, *payload):
        """Drives a transfer as its source must: offered at any time, held until accepted."""
        payload = Cat(*(Value.cast(value) for value in payload))
        waits = self.past(valid & ~ready)
        self.m.d.comb += [
            valid.eq(waits | self.free(1, "offer")),
            payload.eq(Mux(waits, self.past(payload), self.free(len(payload), "offered"))),
        ]

    def constant(self, shape, name):
        """A signal with any value, the same in all cycles from one reset to the next."""
        first, kept = Signal(init=1), Signal(shape, name=f"{name}_kept")
        value = Signal(shape, name=self.unique(name))
        self.m.d.comb += value.eq(Mux(first, self.free(shape, f"{name}_any"), kept))
        self.m.d.sync += [first.eq(0), kept.eq(value)]
        return value

    def rising(self, name):
        """A bit that becomes 1 at any time, or never, and stays 1."""
        before, bit = Signal(), Signal(name=self.unique(name))
        self.m.d.comb += bit.eq(before | self.free(1, f"{name}_any"))
        self.m.d.sync += before.eq(bit)
        return bit

    def fair(self, limit, name="fair"):
        """A bit with any value, but never 0 for ``limit`` cycles in a row."""
        zeros, bit = Signal(range(limit)), Signal(name=self.unique(name))
        self.m.d.comb += bit.eq(self.free(1, f"{name}_any") | (zeros == limit - 1))
        self.m.d.sync += zeros.eq(Mux(bit, 0, zeros + 1))
        return bit

    def past(self, value, init=0):
        """``value`` of the cycle before; ``init`` in the first cycle after a reset."""
        value = Value.cast(value)
        before = Signal(value.shape(), init=init, name="past")
        self.m.d.sync += before.eq(value)
        return before

    def assume(self, condition):
        """Only runs in which ``condition`` held in every cycle so far count. Environments that cannot break
        the condition to begin with are better: they need no invariant."""
        self._assumptions.append(condition)

    def check(self, name, condition):
        """``condition`` must hold in every cycle."""
        bad = Signal(name=f"bad_{self.unique(name)}")
        self.m.d.comb += bad.eq(self._allowed & ~Value.cast(condition).bool())
        self.checks[name] = bad

    def reach(self, name, condition):
        """Some run must come to a cycle in which ``condition`` holds: the properties are not empty."""
        reached = Signal(name=f"reached_{self.unique(name)}")
        self.m.d.comb += reached.eq(self._allowed & Value.cast(condition).bool())
        self.situations[name] = reached

    def stable(self, name, valid, ready, *payload, unless=0):
        """A transfer that is offered stays, with its payload, until it is accepted.

        ``unless``: the offer may be withdrawn in a cycle where this is 1."""
        payload = Cat(*(Value.cast(value) for value in payload))
        waits = self.past(valid & ~ready)
        self.check(f"{name}: valid stays until ready", ~waits | valid | unless)
        if len(payload):
            self.check(f"{name}: payload stays until ready", ~waits | (payload == self.past(payload)) | unless)
        self.reach(f"{name}: waits, then transfers", waits & valid & ready)

    def within(self, name, limit, waiting, event):
        """``waiting`` never holds for ``limit`` cycles in a row without ``event``."""
        cycles = Signal(range(limit + 1), name=self.unique(f"{name} cycles"))
        stuck = waiting & ~event
        self.m.d.sync += cycles.eq(Mux(stuck, Mux(cycles == limit, limit, cycles + 1), 0))
        self.check(f"{name}: at most {limit} cycles", ~(stuck & (cycles >= limit - 1)))


@dataclass(frozen=True)
class Proof:
    """A set of properties of one unit.

    Parameters
    ----------
    name, what : str
        For the table.
    build : function of a `Bench`
        Adds unit, environment and properties.
    depth : int or None
        Cycles after reset that are examined; None proves for all.
    reach : int
        Cycles within which every situation must be reached.
    limit : int
        Seconds that the prover may take.
    """
    name: str
    what: str
    build: Callable
    depth: int | None = None
    reach: int = 30
    limit: int = 120

    @property
    def method(self):
        return "unbounded" if self.depth is None else f"{self.depth} cycles"

    def bench(self):
        bench = Bench()
        self.build(bench)
        return bench


PROOFS: dict[str, Proof] = {}
"""All proofs by name, in the order of the table."""


def proof(what, **options):
    """Decorator: the function builds the proof of its name."""
    def register(build):
        name = build.__name__
        PROOFS[name] = Proof(name, what, build, **options)
        return build
    return register
