"""What a simulated accelerator shows in each cycle when it is generated with ``observe``."""

from .isa import Queue

__all__ = ["EVENTS"]

EVENTS = {
    **{f"{queue.name.lower()}_{kind}": doc
       for queue in Queue
       for kind, doc in (
           ("waiting", "The head of the queue waits for a token."),
           ("offered", "The head of the queue is offered to the unit."),
           ("issued", "The unit accepts it."),
           ("done", "The oldest instruction in the unit is done."),
           ("busy", "An instruction is in execution."),
           ("wait_memory", "No progress: the unit waits for a bank of a local memory."),
           ("wait_other", "No progress for another reason."))},
    "running": "A program runs.",
    "fetch_blocked": "A fetched instruction waits for room in its queue.",
}
"""Bits of the port ``events``, the lowest first."""
