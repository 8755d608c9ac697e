"""Queues and tokens: the order in which the instructions of a program run."""

from collections import deque
from dataclasses import dataclass

from macaw_hw.isa import TOKEN_LIMIT, Fault, Queue

__all__ = ["Header", "Schedule", "schedule"]


@dataclass(frozen=True)
class Header:
    """What the sequencer sees of an instruction."""

    queue: int
    wait: int
    post: int


@dataclass(frozen=True)
class Schedule:
    """A legal order, and how the program ends.

    Attributes
    ----------
    order : list of int
        Indices of the instructions that run, in an order that queues and tokens allow: of those that could
        start, the oldest is next. Any other legal order has the same result unless accesses are unordered.
    fault : Fault
        NONE when every instruction runs. WATCHDOG when none of those left can ever start. TOKENS when one
        posts more tokens than a counter holds.
    at : int
        For WATCHDOG the oldest instruction that is not done; for TOKENS the one that posts.
    """

    order: list
    fault: Fault = Fault.NONE
    at: int = 0


def schedule(headers: list[Header], depth: int) -> Schedule:
    """The order of a program on four queues that hold ``depth`` instructions each.

    Instructions enter their queues in program order, and a full queue holds up all that follow. The head of a
    queue starts when one token from each queue it waits for is there, takes these tokens, leaves the queue,
    and posts its tokens when it is done.
    """
    queues: list[deque[int]] = [deque() for _ in Queue]
    tokens = [[0] * len(Queue) for _ in Queue]  # [from][to]
    others = [[source for source in Queue if mask >> source & 1] for mask in range(1 << len(Queue))]
    order: list[int] = []
    fetched = 0
    while len(order) < len(headers):
        while fetched < len(headers) and len(queues[headers[fetched].queue]) < depth:
            queues[headers[fetched].queue].append(fetched)
            fetched += 1
        ready = [queue[0] for target, queue in enumerate(queues)
                 if queue and all(tokens[source][target] for source in others[headers[queue[0]].wait])]
        if not ready:
            return Schedule(order, Fault.WATCHDOG, min(queue[0] for queue in queues if queue))
        index = min(ready)
        header = headers[index]
        queues[header.queue].popleft()
        for source in others[header.wait]:
            tokens[source][header.queue] -= 1
        order.append(index)
        for target in others[header.post]:
            if tokens[header.queue][target] == TOKEN_LIMIT:
                return Schedule(order, Fault.TOKENS, index)
            tokens[header.queue][target] += 1
    return Schedule(order)
