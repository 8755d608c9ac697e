"""Models of vector and tile memory ports with random stalls, which check the handshake."""

import numpy as np
from cocotb.simtime import get_sim_time
from cocotb.triggers import RisingEdge

__all__ = ["Port", "LocalMemory"]


class Port:
    """One memory port as the memory sees it: a transfer needs ``valid`` and a ``ready`` that comes at random.

    Asserts that what was offered stays until its transfer. ``stall`` is the probability of not being ready.
    """

    def __init__(self, dut, name, fields, rng):
        self.name, self.rng, self.stall = name, rng, 0.0
        self.valid = getattr(dut, f"{name}__valid")
        self.ready = getattr(dut, f"{name}__ready")
        self.fields = [getattr(dut, f"{name}__{field}") for field in fields]
        self.is_ready, self.held = False, None
        self.ready.value = 0

    def sample(self):
        """What was transferred at this clock edge (the fields' values), or None."""
        if not int(self.valid.value):
            assert self.held is None, f"{self.name}: valid fell before the transfer"
            return None
        values = [int(field.value) for field in self.fields]
        assert self.held in (None, values), f"{self.name}: {self.held} became {values} before the transfer"
        self.held = None if self.is_ready else values
        return values if self.is_ready else None

    def drive(self):
        """Readiness in the next cycle."""
        ready = self.stall == 0 or self.rng.random() >= self.stall
        if ready != self.is_ready:
            self.ready.value = int(ready)
            self.is_ready = ready


class LocalMemory:
    """Vector memory with ports ``a``, ``b``, ``d`` and tile memory with port ``tile``, as far as ``dut`` has them.

    ``rows`` (uint32 [rows, N]), ``mantissas`` (int8 [tiles, N, N]) and ``exponents`` (int [tiles]) hold the
    contents; ``row_writes`` [row] and ``tile_writes`` [(tile, line, exponent)] list what was written in order,
    ``row_times`` and ``tile_times`` when (in ns). Data that the interface does not promise is garbage.
    """

    def __init__(self, dut, config, rng):
        self.dut, self.config, self.rng = dut, config, rng
        size = config.size
        self.rows = np.zeros((config.vector_rows, size), np.uint32)
        self.mantissas = np.zeros((config.tiles, size, size), np.int8)
        self.exponents = np.zeros(config.tiles, int)
        self.row_writes, self.tile_writes, self.row_times, self.tile_times = [], [], [], []
        self.reads = {name: Port(dut, name, ["row"], rng) for name in "ab" if hasattr(dut, f"{name}__valid")}
        self.d = Port(dut, "d", ["row", "data"], rng) if hasattr(dut, "d__valid") else None
        self.tile = Port(dut, "tile", ["tile", "line", "data", "exponent"], rng)
        self.ports = [*self.reads.values(), *([self.d] if self.d else []), self.tile]
        self._garbage = int.from_bytes(rng.bytes(4 * size), "little")
        self._shown = dict.fromkeys(self.reads)

    def stalls(self, probability):
        """Draw for each port how often it is not ready, up to ``probability``."""
        for port in self.ports:
            port.stall = float(self.rng.choice([0, 0.5, 1])) * probability

    def forget_writes(self):
        for writes in (self.row_writes, self.tile_writes, self.row_times, self.tile_times):
            writes.clear()

    async def run(self):
        while True:
            await RisingEdge(self.dut.clk)
            self._write(self.d.sample() if self.d else None, self.tile.sample())
            for name, port in self.reads.items():
                granted = port.sample()
                if granted is not None:
                    data = self._row(granted[0])
                elif self._shown[name] == self._garbage:
                    continue
                else:
                    data = self._garbage
                self._shown[name] = data
                getattr(self.dut, f"{name}__data").value = data
            for port in self.ports:
                port.drive()

    def _row(self, row):
        if self._written_now == row:
            return self._garbage
        return int.from_bytes(self.rows[row].tobytes(), "little")

    def _write(self, row, tile):
        self._written_now = None
        size = self.config.size
        if row is not None:
            index, data = row
            self.rows[index] = np.frombuffer(data.to_bytes(4 * size, "little"), np.uint32)
            self.row_writes.append(index)
            self.row_times.append(get_sim_time("ns"))
            self._written_now = index
        if tile is not None:
            index, line, data, exponent = tile
            self.mantissas[index, line] = np.frombuffer(data.to_bytes(size, "little"), np.int8)
            self.exponents[index] = exponent - 512 if exponent >= 256 else exponent
            self.tile_writes.append((index, line, int(self.exponents[index])))
            self.tile_times.append(get_sim_time("ns"))
