"""Random legal programs."""

import struct
from dataclasses import replace

import numpy as np
from macaw.program import Program
from macaw_hw import isa
from macaw_hw.config import Config
from macaw_hw.isa import Opcode

from ..emulator.program import Program as Decoded
from ..emulator.state import DeviceFault, State
from .case import DATA, DATA_BYTES, Case, Local, image_bytes, transfers
from .fields import Fields, hostile_floats
from .tokens import add_tokens, append

__all__ = ["Generator", "dump_case", "fill_case"]

_LENGTHS = ((1, 1), (2, 12), (20, 60), (200, 600))
_MIX = (0.25, 0.2, 0.35, 0.2)
_FOLLOWS = 0.5
"""Share of the VECTOR instructions that read what the one before writes."""


class Generator:
    """Draws programs for one device; follows the state of its memories from program to program.

    It executes every instruction that it draws on a state of its own: what faults or depends on timing is
    drawn again. All that is random comes from ``seed``.

    Parameters
    ----------
    config : Config
    seed : int
    wide : bool
        Use all of the local memories, not only the surroundings of the boundaries of their banks.
    """

    def __init__(self, config: Config, seed: int, *, wide: bool = True):
        self.config = config
        self.rng = np.random.default_rng(seed)
        self.state = State(config, np.zeros(image_bytes(config), np.uint8))
        self.state.window = (0, self.state.dram.size)
        self.fields = Fields(config, self.rng, wide=wide)

    def length(self) -> int:
        """A number of instructions: mostly some tens, now and then one or hundreds."""
        low, high = _LENGTHS[self.rng.choice(len(_LENGTHS), p=(0.04, 0.34, 0.6, 0.02))]
        return int(self.rng.integers(low, high + 1))

    def case(self, length: int | None = None) -> Case:
        """A program of ``length`` instructions and the memory it starts from."""
        rng, dram = self.rng, self.state.dram
        length = length or self.length()
        self._fill(dram)
        start = dram.copy()
        program, opcode, vector = Program(self.config), None, None
        # Programs with many instructions of a kind in a row fill a queue.
        sticky = float(rng.choice([0.0, 0.5, 0.95]))
        while len(program) < length:
            if opcode is None or rng.random() >= sticky:
                opcode = Opcode(int(rng.choice(4, p=_MIX)) + 1)
            if opcode == Opcode.VECTOR and vector is not None and rng.random() < _FOLLOWS:
                fields = self.fields.follow(vector)
            else:
                fields = self.fields.draw(opcode)
            if fields is None:
                continue
            one = Decoded(isa.encode(opcode, **fields), self.config)
            if one.illegal or one.steps[0].fault or one.steps[0].hazard():
                continue
            try:
                one.steps[0].run(self.state)
            except DeviceFault:
                continue
            append(program, opcode, fields)
            vector = fields if opcode == Opcode.VECTOR else vector
        content = program.to_bytes()
        if rng.random() < 0.5:
            content = add_tokens(content, rng, int(rng.integers(1, 2 * length + 1)))
        address = 32 * int(rng.integers((DATA - len(content)) // 32))
        case = replace(Case(b"", start, address).with_program(content), window=self._window())
        dram[:DATA] = case.dram[:DATA]
        return case

    def _window(self):
        """All of memory, or just what programs need."""
        return None if self.rng.random() < 0.5 else (0, DATA + DATA_BYTES)

    def _fill(self, dram):
        """New data: hostile floats, moderate floats, bytes, and bfp8 records with sensible exponents."""
        rng = self.rng
        dram[:] = 0
        data = dram[DATA:DATA + DATA_BYTES]
        quarter = DATA_BYTES // 4
        data[:quarter] = hostile_floats(rng, quarter // 4).view(np.uint8)
        data[quarter:2 * quarter] = rng.standard_normal(quarter // 4).astype(np.float32).view(np.uint8)
        data[2 * quarter:] = rng.integers(0, 256, 2 * quarter, dtype=np.uint8)
        size = self.config.tile_bytes
        for at in range(3 * quarter, DATA_BYTES - size, size):
            exponent = int(rng.integers(-12, 4) if rng.random() < 0.9 else rng.integers(-256, 256))
            data[at:at + self.config.size] = 0
            data[at:at + 2] = np.frombuffer(struct.pack("<h", exponent), np.uint8)


def dump_case(config: Config, ranges=None) -> Case:
    """A program that stores both local memories, or the ``ranges`` of Fields.regions, to ``DUMP``."""
    program = Program(config)
    for fields in transfers(config, ranges):
        program.store(**fields)
    return Case(b"", np.zeros(image_bytes(config), np.uint8)).with_program(program.to_bytes())


def fill_case(config: Config, local: Local, ranges=None) -> Case:
    """A program that loads what `dump_case` stores, from ``local``."""
    program, dram = Program(config), np.zeros(image_bytes(config), np.uint8)
    state = State(config, dram)
    state.window = (0, dram.size)
    local.put(state)
    for fields in transfers(config, ranges):
        Decoded(isa.encode(Opcode.STORE, **fields), config).steps[0].run(state)
        program.load(**fields)
    return Case(b"", dram).with_program(program.to_bytes())


