"""Faults at every beat, programs that change while they run, register accesses of every kind; and that wrong devices
are found. `make fuzz` is the long way."""

from dataclasses import replace

import numpy as np
import pytest
from macaw.program import Program
from macaw_hw.config import named_config
from macaw_hw.isa import INSTRUCTION_BYTES, DataFormat, Fault, FaultUnit
from macaw_hw.registers import REGISTERS
from macaw_sim.emulator.backend import EmulatorBackend
from macaw_sim.fuzz import accesses, beats, campaign, moments
from macaw_sim.fuzz.case import Case, Mismatch, image_bytes, run, settle, start
from macaw_sim.fuzz.generator import Generator
from macaw_sim.verilator.backend import Access, VerilatorBackend

N4 = named_config("n4")
FAST = {"read_latency": 5, "write_latency": 5, "stalls": 0.1}


@pytest.fixture
def wrong(monkeypatch):
    """A function that lets campaigns run on a backend with some methods replaced."""
    def choose(**methods):
        made = type("Wrong", (VerilatorBackend,), methods)
        monkeypatch.setattr(campaign, "device", lambda config, seed, options, verilog: made(
            config, dram_bytes=image_bytes(config), seed=seed, **options))
        for module in (beats, moments):
            monkeypatch.setattr(module, "device", campaign.device)
    return choose


@pytest.fixture
def device(seed):
    rtl = campaign.device(N4, seed, {"read_latency": 5, "write_latency": 5})
    yield rtl
    rtl.close()


@pytest.mark.parametrize("options", [FAST, {"read_latency": 1, "write_latency": 100, "outstanding": 1, "stalls": 0.4},
                                     {"read_latency": 60, "write_latency": 1, "reorder": True, "interleave": True}],
                         ids=["fast", "late", "early"])
def test_error_in_every_beat(options, seed):
    assert sum(beats.campaign(N4, runs=80, seed=seed, options=options).values()) > 80


def test_error_in_every_beat_of_copies(device, rng):
    """Long bursts at odd addresses, over a 4 KiB boundary, of every format: as many beats as there must be."""
    program = Program(N4)
    program.load(format=DataFormat.FLOAT32, address=0x10FF6, local=0, run=21)
    program.store(format=DataFormat.UINT8, address=0x12FFD, local=0, run=21)
    program.load(format=DataFormat.BFP8, address=0x11FF0, local=3, run=2)
    program.store(format=DataFormat.BFP8, address=0x14008, local=3, run=2)
    program.load(format=DataFormat.UINT8, address=0x10003, local=8, run=5, count0=3, stride0=9)
    case = Case(b"", rng.integers(0, 60, image_bytes(N4), dtype=np.uint8)).with_program(program.to_bytes())
    counts = beats.every_beat(device, case, rng)
    assert counts == {"load": 22 + 10 + 3 * 2, "fetch": 5 * 8, "store": 2 + 1}


@pytest.mark.parametrize("kind", ["overwrite", "self_overwrite", "accesses", "silence_abort"])
def test_disturbed(kind, seed):
    moments.campaign(N4, runs=25, seed=seed, options=FAST, kinds=(kind,))


def test_programs_end_with_the_address_space():
    """The instruction behind the last byte of the address space is outside the window; none at address 0 runs."""
    config = replace(N4, address_width=20)
    size = 1 << config.address_width
    program = Program(config)
    for row in range(4):
        program.vector(0, to_vector=1, d=row, inner=1, outer=1)
    content = np.frombuffer(program.to_bytes(), np.uint8)
    for backend in EmulatorBackend, VerilatorBackend:
        device = backend(config, dram_bytes=size)
        for inside in range(1, 5):
            dram = np.zeros(size, np.uint8)
            dram[:content.size] = content       # where a device would go on that forgets the highest bit
            dram[size - inside * INSTRUCTION_BYTES:] = content[:inside * INSTRUCTION_BYTES]
            case = Case(content.tobytes(), dram, size - inside * INSTRUCTION_BYTES, window=(0, size))
            found = run(device, case)
            ends = (Fault.NONE, 0, 4) if inside == 4 else (Fault.WINDOW, FaultUnit.SEQUENCER, inside)
            assert (found["fault_code"], found["fault_unit"], found["instructions"]) == ends, backend
            assert inside == 4 or found["fault_instruction"] == inside
        device.close()


def test_every_address_and_strobe(device, rng):
    """All 4096 byte addresses with all 16 sets of strobes, and a read of each in between."""
    assert accesses.sweep(device, rng) == 2 * 4096 * 16


def test_accesses_overlap(device):
    """Data before its address and the other way round, responses that wait; reads go on meanwhile."""
    watchdog, identity = REGISTERS["watchdog"], REGISTERS["identity"]
    batch = [Access(True, watchdog.offset + 3, 0x11223344, 0b0101, (30, 0, 0)),
             Access(True, watchdog.offset, 0x55667788, 0b1000, (0, 40, 60)),
             Access(True, identity.offset, 0, 15),
             *(Access(False, identity.offset + at % 4) for at in range(20)), Access(False, watchdog.offset + 1)]
    device.access(batch)
    assert [one.response for one in batch] == [0, 0, 2, *[0] * 21]
    assert all(one.data == identity.reset for one in batch[3:23])
    first, second, third = (one.cycle for one in batch[:3])
    assert first >= 30 and second - first >= 40 and third - first >= 60
    assert all(one.cycle < second for one in batch[3:23])
    assert device.read_register(watchdog.offset) == (watchdog.reset & 0xFF00) | 0x55220044


def test_watch_counts_and_strikes(device, seed):
    """An error arrives where it is asked for, at the address that it belongs to, and nowhere else."""
    case = Generator(N4, seed, wide=False).case(6)
    ranges = Generator(N4, seed, wide=False).fields.regions
    for number in (0, 8, 5 * 8 + 7):
        watched = beats.strike(device, case, "fetch", number, number + 1, "DECERR", ranges)
        assert watched.struck == case.address + 4 * number
        assert device.read_register(REGISTERS["fault_instruction"].offset) == number // 8
        assert watched.fetched[:4 * number] == case.program[:4 * number]
    with pytest.raises(Mismatch, match="no such beat"):
        beats.strike(device, case, "fetch", 48, 49, "SLVERR", ranges)
    with pytest.raises(ValueError, match="stream must be one of load, fetch, store, not 'AR'"):
        device.watch("AR")


def test_lost_error_is_found(wrong, seed):
    """An error that does not arrive, and one that is reported for another instruction."""
    wrong(watch=lambda self, stream="load", first=0, end=0, *, response="SLVERR": VerilatorBackend.watch(self))
    with pytest.raises(campaign.Failure, match="error in (fetch|load) 0: there was no such beat"):
        beats.campaign(N4, runs=10, seed=seed, options=FAST)
    offset = REGISTERS["fault_instruction"].offset
    wrong(read_register=lambda self, at: VerilatorBackend.read_register(self, at) + (at == offset))
    with pytest.raises(campaign.Failure, match="reported"):
        beats.campaign(N4, runs=10, seed=seed, options=FAST)


def test_other_instructions_than_those_fetched_are_found(wrong, seed):
    def watched(self):
        found = VerilatorBackend.watched(self)
        return type(found)(found.counts, found.struck, found.fetched[:32] * (len(found.fetched) // 32))
    wrong(watched=watched)
    with pytest.raises(campaign.Failure, match="overwrite"):
        moments.campaign(N4, runs=20, seed=seed, options=FAST, kinds=("overwrite",))


def all_strobes(one):
    one.strobe = 15


def next_word(one):
    one.address ^= 0 if one.write else 4


@pytest.mark.parametrize("change", [all_strobes, next_word])
def test_wrong_accesses_are_found(wrong, change, seed):
    def access(self, batch):
        kept = [(one.address, one.strobe) for one in batch]
        for one in batch:
            change(one)
        VerilatorBackend.access(self, batch)
        for one, (address, strobe) in zip(batch, kept, strict=True):
            one.address, one.strobe = address, strobe
    wrong(access=access)
    with pytest.raises(campaign.Failure, match="accesses"):
        moments.campaign(N4, runs=10, seed=seed, options=FAST, kinds=("accesses",))


def test_silence_of_one_channel(device, rng):
    """No beat passes where the memory is silent, and all of them afterwards."""
    case = Generator(N4, 1, wide=False).case(4)
    for channel, stream in (("AR", "fetch"), ("R", "fetch")):
        device.stop_answering(channels=(channel,))
        start(device, case, device.watch)
        assert not device.wait_interrupt(1000)
        assert device.watched().counts[stream] == 0
        device.resume_answering()
        assert settle(device)["fault_code"] == 0
