"""The whole accelerator's ports: what is constant on its buses."""

from macaw_hw import accelerator
from macaw_hw.config import Config

from .bench import proof

__all__ = ["top_constants"]

_SMALL = Config(size=4, address_width=20)


@proof("Accelerator: bursts are INCR and as wide as the bus, write id 0, nothing locked", reach=2)
def top_constants(bench):
    unit = accelerator.Accelerator(config=_SMALL)
    bench.add("macaw", unit)
    for channel in ("aw", "ar"):
        member = {name: getattr(unit, f"m_axi_{channel}{name}") for name in ("size", "burst", "lock")}
        bench.check(f"{channel.upper()}SIZE is the width of the bus", member["size"] == 2)
        bench.check(f"{channel.upper()}BURST is INCR", member["burst"] == 1)
        bench.check(f"{channel.upper()}LOCK is 0", member["lock"] == 0)
    bench.check("AWID is 0", unit.m_axi_awid == 0)
