"""The program builder: tokens, footprints, errors, text; memory allocation and the panel cache."""

import numpy as np
import pytest
from macaw.disassembler import disassemble
from macaw.footprint import footprint
from macaw.memory import Allocator, OutOfMemory, Panel, rows_cache, tiles_cache
from macaw.program import Program
from macaw_hw import isa
from macaw_hw.config import Config, named_config
from macaw_hw.isa import DataFormat, Queue, VectorOp
from macaw_sim.emulator.device import Emulator
from macaw_sim.emulator.vector import Vector

N4 = named_config("n4")
SMALL = Config(size=4, vector_bank_rows=64, tile_bank_tiles=8, queue_depth=2)


def fields_of(program):
    content = program.to_bytes()
    return [isa.decode(content[i:i + 32])[1] for i in range(0, len(content), 32)]


def tokens_of(program):
    return [(f["wait"], f["post"]) for f in fields_of(program)]


def bit(*queues):
    return sum(1 << queue for queue in queues)


def test_read_after_write_waits_once():
    program = Program(N4)
    program.load(format=DataFormat.FLOAT32, address=4096, local=0, run=16)
    program.vector(VectorOp.ADD, a=0, b=2, d=8, inner=2, to_vector=1)
    program.vector(VectorOp.ADD, a=0, b=2, d=10, inner=2, to_vector=1)
    assert tokens_of(program) == [(0, bit(Queue.VECTOR)), (bit(Queue.LOAD), 0), (0, 0)]


def test_write_after_read_and_write_after_write_wait():
    program = Program(N4)
    program.vector(VectorOp.MOVE, a=0, d=8, inner=4, to_vector=1)
    program.load(format=DataFormat.FLOAT32, address=4096, local=3, run=4)     # over what MOVE reads
    program.load(format=DataFormat.FLOAT32, address=4096, local=11, run=4)    # over what MOVE writes: already known
    program.load(format=DataFormat.FLOAT32, address=4096, local=12, run=4)    # nobody's
    assert tokens_of(program) == [(0, bit(Queue.LOAD)), (bit(Queue.VECTOR), 0), (0, 0), (0, 0)]


def test_independent_instructions_have_no_tokens():
    program = Program(N4)
    program.load(format=DataFormat.BFP8, address=4096, local=0, run=2)
    program.vector(VectorOp.FILL, d=0, inner=2, to_vector=1)
    program.matrix(rows=4, k_tiles=1, x=4, w=5, y=100)
    program.store(format=DataFormat.BFP8, address=8192, local=6, run=1)
    assert tokens_of(program) == [(0, 0)] * 4


def test_order_known_through_another_queue_costs_no_token():
    program = Program(N4)
    program.load(format=DataFormat.FLOAT32, address=4096, local=0, run=4)
    program.vector(VectorOp.MOVE, a=0, d=1, inner=1, to_vector=1)
    # Reads what the vector unit wrote; and overwrites memory that the load has read.
    program.store(format=DataFormat.FLOAT32, address=4096, local=1, run=4)
    assert tokens_of(program) == [(0, bit(Queue.VECTOR)), (bit(Queue.LOAD), bit(Queue.STORE)), (bit(Queue.VECTOR), 0)]


def test_one_instruction_waits_for_two_queues():
    program = Program(N4)
    program.load(format=DataFormat.BFP8, address=4096, local=0, run=1)
    program.vector(VectorOp.FILL, tile=1, inner=4, to_tile=1)
    program.matrix(rows=4, k_tiles=1, x=0, w=1, y=0)
    assert tokens_of(program)[2] == (bit(Queue.LOAD, Queue.VECTOR), 0)


@pytest.mark.parametrize("gap, waits", [(0, True), (15, True), (16, False)])
def test_memory_conflicts_to_the_byte(gap, waits):
    program = Program(N4)
    program.store(format=DataFormat.FLOAT32, address=4096, local=0, run=4)
    program.load(format=DataFormat.UINT8, address=4096 + gap, local=9, run=1)
    assert tokens_of(program)[1][0] == (bit(Queue.STORE) if waits else 0)


def test_random_programs_are_synchronized(rng):
    """The emulator has its own, independent check: it raises for any pair of unordered conflicting accesses."""
    dram = np.zeros(1 << 16, dtype=np.uint8)
    for _ in range(10):
        program = Program(SMALL)
        for _ in range(60):
            row, other = (int(v) for v in rng.integers(0, 250, 2))
            address = 4096 + int(rng.integers(0, 300))
            match int(rng.integers(0, 6)):
                case 0:
                    program.load(format=DataFormat.UINT8, address=address, local=row, run=4, count0=2, stride0=40)
                case 1:
                    program.load(format=DataFormat.BFP8, address=4096, local=row % 16, run=1)
                case 2:
                    program.store(format=DataFormat.FLOAT32, address=address, local=row, run=9)
                case 3:
                    program.matrix(rows=6, k_tiles=2, x=row % 12, x_row_stride=1, x_k_stride=2, w=other % 14,
                                   w_k_stride=1, y=row, accumulate=other & 1)
                case 4:
                    program.vector(VectorOp.MIN_SCALAR, scalar=1.0, a=other, tile=row % 14, inner=5, to_tile=1)
                case 5:
                    program.vector(VectorOp.MAX, a=row, b=row, shuffle=1, d=row, inner=3, to_vector=1)
        dram[4096:4096 + len(program.to_bytes())] = 0
        content = program.to_bytes()
        dram[32768:32768 + len(content)] = np.frombuffer(content, dtype=np.uint8)
        emulator = Emulator(SMALL, dram, check=True)
        emulator.state.window = 4096, 65536
        assert emulator.run(32768, len(program)).fault == isa.Fault.NONE


def test_missing_token_is_caught(rng):
    """The check in the test above can fail: without its tokens, the same program is refused."""
    from macaw_sim.emulator.synchronization import SynchronizationError
    program = Program(SMALL)
    program.load(format=DataFormat.FLOAT32, address=4096, local=0, run=4)
    program.vector(VectorOp.MOVE, a=0, d=1, inner=1, to_vector=1)
    stripped = [isa.encode(f.pop("opcode"), **{**f, "wait": 0, "post": 0}) for f in fields_of(program)]
    dram = np.zeros(1 << 16, dtype=np.uint8)
    dram[32768:32768 + 64] = np.frombuffer(b"".join(stripped), dtype=np.uint8)
    emulator = Emulator(SMALL, dram, check=True)
    emulator.state.window = 4096, 65536
    with pytest.raises(SynchronizationError):
        emulator.run(32768, 2)


@pytest.mark.parametrize("emit, message", [
    (lambda p: p.load(format=DataFormat.FLOAT32, address=0, local=2047, run=5),
     "vector row must be from 0 to 2047, not 2048"),
    (lambda p: p.matrix(rows=4, k_tiles=2, x=0, w=0, w_k_stride=-1, y=0), "tile must be from 0 to 1023, not -1"),
    (lambda p: p.matrix(rows=0, k_tiles=1, x=0, w=0, y=0), "MATRIX: rows must be at least 1"),
    (lambda p: p.vector(VectorOp.ADD, a=0, inner=5000, to_vector=1), "VECTOR field inner must be from 0 to 4095"),
    (lambda p: p.vector(VectorOp.ADD, inner=1), "VECTOR: a result must go to_vector or to_tile"),
])
def test_wrong_instructions_are_refused(emit, message):
    program = Program(N4)
    with pytest.raises(ValueError, match=message):
        emit(program)
    assert len(program) == 0


def test_footprint_of_dma_counts_padding_and_joins_runs():
    program = Program(N4)
    program.load(format=DataFormat.UINT8, address=4096, local=10, run=6, count0=3, stride0=6, count1=2, stride1=100)
    touched = footprint(isa.LOAD, fields_of(program)[0], N4)
    assert touched.rows_written.tolist() == list(range(10, 22))
    assert touched.memory_read == ((4096, 4114), (4196, 4214))
    packed = Program(N4)
    packed.store(format=DataFormat.FLOAT32, address=4096, local=0, run=3, count0=3, stride0=64, pack=1)
    touched = footprint(isa.STORE, fields_of(packed)[0], N4)
    assert touched.rows_read.tolist() == [0, 1, 2]
    assert touched.memory_written == ((4096, 4108), (4160, 4172), (4224, 4236))


def test_text_names_operands_and_tokens():
    program = Program(N4)
    program.load(format=DataFormat.BFP8, address=0x1000, local=3, run=2)
    program.matrix(rows=8, k_tiles=2, x=3, x_k_stride=1, w=4, y=7, w_transpose=1, accumulate=1)
    program.vector(VectorOp.SCALE_ADD, scalar=-0.5, a=7, b=20, d=20, inner=8, to_vector=1)
    assert program.disassemble().splitlines() == [
        "     0  LOAD   BFP8 [0x1000] run 2, tile 3; then matrix",
        "     1  MATRIX row 7+1*i += tile 3+1*k . tile 4^T, rows 8, k 2; after load then vector",
        "     2  VECTOR SCALE_ADD, a=row 7+1*i, b=row 20+1*i, d=row 20+1*i, s=-0.5, 1 x 8; after matrix"]
    assert disassemble(bytes(32)).startswith("illegal: opcode must be one of")


def test_program_is_the_same_every_time():
    def build():
        program = Program(N4)
        for i in range(50):
            program.load(format=DataFormat.FLOAT32, address=4096, local=4 * i, run=16)
            program.vector(VectorOp.ADD, a=4 * i, b=0, d=400, inner=4, to_vector=1)
        return program.to_bytes()
    assert build() == build()


def test_allocator_prefers_places_not_used_lately():
    allocator = Allocator("row", 2, 8)
    both = range(2)
    assert [allocator.allocate(3, both) for _ in range(3)] == [0, 3, 6]
    allocator.free(0, 3)
    assert allocator.allocate(3, both) == 9
    assert allocator.allocate(2, both, long=True) == 14
    assert allocator.allocate(4, both) is None
    assert allocator.allocate(3, range(1, 2)) is None
    assert allocator.available(both) == 5
    with pytest.raises(ValueError, match="row 0 to 2 are not all allocated"):
        allocator.free(0, 3)


def test_cache_loads_spills_and_reloads():
    program = Program(SMALL)
    tiles = tiles_cache(program)
    banks = range(0, 1)
    panels = [Panel(("p", i), 3, 4096 + 1000 * i, banks, pieces=3 if i == 0 else 1) for i in range(3)]
    assert tiles.get(panels[0]) == 0 and len(program) == 3          # in three pieces
    assert tiles.get(panels[0]) == 0 and len(program) == 3          # resident
    place = tiles.create(panels[1])
    assert len(program) == 3                                        # created, not loaded
    tiles.get(panels[0])
    assert tiles.get(panels[2]) == 0                                # evicts panel 0, which need not be stored
    assert not tiles.resident(panels[0]) and tiles.resident(panels[1])
    with tiles.use(panels[2]):
        tiles.get(panels[0])                                        # evicts panel 1, which is dirty
    kinds = [(isa.Opcode(f["opcode"]), f["address"], f["local"]) for f in fields_of(program)]
    assert kinds[3] == (isa.Opcode.LOAD, 6096, 0)
    assert kinds[4] == (isa.Opcode.STORE, 5096, place)
    assert [kind for kind, *_ in kinds[5:]] == 3 * [isa.Opcode.LOAD]
    assert not tiles.resident(panels[1]) and tiles.resident(panels[0])


def test_cache_keeps_what_is_pinned_and_says_when_all_is():
    program = Program(SMALL)
    rows = rows_cache(program)
    bank = range(0, 1)
    first, second = (Panel((i,), 40, 4096 * (i + 1), bank) for i in range(2))
    with rows.use(first), pytest.raises(OutOfMemory, match="40 vector rows are needed at once, but only 24 of 64"):
        rows.get(second)
    rows.get(second)
    assert not rows.resident(first)


def test_cache_gives_up_first_what_is_needed_last():
    tiles = tiles_cache(Program(SMALL))
    panels = [Panel((i,), 2, 4096 * (i + 1), range(0, 1)) for i in range(6)]
    for panel in panels[:4]:
        tiles.get(panel)
    assert tiles.allocator.available(range(0, 1)) == 0
    for panel, turn in ((panels[1], 1), (panels[2], 3), (panels[3], 2)):
        tiles.later(panel, turn)
    gone = []
    for panel in panels[4:]:
        tiles.get(panel)
        gone += [i for i in range(4) if not tiles.resident(panels[i]) and i not in gone]
    assert gone == [2, 3]
    tiles.get(panels[1])                        # used: no turn any more
    tiles.get(panels[2])                        # evicts panel 0, which was not used for longest
    assert [i for i in range(6) if tiles.resident(panels[i])] == [1, 2, 4, 5]


def test_estimate_of_operands_in_one_bank():
    depth = N4.vector_bank_rows

    def estimate(a, b, op=VectorOp.ADD):
        return Program(N4).vector(op, a=a, b=b, d=0, inner=16, to_vector=1)
    assert estimate(0, 16) - estimate(0, depth) == 16
    assert estimate(0, 0) == estimate(0, depth) == estimate(0, 16, VectorOp.MOVE)


def chains_of(*vectors):
    """Whether each of some (a, d, inner, other fields) is chained to the one before."""
    program = Program(N4)
    for a, d, inner, *others in vectors:
        program.vector(VectorOp.MOVE, a=a, d=d, inner=inner, **{"to_vector": 1, **(others[0] if others else {})})
        program.load(format=DataFormat.FLOAT32, address=4096, local=200, run=16)
    return [f["chain"] for f in fields_of(program) if f["opcode"] == isa.Opcode.VECTOR]


def test_vector_instructions_are_chained_where_no_row_is_read_too_early():
    assert chains_of((0, 8, 4), (8, 16, 4), (16, 16, 4), (16, 24, 8)) == [0, 1, 1, 1]
    assert chains_of((0, 8, 4), (9, 16, 2), (0, 24, 1)) == [0, 0, 1]
    assert chains_of((0, 8, 4), (7, 16, 4)) == [0, 1]
    assert chains_of((0, 8, 4), (11, 16, 4, {"a_inner": -1})) == [0, 0]
    assert chains_of((0, 8, 4, {"d_inner": -1}), (8, 16, 4, {"a_inner": -1})) == [0, 1]
    assert chains_of((0, 8, 4), (8, 16, 4, {"chain": 0})) == [0, 0]
    assert chains_of((0, 8, 4, {"to_vector": 0, "to_tile": 1}), (11, 16, 4, {"a_inner": -1})) == [0, 1]
    # Panels: the rows of the second are written after those of the first.
    panels = {"outer": 2, "a_outer": 8, "d_outer": 8}
    assert chains_of((0, 32, 4, panels), (32, 64, 4), (32, 96, 4, panels)) == [0, 1, 1]
    assert chains_of((0, 32, 4, panels), (40, 64, 4)) == [0, 0]


def test_random_chains_are_as_the_emulator_wants_them(rng):
    chained = 0
    for _ in range(300):
        program = Program(SMALL)
        for _ in range(2):
            strides = {f"{x}_{loop}": int(rng.integers(-2, 3)) for x in "ad" for loop in ("inner", "outer")}
            program.vector(VectorOp.MOVE, a=int(rng.integers(24, 40)), d=int(rng.integers(24, 40)),
                           inner=int(rng.integers(1, 5)), outer=int(rng.integers(1, 4)), to_vector=1, **strides)
        first, second = (Vector(fields | {"chain": 1}, SMALL) for fields in fields_of(program))
        assert fields_of(program)[1]["chain"] == (second.overtakes(first) is None)
        chained += fields_of(program)[1]["chain"]
    assert 0 < chained < 300
