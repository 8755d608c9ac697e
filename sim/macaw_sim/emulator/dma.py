"""LOAD and STORE: four nested loops over memory, packed into consecutive rows or tiles."""

from functools import cached_property

import numpy as np
from macaw_hw.config import Config
from macaw_hw.isa import LOOPS, DataFormat, Fault

from ..arithmetic import NonFiniteError, pack_tiles, to_uint8, unpack_tiles
from .state import DeviceFault, State

__all__ = ["Load", "Store"]

_DTYPES: dict[DataFormat, np.dtype] = {DataFormat.FLOAT32: np.dtype("<u4"),
                                           DataFormat.UINT8: np.dtype("u1"), DataFormat.BFP8: np.dtype("u1")}


class _Transfer:
    """What LOAD and STORE have in common: where the bytes and the rows or tiles are.

    Attributes
    ----------
    fault : Fault
        NONE, or what the instruction ends with wherever it runs.
    """

    def __init__(self, fields: dict, config: Config):
        self.format = DataFormat(fields["format"])
        self.address, self.local = fields["address"], fields["local"]
        counts = [fields[f"count{i}"] for i in range(LOOPS)]
        strides = [fields[f"stride{i}"] for i in range(LOOPS)]
        tiles = self.format == DataFormat.BFP8
        self._dtype = _DTYPES[self.format]
        unit = config.tile_bytes if tiles else 1
        self._shape = (*reversed(counts), fields["run"] * unit)
        self._strides = (*reversed(strides), self._dtype.itemsize)
        self._run_bytes = self._shape[-1] * self._dtype.itemsize

        self.groups = int(np.prod(counts[fields["pack"]:], dtype=object))
        elements = fields["run"] * int(np.prod(counts[:fields["pack"]], dtype=object))
        self.elements = elements
        self.lanes = elements if tiles else -(-elements // config.size) * config.size
        self.count = self.groups * (elements if tiles else self.lanes // config.size)
        depth = config.tiles if tiles else config.vector_rows
        self.fault = Fault.LOCAL_ADDRESS if self.local + self.count > depth else Fault.NONE
        steps = [(count - 1) * stride for count, stride in zip(counts, strides, strict=True)]
        self._first = self.address + sum(min(0, step) for step in steps)
        self._beyond = self.address + sum(max(0, step) for step in steps) + self._run_bytes

    @cached_property
    def starts(self) -> np.ndarray:
        """Byte address of each run, in the order of execution."""
        starts = np.array([self.address])
        for count, stride in zip(self._shape[:-1], self._strides[:-1], strict=True):
            starts = (starts[:, None] + np.arange(count) * stride).reshape(-1)
        return starts

    @cached_property
    def overlapping(self) -> bool:
        """Whether two runs share a byte."""
        return bool((np.diff(np.sort(self.starts)) < self._run_bytes).any())

    @cached_property
    def intervals(self) -> tuple[np.ndarray, np.ndarray]:
        """The bytes touched as disjoint ascending intervals: first bytes, and first bytes beyond."""
        starts = np.unique(self.starts)
        ends = starts + self._run_bytes
        gap = starts[1:] > ends[:-1]
        return starts[np.append(True, gap)], ends[np.append(gap, True)]

    def _memory(self, state: State, error: Fault) -> np.ndarray:
        """The elements in DRAM as an array [count3, count2, count1, count0, run], after all checks."""
        if self.fault != Fault.NONE:
            raise DeviceFault(self.fault)
        if not state.inside(self._first, self._beyond):
            raise DeviceFault(Fault.WINDOW)
        suspect = state.bus_errors or self._beyond > state.dram.size
        if suspect and not state.answers(self.starts, self._run_bytes, error):
            raise DeviceFault(error)
        return np.ndarray(self._shape, self._dtype, state.dram.data, self.address, self._strides)

    def _place(self) -> slice:
        return slice(self.local, self.local + self.count)

    def _accesses(self, local_written: bool):
        space = "tile" if self.format == DataFormat.BFP8 else "vector row"
        yield space, np.arange(self.local, self.local + self.count), local_written
        yield "memory", self.intervals, not local_written


class Load(_Transfer):
    """Memory to vector or tile memory."""

    def run(self, state: State) -> None:
        memory = self._memory(state, Fault.BUS_READ)
        if self.format == DataFormat.BFP8:
            size = state.config.size
            records = memory.reshape(-1, size * (size + 1))
            state.mantissas[self._place()], state.exponents[self._place()] = unpack_tiles(records, size)
            return
        target = state.bits if self.format == DataFormat.FLOAT32 else state.vector
        rows = target[self._place()].reshape(self.groups, self.lanes)
        rows[:, self.elements:] = 0
        rows[:, :self.elements] = memory.reshape(self.groups, self.elements)

    def accesses(self):
        """(space, places, written) for each range of places that the instruction touches."""
        return self._accesses(True)

    def hazard(self):
        return None


class Store(_Transfer):
    """Vector or tile memory to memory."""

    def run(self, state: State) -> None:
        memory = self._memory(state, Fault.BUS_WRITE)
        data = self._data(state).reshape(memory.shape)
        if not self.overlapping:
            memory[...] = data
            return
        for index in np.ndindex(memory.shape[:-1]):
            memory[index] = data[index]

    def _data(self, state: State) -> np.ndarray:
        if self.format == DataFormat.BFP8:
            return pack_tiles(state.mantissas[self._place()], state.exponents[self._place()])
        if self.format == DataFormat.FLOAT32:
            return state.bits[self._place()].reshape(self.groups, self.lanes)[:, :self.elements]
        try:
            return to_uint8(state.vector[self._place()].reshape(self.groups, self.lanes)[:, :self.elements])
        except NonFiniteError:
            raise DeviceFault(Fault.NON_FINITE) from None

    def accesses(self):
        """(space, places, written) for each range of places that the instruction touches."""
        return self._accesses(False)

    def hazard(self):
        return None
