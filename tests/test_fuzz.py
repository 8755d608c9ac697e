"""Random programs on RTL and emulator in short (`make fuzz` is the long way); the checks find mutations of the RTL."""

import re
from dataclasses import replace

import numpy as np
import pytest
from macaw.footprint import footprint
from macaw_hw import isa
from macaw_hw.config import named_config
from macaw_hw.isa import Opcode, Queue
from macaw_hw.registers import REGISTERS
from macaw_sim.backend import create_backend
from macaw_sim.emulator.program import Program as Decoded
from macaw_sim.emulator.synchronization import SynchronizationError
from macaw_sim.fuzz import campaign, moments
from macaw_sim.fuzz.case import DATA, Case, Local, Mismatch, compare, image_bytes, instructions, run
from macaw_sim.fuzz.coverage import Coverage, universe
from macaw_sim.fuzz.directed import LONG, STEADY, done_together, far_copies, sums_into_one_row, tiles_before_fault
from macaw_sim.fuzz.fields import Fields
from macaw_sim.fuzz.generator import Generator
from macaw_sim.fuzz.illegal import KINDS, illegal_case
from macaw_sim.fuzz.judge import Model, judge
from macaw_sim.fuzz.shrink import shrink
from macaw_sim.fuzz.tokens import add_tokens, synchronized, without
from macaw_sim.verilator.backend import VerilatorBackend
from macaw_sim.verilator.build import cached_verilog

N4 = named_config("n4")
FAST = {"read_latency": 5, "write_latency": 5, "stalls": 0.1}

# Module, signal, what it is instead, and the campaign that must notice.
MUTATIONS = [
    ("macaw.sequencer.tokens", "permit__2", "1'b1", "legal"),
    ("macaw.activation.quantizer", "largest", "running", "legal"),
    ("macaw.tile_memory.bank0", "skew1", "skew0", "legal"),
    ("macaw.matrix.streamer", "hazard", "1'b0", "legal"),
    ("macaw.activation", "behind", "1'b0", "legal"),
    ("macaw.activation", "follows", "1'b1", "legal"),
    ("macaw", "m_axi_wstrb", "~4'h0", "legal"),
    ("macaw.activation.quantizer", "outside", "1'b0", "illegal"),
    ("macaw.store", "window_limit", None, "window"),
]


def mutated():
    """One Verilog with all mutations: the top bits of the watchdog's limit choose one, 0 none."""
    text = cached_verilog(N4)
    for number, (module, signal, wrong, _) in enumerate(MUTATIONS, 1):
        chosen = f"(macaw.control.watchdog[31:28] == 4'd{number})"
        if wrong is None:
            pattern = rf"(\n  \\{re.escape(module)} +\S+ +\([^;]*?\.{signal}\()([^)]*)\)"
            text, count = re.subn(pattern, rf"\1\2 + {chosen})", text, count=1)
        else:
            pattern = rf"(module \\?{re.escape(module)} ?\((?:(?!endmodule).)*?\n  assign {signal} = )([^;]*);"
            text, count = re.subn(pattern, rf"\1{chosen} ? {wrong} : (\2);", text, count=1, flags=re.DOTALL)
        assert count, f"the Verilog has no {signal} in {module} any more: choose another mutation"
    return text


@pytest.fixture
def mutation(monkeypatch):
    """A function that lets all campaigns run on the mutation of some number."""
    def choose(number):
        class Mutated(VerilatorBackend):
            def write_register(self, offset, value):
                super().write_register(offset, value | (number << 28 if offset == REGISTERS["watchdog"].offset else 0))
        text = mutated()
        monkeypatch.setattr(campaign, "device", lambda config, seed, options, verilog: Mutated(
            config, dram_bytes=image_bytes(config), seed=seed, verilog=text, **options))
    return choose


@pytest.mark.parametrize("config, programs", [("n4", 60), ("n8", 20), ("n16", 12)])
def test_random_programs(config, programs, seed):
    campaign.legal(named_config(config), programs=programs, seed=seed)


@pytest.mark.parametrize("config, rounds", [("n4", 3), ("n16", 1)])
def test_illegal_programs(config, rounds, seed):
    coverage = Coverage(named_config(config))
    campaign.illegal(named_config(config), programs=rounds * len(KINDS), seed=seed, options=FAST, coverage=coverage,
                     overflow=config == "n4")
    assert coverage.hits["fault", "BUS_READ.SEQUENCER"] and coverage.hits["fault", "WATCHDOG.SEQUENCER"]


def test_fault_behind_thousands_of_instructions(seed):
    """All but the highest bits of the index in the report are 0 in one of them and 1 in another."""
    assert LONG[0][2] ^ LONG[1][2] == (1 << 15) - 1
    campaign.illegal(N4, programs=0, seed=seed, options=FAST, overflow=False, long=LONG[:2])


def test_copies_in_a_large_memory(rng):
    device = VerilatorBackend(N4, dram_bytes=64 << 20, merge=False, **FAST)
    far_copies(device, rng, 60)
    device.close()


def test_sums_tiles_and_ends(rng):
    """What random programs reach too seldom; `done_together` has itself found four ends in one cycle."""
    device = VerilatorBackend(N4, dram_bytes=1 << 20, **STEADY)
    sums_into_one_row(device, rng)
    tiles_before_fault(device)
    device.reset()
    case = done_together(N4)
    assert run(device, case)["instructions"] == 4
    device.close()


def test_every_rule_of_the_instruction_set(seed):
    """Every reserved bit, unknown code and count of zero; counts with a single bit set, which break no rule; and every
    limit of `macaw_sim.fuzz.limits`."""
    coverage = Coverage(N4)
    campaign.illegal(N4, programs=0, seed=seed, options=FAST, overflow=False, rules=True, coverage=coverage)
    assert coverage.hits["fault", "ILLEGAL_INSTRUCTION.SEQUENCER"] > 150
    assert coverage.hits["length", "2-15"] > 60


def test_many_tiles_of_one_row():
    """Their descriptions once overflowed the quantizer: the next tile got the rows of a lost one."""
    config = named_config("n16")
    many = isa.encode(Opcode.VECTOR, op=1, scalar=0x3F800000, to_tile=1, tile=3, inner=1, outer=200)
    one = isa.encode(Opcode.VECTOR, op=1, scalar=0x40400000, to_tile=1, tile=5, inner=1, outer=1)
    state = Generator(config, 1).state
    case = Case(b"", state.dram.copy(), local=Local.of(state)).with_program(many + one)
    device = campaign.device(config, 1, FAST)
    try:
        judge(device, case)
    finally:
        device.close()


def test_disturbed_programs(seed):
    moments.campaign(N4, runs=80, seed=seed, options=FAST)


def test_without_mutation_nothing_is_found(mutation, seed):
    mutation(0)
    campaign.legal(N4, programs=10, seed=seed)
    campaign.illegal(N4, programs=6, seed=seed, options=FAST, kinds=("local", "window_edge"), overflow=False)


@pytest.mark.parametrize("number", range(1, len(MUTATIONS) + 1))
def test_mutation_is_found(mutation, number, seed):
    mutation(number)
    how = MUTATIONS[number - 1][-1]
    with pytest.raises(campaign.Failure):
        if how == "legal":
            campaign.legal(N4, programs=60, seed=seed, length=30, save=False)
        else:
            kinds = ("window_edge",) if how == "window" else ("local",)
            campaign.illegal(N4, programs=150, seed=seed, options=FAST, kinds=kinds, overflow=False, save=False)


def test_failure_is_shrunk_saved_and_replayed(mutation, seed, tmp_path, monkeypatch):
    number = 1 + [signal for _, signal, _, _ in MUTATIONS].index("largest")
    mutation(number)
    monkeypatch.setattr(campaign, "output_directory", lambda *parts: tmp_path)
    with pytest.raises(campaign.Failure) as failure:
        campaign.legal(N4, programs=60, seed=seed, length=30, options=FAST)
    path = failure.value.path
    case, about = Case.load(path)
    assert about["seed"] >= seed
    # The quantizer loses the last row's maximum: at most what writes the tile, and what reads it.
    assert len(instructions(case.program)) <= 4
    assert Queue.VECTOR in {isa.decode(one)[0].queue for one in instructions(case.program)}
    assert campaign.replay(path)
    monkeypatch.undo()
    assert campaign.replay(path) is None


def test_same_seed_same_programs():
    first, second, third = Generator(N4, 5), Generator(N4, 5), Generator(N4, 6)
    for _ in range(3):
        one, two, other = first.case(), second.case(), third.case()
        assert one.program == two.program and (one.dram == two.dram).all()
        assert one.program != other.program


def test_narrow_programs_touch_known_rows_only(seed):
    """The judge fills just the regions of a narrow generator; a VECTOR that follows another once read beside them."""
    generator = Generator(N4, seed, wide=False)
    for _ in range(40):
        for one in instructions(generator.case(20).program):
            touched = footprint(*isa.decode(one), N4)
            for kind, places in (("row", (touched.rows_read, touched.rows_written)),
                                 ("tile", (touched.tiles_read, touched.tiles_written))):
                for place in {*places[0].tolist(), *places[1].tolist()}:
                    assert any(first <= place < beyond for first, beyond in generator.fields.regions[kind])


def test_transfers_stay_within_the_data(rng):
    """A LOAD of thousands of runs once went below the data and read the program, wherever that was."""
    fields = Fields(N4, rng, wide=True)
    for _ in range(20_000):
        drawn = fields.draw(Opcode.LOAD)
        if drawn:
            low = sum(min(0, (drawn[f"count{i}"] - 1) * drawn[f"stride{i}"]) for i in range(isa.LOOPS))
            assert drawn["address"] + low >= DATA


def test_more_tokens_keep_the_order(rng, seed):
    generator = Generator(N4, seed, wide=False)
    for _ in range(30):
        program = synchronized(generator.case(30).program, N4)
        more = add_tokens(program, rng, 100)
        assert sum(map(int.bit_count, more)) > sum(map(int.bit_count, program))
        decoded = Decoded(more, N4)
        decoded.check()
        assert decoded.schedule.fault == 0 and len(decoded.schedule.order) == 30


def test_tokens_go_with_their_instruction():
    load = isa.encode(Opcode.LOAD, run=1, post=1 << Queue.STORE)
    store = isa.encode(Opcode.STORE, run=1, wait=1 << Queue.LOAD)
    assert without(load + store, {0}) == isa.encode(Opcode.STORE, run=1)
    assert without(load + store, {1}) == isa.encode(Opcode.LOAD, run=1)
    assert without(load + load + store, {1}) == load + store


def test_shrink_keeps_what_fails():
    def fill(row):
        return isa.encode(Opcode.VECTOR, op=1, to_vector=1, d=row, inner=4, outer=1, d_inner=1)
    case = Case(b"", np.zeros(1 << 12, np.uint8)).with_program(b"".join(map(fill, range(0, 80, 4))))

    def fails(candidate):
        rows = [isa.decode(one)[1]["d"] for one in instructions(candidate.program)]
        return 8 in rows and 40 in rows
    small = shrink(N4, case, fails)
    assert [(isa.decode(one)[1]["d"], isa.decode(one)[1]["inner"]) for one in instructions(small.program)] == [
        (8, 1), (40, 1)]


def two_faults(first, second):
    dram = np.zeros(1 << 20, np.uint8)
    return Model(N4, Case(b"", dram).with_program(first + second)).expect()


def test_model_allows_only_faults_that_race():
    beyond = N4.vector_rows
    load = isa.encode(Opcode.LOAD, run=4, local=beyond)
    vector = dict(op=1, to_vector=1, d=beyond, inner=1, outer=1)
    free = two_faults(load, isa.encode(Opcode.VECTOR, **vector))
    assert {index for _, _, index in free.reports} == {0, 1}
    ordered = two_faults(isa.encode(Opcode.LOAD, run=4, local=beyond, post=1 << Queue.VECTOR),
                         isa.encode(Opcode.VECTOR, wait=1 << Queue.LOAD, **vector))
    assert {index for _, _, index in ordered.reports} == {0}
    hidden = two_faults(load, bytes(32))
    assert {code.name for code, _, _ in hidden.reports} == {"LOCAL_ADDRESS"}


def test_model_refuses_races():
    store = isa.encode(Opcode.STORE, run=4, address=0x1000)
    with pytest.raises(SynchronizationError):
        two_faults(isa.encode(Opcode.LOAD, run=4), store)


def test_model_notices_memory_that_nothing_writes():
    case = Case(b"", np.zeros(1 << 20, np.uint8)).with_program(isa.encode(Opcode.STORE, run=4, address=0x1000))
    final = case.dram.copy()
    final[0x0FFF] = 1
    assert Model(N4, case).expect(final).wrong.tolist() == [0x0FFF]


def test_coverage_names_what_is_missing():
    coverage = Coverage(N4)
    coverage.hit("crossing", "LOAD", "4 KiB")
    assert coverage.missing()["crossing"] == ["STORE.4 KiB"]
    assert "never: crossing: STORE.4 KiB" in coverage.report()
    with pytest.raises(KeyError):
        coverage.hit("crossing", "MATRIX", "4 KiB")
    assert all(len(set(names)) == len(names) for names in universe(N4).values())


def test_wrong_registers_are_a_mismatch():
    devices = [create_backend("emulator", N4, dram_bytes=1 << 20) for _ in range(2)]
    case = Generator(N4, 1).case(5)
    devices[1].inject_error(0, 1 << 20)
    devices[1].clear_errors = lambda: None
    with pytest.raises(Mismatch, match="registers differ"):
        compare(*devices, case)


def test_the_same_fault_on_both_is_a_mismatch():
    """A program that faults was not legal, or both are wrong."""
    devices = [create_backend("emulator", N4, dram_bytes=1 << 20) for _ in range(2)]
    case = replace(Generator(N4, 1).case(5), window=(0, 32))
    with pytest.raises(Mismatch, match="a legal program ends with a fault on both: .*'fault_code': 3"):
        compare(*devices, case)


def test_two_changes_in_one_instruction(seed):
    """A row that there is not and a window that ends within the same STORE; the device reports one of them."""
    generator = Generator(N4, seed, wide=False)
    both = 0
    for _ in range(40):
        case = illegal_case(generator, "twice", 8)
        both += any(len({code for code, _, at in Model(N4, case).expect().reports if at == index}) > 1
                    for index in range(8))
    assert both > 5
