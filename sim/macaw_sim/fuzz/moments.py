"""What happens to a device at any moment of a program: each run ends, and the next program is right."""

from dataclasses import replace

from macaw_hw.config import Config
from macaw_hw.isa import Fault
from macaw_hw.registers import COUNTERS, REGISTERS, Access

from ..backend import BusError
from ..verilator.backend import ALL_CHANNELS, ProtocolError
from . import accesses, overwrite
from .campaign import Failure, device, timing
from .case import RESULT, Case, Local, Mismatch, read, settle, start, write
from .coverage import MOMENTS, Coverage
from .generator import Generator
from .illegal import illegal_case
from .judge import Model, conclude, judge, prepare

__all__ = ["campaign"]

_RUNNING, _DONE, _FAULT, _ABORTED = (bits.mask for bits in REGISTERS["status"].bits)
_WATCHDOG = 600
_LENGTHS = (1, 12)
_LONG = (4, 60)
_START, _ABORT = (bits.mask for bits in REGISTERS["control"].bits)


def campaign(config: Config, *, runs: int, seed: int, options: dict | None = None, verilog: str | None = None,
             coverage: Coverage | None = None, kinds=MOMENTS) -> None:
    """``runs`` short programs, each disturbed at a random cycle, each followed by a legal one that is judged.

    ``kinds`` are taken in turns: abort; hard reset; a memory that stops answering on all or some channels, then
    goes on, or is reset, or is aborted; the doorbell while busy; accesses to every register, and accesses of
    every kind, while busy; a program that is overwritten, by the host or by itself; an error response to one
    of the accesses. `Failure` names the first run that does not end as it must.
    """
    options = timing(seed) if options is None else options
    generator = Generator(config, seed, wide=False)
    rtl = device(config, seed, options, verilog)
    try:
        for number in range(runs):
            kind = kinds[number % len(kinds)]
            try:
                ended = _disturb(rtl, generator, kind)
                judge(rtl, _next(generator), generator.fields.regions)
            except (Mismatch, ProtocolError, BusError, TimeoutError) as error:
                raise Failure(f"seed {seed}: run {number} ({kind}): {error}") from None
            if coverage is not None:
                coverage.hit("moment", kind, ended)
    finally:
        rtl.close()


def _next(generator, lengths=_LENGTHS) -> Case:
    local = Local.of(generator.state)
    return replace(generator.case(int(generator.rng.integers(*lengths))), local=local)


def _disturb(rtl, generator, kind):
    """Run a program and disturb it; whether it ended as if nothing had been ("done") or was "stopped"."""
    ranges = generator.fields.regions
    if kind in ("bus_read", "bus_write"):
        _, registers = judge(rtl, illegal_case(generator, kind, int(generator.rng.integers(*_LENGTHS))), ranges)
        return "stopped" if registers["fault_code"] else "done"
    # What is overwritten must be longer than what is fetched at once.
    case = replace(_next(generator, _LONG if kind in _OVERWRITES else _LENGTHS), watchdog=_WATCHDOG)
    prepare(rtl, case, ranges)
    # Where nothing waits for long, most programs end within this many cycles.
    moment = int(generator.rng.integers(1, 60 + 60 * (len(case.program) // 32)))
    if kind in _OVERWRITES:
        return _OVERWRITES[kind](rtl, generator, case)
    start(rtl, case)
    return _KINDS[kind](rtl, case, moment, generator.rng)


def _right(rtl, case):
    """The program has ended without fault: memory must be as the model says."""
    registers = settle(rtl)
    if registers["status"] != _DONE:
        raise Mismatch(f"ended with {registers}, expected no fault")
    model = Model(rtl.config, case)
    wrong = model.expect(rtl.dram).wrong
    if wrong.size:
        raise Mismatch(f"{wrong.size} bytes of memory are wrong, the first at {int(wrong[0]):#x}")
    return "done"


def _abort(rtl, case, moment, rng):
    rtl.wait_interrupt(moment)
    write(rtl, "control", _ABORT)
    registers = settle(rtl)
    if registers["status"] == _DONE:
        return _right(rtl, case)
    if registers["status"] != _ABORTED or registers["fault_code"]:
        raise Mismatch(f"aborted, but ended with {registers}")
    return "stopped"


def _reset(rtl, case, moment, rng):
    ended = rtl.wait_interrupt(moment)
    if rng.random() < 0.25:
        # Also while an aborted program drains.
        write(rtl, "control", _ABORT)
        rtl.wait_interrupt(int(rng.integers(30)))
    rtl.reset()
    if read(rtl, "status") or read(rtl, "irq_status") or read(rtl, "window_limit"):
        raise Mismatch("registers keep values over a reset")
    return "done" if ended else "stopped"


def _silence(rtl, case, moment, rng, *, reset=False):
    rtl.stop_answering(after=moment, channels=_channels(rng))
    if not rtl.wait_interrupt(200_000):
        raise Mismatch("no interrupt although the memory is silent: the watchdog does not bite")
    status = read(rtl, "status")
    if status & _FAULT:
        code = Fault(read(rtl, "fault_code"))
        if code != Fault.WATCHDOG:
            raise Mismatch(f"a silent memory is reported as {code.name}")
        if read(rtl, "fault_instruction") >= len(case.program) // 32:
            raise Mismatch("the watchdog names an instruction beyond the program")
    if reset:
        rtl.reset()
    rtl.resume_answering()
    if status & _FAULT:
        if not reset and settle(rtl)["status"] != _FAULT:
            raise Mismatch("a watchdog fault is forgotten when the memory answers again")
        return "stopped"
    return "done" if reset else _right(rtl, case)


def _channels(rng):
    """All of them, or some."""
    chosen = [channel for channel in ALL_CHANNELS if rng.random() < 0.4]
    return chosen if chosen and rng.random() < 0.6 else ALL_CHANNELS


def _silence_abort(rtl, case, moment, rng):
    """Aborted, mostly before the watchdog bites: at rest when the memory answers again, or is reset, and not before."""
    rtl.stop_answering(after=moment, channels=_channels(rng))
    ended = rtl.wait_interrupt(moment + int(rng.integers(_WATCHDOG - 50)))
    if not ended:
        write(rtl, "control", _ABORT)
        rtl.wait_interrupt(int(rng.integers(1, 2 * _WATCHDOG)))
    if not ended and rng.random() < 0.3:
        rtl.reset()
        rtl.resume_answering()
        return "stopped"
    rtl.resume_answering()
    registers = settle(rtl)
    if registers["status"] == _DONE:
        return _right(rtl, case)
    # A program that waited before the silence began may meet the watchdog first.
    if (registers["status"], registers["fault_code"]) not in ((_ABORTED, 0), (_FAULT, Fault.WATCHDOG)) or (
            ended and registers["status"] == _ABORTED):
        raise Mismatch(f"aborted, but ended with {registers}")
    return "stopped"


def _silence_reset(rtl, case, moment, rng):
    return _silence(rtl, case, moment, rng, reset=True)


def _doorbell(rtl, case, moment, rng):
    again = False
    for _ in range(int(rng.integers(1, 4))):
        if rtl.wait_interrupt(moment):
            break
        before = read(rtl, "cycles")
        write(rtl, "control", _START)
        # The program may end before the doorbell arrives: then it runs once more, on what it has left.
        again |= read(rtl, "cycles") < before
    if not again:
        return _right(rtl, case)
    if settle(rtl)["status"] & ~(_DONE | _FAULT):
        raise Mismatch("a second run does not end")
    return "done"


def _registers(rtl, case, moment, rng):
    """Every register is read; writes to what is locked, read only or not there are refused."""
    rtl.wait_interrupt(moment)
    for name, register in REGISTERS.items():
        value = read(rtl, name)
        if name in COUNTERS and value >> 40:
            raise Mismatch(f"{name} reads {value:#x}")
        if register.access == Access.READ or register.locked and read(rtl, "status") & _RUNNING:
            _refused(rtl, register.offset, locked=register.locked)
    _refused(rtl, 0xFFC)
    _refused(rtl, 0x064)
    return _right(rtl, case)


def _accesses(rtl, case, moment, rng):
    """Accesses of every kind while it runs and after it."""
    accesses.busy(rtl, rng, case, int(rng.integers(1, 25)))
    conclude(rtl, Model(rtl.config, case), {name: read(rtl, name) for name in RESULT})
    accesses.idle(rtl, rng, 60)
    return "done"


def _refused(rtl, offset, *, locked=False):
    before = read(rtl, "status")
    kept = rtl.read_register(offset) if locked else 0
    try:
        rtl.write_register(offset, kept)
    except BusError:
        return
    # A program that ends between the two accesses opens the register.
    if not locked or before & read(rtl, "status") & _RUNNING:
        raise Mismatch(f"a write to offset {offset:#x} is accepted")


_KINDS = {"abort": _abort, "reset": _reset, "silence": _silence, "silence_reset": _silence_reset,
          "silence_abort": _silence_abort, "doorbell": _doorbell, "registers": _registers, "accesses": _accesses}
_OVERWRITES = {"overwrite": overwrite.by_host, "self_overwrite": overwrite.by_itself}
