"""LOAD and STORE in plain Python, straight from the instruction set, as an oracle for the DMA engine."""

from itertools import product

import numpy as np
from macaw_hw.isa import LOOPS, DataFormat, Fault

__all__ = ["Region", "LocalMemories", "runs", "bursts_of", "load_events", "store_events"]

_SPACE = 1 << 40


class Region:
    """Memory that the program may touch, ``base`` to ``base`` + the number of bytes."""

    def __init__(self, base, content):
        self.base, self.bytes = base, np.array(content, dtype=np.uint8)

    @property
    def limit(self):
        return self.base + len(self.bytes)

    def __contains__(self, address):
        return self.base <= address < self.limit

    def read(self, address, count):
        """Bytes; 0xEE outside."""
        places = np.arange(address, address + count) - self.base
        inside = (places >= 0) & (places < len(self.bytes))
        return np.where(inside, self.bytes[np.where(inside, places, 0)], 0xEE).astype(np.uint8)


class LocalMemories:
    """Vector memory (float32 bit patterns) and tile memory (mantissas and exponents)."""

    def __init__(self, config, rng):
        n = config.size
        self.vector = rng.integers(0, 1 << 32, (config.vector_rows, n), dtype=np.uint32)
        self.mantissas = rng.integers(-128, 128, (config.tiles, n, n)).astype(np.int8)
        self.exponents = rng.integers(-256, 256, config.tiles).astype(np.int16)


def element_bytes(fields, config):
    return {DataFormat.FLOAT32: 4, DataFormat.UINT8: 1, DataFormat.BFP8: config.tile_bytes}[fields["format"]]


def runs(fields, config):
    """(address, bytes, ends a group) of each run, in order."""
    counts = [fields[f"count{i}"] for i in range(LOOPS)]
    for index in product(*(range(count) for count in reversed(counts))):
        index = index[::-1]
        address = fields["address"] + sum(i * fields[f"stride{k}"] for k, i in enumerate(index))
        group_end = all(index[k] == counts[k] - 1 for k in range(fields["pack"]))
        yield address % _SPACE, fields["run"] * element_bytes(fields, config), group_end


def bursts_of(fields, config, window):
    """(first beat, beats) of each burst, up to the first run that leaves the window."""
    bus = config.bus_bytes
    unit = min(4096, 256 * bus)
    for address, count, _ in runs(fields, config):
        if address < window[0] or address + count > window[1]:
            return
        end = address + count
        while address < end:
            stop = min(end, (address // unit + 1) * unit)
            first = address - address % bus
            yield first, -(-(stop - first) // bus)
            address = stop


def load_events(fields, config, region, window, errors=()):
    """What a LOAD writes, as a list, and the fault it ends with.

    Events are ("vector", row, bytes) and ("tile", tile, line, exponent, bytes). ``errors`` are addresses of
    beats that answer with an error.
    """
    events, group = [], bytearray()
    n, bus = config.size, config.bus_bytes
    state = {"local": fields["local"]}

    def flush(group_end):
        """Writes the complete rows; whether all addresses were good."""
        if fields["format"] == DataFormat.BFP8:
            while len(group) - state.get("at", 0) >= n:
                at = state.get("at", 0)
                line, data = at // n % (n + 1), bytes(group[at:at + n])
                if state["local"] >= config.tiles:
                    return False
                if line == 0:
                    state["exponent"] = int.from_bytes(data[:2], "little") & 0x1FF
                else:
                    events.append(("tile", state["local"], line - 1, state["exponent"], data))
                state["local"] += line == n
                state["at"] = at + n
            if group_end:
                group.clear()
                state["at"] = 0
            return True
        width = n if fields["format"] == DataFormat.UINT8 else 4 * n
        while len(group) >= width or (group_end and group):
            row = bytes(group[:width]).ljust(width, b"\0")
            if fields["format"] == DataFormat.UINT8:
                row = np.frombuffer(row, np.uint8).astype("<f4").tobytes()
            if state["local"] >= config.vector_rows:
                return False
            events.append(("vector", state["local"], row))
            state["local"] += 1
            del group[:width]
        return True

    for address, count, group_end in runs(fields, config):
        if address < window[0] or address + count > window[1]:
            return events, Fault.WINDOW
        end = address + count
        while address < end:
            stop = min(end, (address // bus + 1) * bus)
            if address // bus * bus in errors:
                return events, Fault.BUS_READ
            group += region.read(address, stop - address).tobytes()
            address = stop
            if not flush(False):
                return events, Fault.LOCAL_ADDRESS
        if group_end and not flush(True):
            return events, Fault.LOCAL_ADDRESS
    return events, Fault.NONE


def store_events(fields, config, local, window):
    """What a STORE writes, as a list of (address, byte), and the fault it ends with."""
    events, state = [], {"local": fields["local"], "left": b""}
    n = config.size

    def more():
        """Bytes of the next row or tile record, None for bytes that cannot be stored."""
        place = state["local"]
        state["local"] += 1
        if fields["format"] == DataFormat.BFP8:
            if place >= config.tiles:
                return None
            exponent = int(local.exponents[place]).to_bytes(2, "little", signed=True).ljust(n, b"\0")
            return list(exponent + local.mantissas[place].tobytes())
        if place >= config.vector_rows:
            return None
        row = local.vector[place]
        if fields["format"] == DataFormat.FLOAT32:
            return list(row.tobytes())
        values = row.view(np.float32)
        with np.errstate(invalid="ignore"):
            rounded = np.clip(np.rint(values.astype(np.float64)), 0, 255)
        return [int(r) if np.isfinite(v) else None for r, v in zip(rounded, values, strict=True)]

    buffer = []
    for address, count, group_end in runs(fields, config):
        if address < window[0] or address + count > window[1]:
            return events, Fault.WINDOW
        for offset in range(count):
            if not buffer:
                buffer = more()
                if buffer is None:
                    return events, Fault.LOCAL_ADDRESS
            byte = buffer.pop(0)
            if byte is None:
                return events, Fault.NON_FINITE
            events.append((address + offset, byte))
        if group_end:
            buffer = []
    return events, Fault.NONE
