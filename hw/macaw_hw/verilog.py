"""Verilog of an accelerator, and what a tool flow or a driver wants to know about it."""

import hashlib
from functools import cache

from amaranth.back import verilog

from .accelerator import Accelerator
from .memory_init import fold_memory_init
from .packaging import annotate
from .registers import REGISTERS, VERSION

__all__ = ["MODULE", "generate", "describe"]

MODULE = "macaw"
"""Name of the top-level module."""


@cache
def generate(config, observe=False):
    """Verilog of the accelerator: the same configuration gives the same bytes, on every machine.

    Its ports carry the attributes that Vivado's packager reads, see `packaging.annotate`.

    Parameters
    ----------
    config : Config
    observe : bool
        With the port ``events`` of `Accelerator`.
    """
    text = verilog.convert(Accelerator(config=config, observe=observe), name=MODULE, emit_src=False,
                           strip_internal_attrs=True)
    return annotate(fold_memory_init(text), MODULE, config)


def describe(config, text):
    """What goes beside the Verilog ``text`` as JSON: configuration, register map, content hash."""
    return {
        "module": MODULE,
        "version": f"{VERSION >> 16}.{VERSION & 0xFFFF}",
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "config": config.to_dict(),
        "registers": [{
            "name": register.name, "offset": register.offset, "width": register.width,
            "access": register.access.value, "reset": register.reset, "description": register.doc,
            "bits": [{"name": bits.name, "low": bits.low, "width": bits.width, "description": bits.doc}
                     for bits in register.bits],
        } for register in REGISTERS.values()],
    }
