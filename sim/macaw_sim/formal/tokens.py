"""Token counters: never below zero, none lost, overflow reported."""

from amaranth.hdl import Cat, Mux, Signal
from macaw_hw import sequencer
from macaw_hw.isa import TOKEN_LIMIT, Queue

from .bench import proof
from .loads import shallow

__all__ = ["token_counters", "token_counters_3"]


def _counters(bench, limit):
    m = bench.m
    tokens = sequencer.Tokens()
    bench.add("tokens", tokens, "issue", "done")
    # A queue issues only what is permitted: see `instruction_queue`. An overflow stops the program, and what is in
    # the units then is done: by each of them, here, as many instructions as there may be tokens.
    over, ended = Cat(tokens.overflow).any(), Signal()
    m.d.sync += ended.eq(ended | over)
    for queue in Queue:
        late = Signal(range(limit + 1), name=f"late{queue}")
        m.d.comb += [tokens.issue[queue].eq(bench.free(1, f"issue{queue}") & tokens.permit[queue]),
                     tokens.done[queue].eq(bench.free(1, f"done{queue}") & (late != limit))]
        m.d.sync += late.eq(late + (tokens.done[queue] & (over | ended)))
    counts = {}
    for source in Queue:
        for target in Queue:
            if source == target:
                continue
            name = f"{source.name} to {target.name}"
            count = Signal((limit + 1).bit_length(), name=f"count{source}{target}")
            posted = tokens.done[source] & tokens.post[source][target]
            taken = tokens.issue[target] & tokens.wait[target][source]
            full = (count == limit) & posted & ~taken
            with m.If(posted ^ taken):
                m.d.sync += count.eq(count + Mux(posted, 1, -1))
            bench.check(f"{name}: taken only if there", ~taken | (count != 0))
            bench.check(f"{name}: overflow is reported", ~bench.past(full) | tokens.overflow[source])
            counts[source, target] = count, full
    for queue in Queue:
        missing = [tokens.wait[queue][source] & (counts[source, queue][0] == 0) for source in Queue if source != queue]
        bench.check(f"{queue.name} is permitted exactly if all its tokens are there",
                    tokens.permit[queue] == ~Cat(missing).any())
        bench.check(f"{queue.name} overflows exactly while a counter does",
                    tokens.overflow[queue] == Cat(
                        count > limit for (source, _), (count, _) in counts.items() if source == queue).any())
        bench.reach(f"{queue.name} takes three tokens", tokens.issue[queue] & Cat(
            tokens.wait[queue][source] for source in Queue if source != queue).all())


@proof("Tokens: each pair's counter is posts less takes, never below zero; one too many is reported, not lost",
       reach=6)
def token_counters(bench):
    _counters(bench, TOKEN_LIMIT)


@proof("the same with at most 3 tokens, which overflow soon", reach=6)
def token_counters_3(bench):
    with shallow(sequencer, TOKEN_LIMIT=3):
        _counters(bench, 3)
