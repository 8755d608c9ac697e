"""Products of the array: their order, and their operands on chip ahead of them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..memory import OutOfMemory
from .update import Chunk

__all__ = ["Product", "mix", "run", "weave"]

_AHEAD = 10
"""Products whose operands are on chip or on their way, where there is room."""


@dataclass(eq=False)
class Product:
    """One MATRIX instruction, and what follows from it.

    Attributes
    ----------
    cycles : int
        Of the array.
    panels : tuple of Panel
        Its operands.
    emit : callable
    releases : list of Product
        Weight gradients that are possible after it.
    chunk : Chunk or None
        Whose weights it updates.
    """
    cycles: int
    panels: tuple
    emit: Callable
    releases: list = field(default_factory=list)
    chunk: Chunk | None = None


def mix(some, others):
    """Two lists as one, evenly."""
    keys = [(i / len(part), which) for which, part in enumerate((some, others)) for i in range(len(part))]
    return [item for _, item in sorted(zip(keys, [*some, *others], strict=True), key=lambda pair: pair[0])]


def weave(products):
    """Products with all that they release, which is spread as evenly as possible over those that are left. What the
    last one releases comes at the end."""
    left, share, waiting, result = _cycles(products), 0.0, deque(), []
    later = sum(_cycles(product.releases) for product in products[:-1])
    for product in products:
        result.append(product)
        waiting.extend(product.releases)
        share += product.cycles * later / left
        left -= product.cycles
        while waiting and share > 0:
            share -= waiting[0].cycles
            later -= waiting[0].cycles
            result.append(waiting.popleft())
        share = min(share, 0.0)
    return result + list(waiting)


def _cycles(products):
    return sum(product.cycles for product in products)


def run(job, products, pending):
    """Thread: emit products one after the other, and ahead of them the loads of their operands. An operand gives its
    place up after its last product.

    Parameters
    ----------
    pending : set of int
        Addresses of panels that have no contents yet; whoever makes them takes them out.
    """
    last = {panel.name: product for product in products for panel in product.panels}
    ahead = 0 if job.thrift else _AHEAD
    ready, following = deque(), deque(products)
    while ready or following:
        while following and len(ready) <= ahead and _bring(job.tiles, following[0], pending, bool(ready)):
            ready.append(following.popleft())
        product = ready.popleft()
        product.emit()
        for panel in product.panels:
            job.tiles.unpin(panel)
            if last[panel.name] is product:
                job.tiles.drop(panel)
        yield


def _bring(tiles, product, pending, ahead):
    """Bring the operands of a product on chip, and keep them there; those of a product ``ahead`` only if they have
    contents and there is room. Returns whether they come."""
    pinned = []
    if any(panel.address in pending for panel in product.panels):
        assert ahead, "an operand is needed before it is made"
        return False
    try:
        for panel in product.panels:
            tiles.get(panel)
            tiles.pin(panel)
            pinned.append(panel)
    except OutOfMemory:
        for panel in pinned:
            tiles.unpin(panel)
        if not ahead:
            raise
        return False
    return True
