"""A unit with one thing changed: a proof that cannot fail proves nothing."""

import importlib.util
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mutant", "MUTANTS"]


@dataclass(frozen=True)
class Mutant:
    """``old`` becomes ``new`` in the source of a module, and then a proof must fail.

    Parameters
    ----------
    proof : str
        Name of the proof.
    module : str
        Where the unit is.
    old, new : str
        Text of the source; ``old`` occurs exactly once.
    property : str
        A part of the name of the property that is violated.
    """
    proof: str
    module: str
    old: str
    new: str
    property: str

    @contextmanager
    def applied(self):
        """While it lasts, the classes of the module have the methods of the changed source."""
        module = importlib.import_module(self.module)
        source = Path(module.__file__).read_text()
        if source.count(self.old) != 1:
            raise ValueError(f"{self.old!r} must occur once in {self.module}, not {source.count(self.old)} times")
        spec = importlib.util.spec_from_file_location(self.module, module.__file__)
        changed = importlib.util.module_from_spec(spec)
        exec(compile(source.replace(self.old, self.new), module.__file__, "exec"), changed.__dict__)
        saved = []
        for name, new in vars(changed).items():
            old = getattr(module, name, None)
            if isinstance(new, type) and new.__module__ == self.module and isinstance(old, type):
                for attribute, value in vars(new).items():
                    if callable(value) and not attribute.startswith("__"):
                        saved.append((old, attribute, vars(old).get(attribute)))
                        setattr(old, attribute, value)
        try:
            yield
        finally:
            for old, attribute, value in saved:
                setattr(old, attribute, value)
            sys.modules[self.module] = module


MUTANTS = (
    Mutant("read_arbiter", "macaw_hw.axi", "held.eq(~axi.arready)", "held.eq(0)", "AR: payload stays"),
    Mutant("read_arbiter", "macaw_hw.axi", "(last + offset) %", "offset %", "waits for at most"),
    Mutant("read_arbiter", "macaw_hw.axi", "axi.rvalid & (self.rid == index)", "axi.rvalid", "data"),
)
