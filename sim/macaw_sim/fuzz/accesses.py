"""Register accesses as a bus may make them: any address and strobes, channels in any order, while idle and busy."""

from macaw_hw.config import Config
from macaw_hw.isa import INDEX_WIDTH, INSTRUCTION_BYTES
from macaw_hw.registers import CONFIG_REGISTERS, COUNTERS, REGISTER_SPACE, REGISTERS

from ..verilator.backend import Access, VerilatorBackend
from .case import Case, Mismatch, read

__all__ = ["RegisterFile", "busy", "idle", "sweep"]

_OKAY, _SLVERR = 0, 2
_RUNNING = REGISTERS["status"].bits[0].mask
_START, _ABORT = (bits.mask for bits in REGISTERS["control"].bits)
_WORDS = {register.offset + low // 8: (name, low)
          for name, register in REGISTERS.items() for low in range(0, register.width, 32)}
_MAPPED = max(_WORDS) + 4
_BATCH = 512


class RegisterFile:
    """What registers answer, one access after the other.

    Parameters
    ----------
    config : Config
    values : dict
        Of all registers, by name.
    """

    def __init__(self, config: Config, values: dict[str, int]):
        self.values = dict(values)
        self._latched: int | None = None
        width = config.address_width
        self._kept = {"program_address": (1 << width) - INSTRUCTION_BYTES, "program_length": (1 << INDEX_WIDTH) - 1,
                      "watchdog": (1 << 32) - 1, "window_base": (2 << width) - 1, "window_limit": (2 << width) - 1,
                      "irq_enable": 7}

    def read(self, address: int) -> tuple[int | None, int]:
        """The data, or None where they are not known, and the response."""
        if address & -4 not in _WORDS:
            return None, _SLVERR
        name, low = _WORDS[address & -4]
        if name == "control":
            return 0, _OKAY
        if name in COUNTERS:
            if low:
                return self._latched, _OKAY
            self._latched = self.values[name] >> 32
        return self.values[name] >> low & 0xFFFFFFFF, _OKAY

    def write(self, address: int, data: int, strobe: int, *, running: bool = False) -> int:
        """Write the bytes that ``strobe`` selects; the response."""
        name, low = _WORDS.get(address & -4, (None, 0))
        if name is None or name not in (*self._kept, "irq_status", "control"):
            return _SLVERR
        if running and REGISTERS[name].locked:
            return _SLVERR
        mask = sum(0xFF << 8 * byte for byte in range(4) if strobe >> byte & 1)
        if name == "irq_status":
            self.values[name] &= ~(data & mask)
        elif name != "control":
            new = self.values[name] & ~(mask << low) | (data & mask) << low
            self.values[name] = new & self._kept[name]
        return _OKAY


def idle(rtl: VerilatorBackend, rng, count: int) -> None:
    """``count`` random accesses while no program runs: every response and every value read must be right."""
    model = RegisterFile(rtl.config, _values(rtl))
    batch = [_draw(rng) for _ in range(count)]
    rtl.access(batch)
    _check(model, batch, running=False)


def sweep(rtl: VerilatorBackend, rng) -> int:
    """Writes with every strobe to, and reads from, every byte address, while no program runs; how many accesses."""
    model, count = RegisterFile(rtl.config, _values(rtl)), 0
    everything = [(address, strobe) for address in range(REGISTER_SPACE) for strobe in range(16)]
    order = rng.permutation(len(everything))
    for at in range(0, len(order), _BATCH):
        batch = []
        for number in order[at:at + _BATCH]:
            address, strobe = everything[number]
            batch += [_quiet(Access(True, address, int(rng.integers(1 << 32)), strobe)), Access(False, address)]
        rtl.access(batch)
        _check(model, batch, running=False)
        count += len(batch)
    return count


def busy(rtl: VerilatorBackend, rng, case: Case, count: int) -> None:
    """Batches of ``count`` random accesses while ``case`` runs, until it ends: what describes the program cannot be
    written, what is read is right, and nothing that is written matters to it."""
    base, limit = case.window or (0, rtl.dram.size)
    known = {"program_address": case.address, "program_length": len(case.program) // INSTRUCTION_BYTES,
             "watchdog": case.watchdog, "window_base": base, "window_limit": limit, "irq_enable": 7, "irq_status": 0,
             "status": _RUNNING, **{f"fault_{name}": 0 for name in ("code", "unit", "instruction")},
             **{name: REGISTERS[name].reset for name in ("identity", "version")},
             **{name: getattr(rtl.config, name) for name in CONFIG_REGISTERS}}
    model = RegisterFile(rtl.config, known | dict.fromkeys(COUNTERS, 0))
    for _ in range(100_000):
        batch = [_draw(rng) for _ in range(count)]
        for one in batch:
            one.data &= ~_ABORT if one.address & -4 == REGISTERS["control"].offset else -1
        rtl.access(batch)
        if not read(rtl, "status") & _RUNNING:
            return
        _check(model, batch, running=True)
        rtl.wait_interrupt(int(rng.integers(1, 40)))
    raise Mismatch("the program does not end")


def _values(rtl):
    return {name: read(rtl, name) for name in REGISTERS}


def _draw(rng):
    kind = rng.random()
    word = list(_WORDS)[int(rng.integers(len(_WORDS)))]
    address = (word + int(rng.integers(4)) if kind < 0.6
               else int(rng.integers(_MAPPED + 16 if kind < 0.8 else REGISTER_SPACE)))
    slow = rng.choice([0, 0, 3, 20])
    delays = tuple(int(delay) for delay in rng.integers(0, slow + 1, 3))
    if rng.random() < 0.5:
        return Access(False, address, delays=delays)
    return _quiet(Access(True, address, int(rng.integers(1 << 32)), int(rng.integers(16)), delays))


def _quiet(access):
    """Without a doorbell; one whose byte is not selected may stay."""
    if access.address & -4 == REGISTERS["control"].offset and access.strobe & 1:
        access.data &= ~_START
    return access


def _check(model, batch, *, running):
    """Compare with the model in the order in which the device took the accesses; a read sees what was before."""
    cycles = None
    for one in sorted(batch, key=lambda one: (one.cycle, one.write)):
        if one.write:
            response = model.write(one.address, one.data, one.strobe, running=running)
            if one.response != response:
                raise Mismatch(f"a write to {one.address:#x} with strobes {one.strobe:#x} is answered with "
                               f"{one.response}, expected {response}")
            continue
        value, response = model.read(one.address)
        name, low = _WORDS.get(one.address & -4, ("", 0))
        if running and name in COUNTERS:
            value = None
            if name == "cycles" and not low:
                if cycles is not None and one.data - cycles[1] != one.cycle - cycles[0]:
                    raise Mismatch(f"cycles reads {cycles[1]} and, {one.cycle - cycles[0]} cycles later, {one.data}")
                cycles = one.cycle, one.data
        if one.response != response or value is not None and one.data != value:
            raise Mismatch(f"a read from {one.address:#x} gives {one.data:#x} with response {one.response}, "
                           f"expected {value if value is None else hex(value)} with {response}")
