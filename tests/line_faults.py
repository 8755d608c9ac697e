"""A serial line that damages what it carries."""

import random

__all__ = ["FaultyLine", "KINDS"]

KINDS = ("corrupt", "drop", "duplicate", "swap", "insert", "flag", "escape", "truncate", "repeat")
"""What can happen at a byte. ``truncate`` loses it and what follows in its chunk; ``repeat`` sends the last
32 bytes again."""


class FaultyLine:
    """A function from bytes to bytes, for one direction of a line.

    Parameters
    ----------
    seed : int
    rate : float
        Probability of a fault at each byte.

    Attributes
    ----------
    counts : dict
        Faults so far, by kind.
    """

    def __init__(self, seed, rate):
        self._random = random.Random(seed)
        self.rate = rate
        self._recent = b""
        self.counts = dict.fromkeys(KINDS, 0)

    def __call__(self, data):
        out, data = bytearray(), bytearray(data)
        while data:
            byte = data.pop(0)
            self._recent = (self._recent + bytes([byte]))[-32:]
            if self._random.random() >= self.rate:
                out.append(byte)
                continue
            kind = self._random.choice(KINDS)
            self.counts[kind] += 1
            if kind == "corrupt":
                out.append(byte ^ 1 << self._random.randrange(8))
            elif kind == "duplicate":
                out += bytes([byte, byte])
            elif kind == "swap":
                out += bytes([data.pop(0), byte]) if data else bytes([byte])
            elif kind in ("insert", "flag", "escape"):
                out += bytes([{"insert": self._random.randrange(256), "flag": 0x7E, "escape": 0x7D}[kind], byte])
            elif kind == "truncate":
                data.clear()
            elif kind == "repeat":
                out += bytes([byte]) + self._recent
        return bytes(out)
