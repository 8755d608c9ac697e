"""Queues, tokens, and the check for missing synchronization."""

import itertools
import random

import pytest
from macaw_hw import isa
from macaw_hw.config import Config
from macaw_hw.isa import DataFormat, Fault, Opcode, Queue, VectorOp
from macaw_sim.emulator import SynchronizationError, describe
from macaw_sim.emulator.program import Program
from macaw_sim.emulator.schedule import Header, schedule

CONFIG = Config(size=4, vector_bank_rows=64, queue_depth=4)
L, M, V, S = (1 << queue for queue in Queue)


def load(local, rows=1, address=0x1000, **fields):
    return isa.encode(Opcode.LOAD, address=address, local=local, run=4 * rows, **fields)


def store(local, rows=1, address=0x2000, **fields):
    return isa.encode(Opcode.STORE, address=address, local=local, run=4 * rows, **fields)


def move(a, d, rows=1, **fields):
    return isa.encode(Opcode.VECTOR, op=VectorOp.MOVE, to_vector=1, a=a, d=d, a_inner=1, d_inner=1, inner=rows,
                      outer=1, **fields)


def quantize(a, tile, **fields):
    return isa.encode(Opcode.VECTOR, op=VectorOp.MOVE, to_tile=1, a=a, a_inner=1, inner=4, outer=1, tile=tile, **fields)


def matrix(x, w, y, **fields):
    return isa.encode(Opcode.MATRIX, rows=4, k_tiles=1, x=x, w=w, y=y, y_stride=1, **fields)


def load_tile(tile, **fields):
    return isa.encode(Opcode.LOAD, format=DataFormat.BFP8, address=0x3000, local=tile, run=1, **fields)


def check(*program):
    Program(b"".join(program), CONFIG).check()


def conflict(*program):
    with pytest.raises(SynchronizationError) as caught:
        check(*program)
    return caught.value


def test_message_names_both_instructions_and_the_place():
    error = conflict(load(10, rows=3), move(12, 50), store(50))
    assert error.instructions == (0, 1)
    assert str(error) == (
        "instruction 1 (VECTOR MOVE to_vector=1 a=12 d=50 a_inner=1 d_inner=1 inner=1 outer=1) reads vector row 12, "
        "which instruction 0 (LOAD FLOAT32 address=0x1000 local=10 run=12) writes. No token orders them: the one "
        "that must be first has to post a token that the other waits for.")


@pytest.mark.parametrize(("program", "place"), [
    ([load(10), store(10)], "reads vector row 10, which instruction 0"),
    ([load(10), move(20, 10)], "writes vector row 10, which instruction 0"),
    ([move(10, 20), load(10)], "writes vector row 10, which instruction 0"),
    ([move(10, 20), store(20)], "reads vector row 20"),
    ([matrix(0, 1, 40), store(43)], "reads vector row 43"),
    ([store(43), matrix(0, 1, 40)], "writes vector row 43"),
    ([matrix(0, 1, 40), load(40)], "writes vector row 40"),
    ([quantize(0, 5), matrix(5, 1, 40)], "reads tile 5"),
    ([quantize(0, 5), matrix(1, 5, 40)], "reads tile 5"),
    ([matrix(0, 5, 40), load_tile(5)], "writes tile 5"),
    ([quantize(0, 5), load_tile(5)], "writes tile 5"),
    ([store(0, address=0x1004), load(8, address=0x100C)], "reads memory 0x100c"),
    ([load(8, rows=9, address=0x1000), store(0, address=0x1081)], "writes memory 0x1081"),
])
def test_conflicts_without_token(program, place):
    assert place in str(conflict(*program))


@pytest.mark.parametrize("program", [
    [store(10), move(10, 20), quantize(8, 1)],
    [load(10), load(10), move(20, 21), move(21, 22)],
    [load(10), store(11)],
    [matrix(0, 1, 40), quantize(0, 5), load_tile(6), store(44)],
    [store(0, address=0x1004), load(8, address=0x1014)],
    [load(8, address=0x1000), move(0, 1), store(50, address=0x1010, count0=3, stride0=32)],
    [load(10, post=V), move(10, 20, wait=L, post=S), store(20, wait=V)],
    [load(10, post=V), move(10, 20, wait=L, post=S), store(10, wait=V)],  # through a third queue
    [load(10), load(99, post=V), move(10, 20, wait=L)],  # the later load is done after the earlier one
    [load(10, post=V), move(98, 99, wait=L), move(10, 20)],  # a later instruction knows what an earlier one waited for
    [load(10, wait=V), move(10, 20, post=L)],  # the reader comes first although it is later in the program
])
def test_ordered_programs_pass(program):
    check(*program)


@pytest.mark.parametrize("program", [
    [load(10, post=V), load(11), move(11, 20, wait=L)],  # the token is of the load before
    [load(10, post=V), move(99, 20), move(10, 21), move(98, 22, wait=L)],  # waits too late
    [load(10, post=V), move(10, 20, wait=L), load(10)],  # back again without a token
    [load(10, post=M | V), matrix(0, 1, 40, wait=L), move(40, 50, wait=L)],
])
def test_tokens_of_the_wrong_instruction(program):
    conflict(*program)


def test_hazards_inside_an_instruction():
    assert str(conflict(matrix(0, 1, 40), isa.encode(Opcode.MATRIX, rows=2, k_tiles=1, x=0, w=0, y=9))).startswith(
        "instruction 1 (MATRIX rows=2 k_tiles=1 y=9) accumulates more than once per pass into vector row 9")
    check(isa.encode(Opcode.MATRIX, rows=1, k_tiles=3, y=9))
    assert "reads vector row 11 after writing it in an earlier iteration" in str(conflict(move(10, 11, rows=3)))
    check(move(11, 10, rows=3))
    check(move(10, 10, rows=3))
    broadcast = dict(op=VectorOp.ADD, to_vector=1, a=3, b=7, d=4, d_inner=1, outer=1)
    check(isa.encode(Opcode.VECTOR, inner=4, **broadcast))  # row 7 is written last
    assert "reads vector row 7 " in str(conflict(isa.encode(Opcode.VECTOR, inner=5, **broadcast)))
    check(isa.encode(Opcode.VECTOR, inner=5, **broadcast | dict(op=VectorOp.ADD_SCALAR)))  # b is not read
    check(isa.encode(Opcode.VECTOR, inner=5, **broadcast | dict(to_vector=0, to_tile=1)))  # d is not written


def test_error_is_raised_again_and_does_not_look_beyond_a_fault():
    program = Program(load(10) + store(10), CONFIG)
    for _ in range(2):
        with pytest.raises(SynchronizationError):
            program.check()
    check(load(300), load(10), store(10))  # the first ends the program


def test_describe_leaves_out_defaults():
    assert describe(load(3, count1=2, stride1=-64, wait=S)) == (
        "LOAD FLOAT32 wait=8 address=0x1000 local=3 run=4 count1=2 stride1=-64")


def happens_before(headers):
    """All pairs (i, j) where i is done before j starts, as the closure of the rules of queues and tokens."""
    n = len(headers)
    edges = {("start", i): {("done", i)} for i in range(n)} | {("done", i): set() for i in range(n)}
    for queue in Queue:
        mine = [i for i in range(n) if headers[i].queue == queue]
        for first, second in itertools.pairwise(mine):
            edges["start", first].add(("start", second))
            edges["done", first].add(("done", second))
        for target in Queue:
            posts = [i for i in mine if headers[i].post >> target & 1]
            waits = [i for i in range(n) if headers[i].queue == target and headers[i].wait >> queue & 1]
            for i, j in zip(posts, waits, strict=False):
                edges["done", i].add(("start", j))
    pairs = set()
    for i in range(n):
        reached, todo = set(), [("done", i)]
        while todo:
            for event in edges[todo.pop()] - reached:
                reached.add(event)
                todo.append(event)
        pairs |= {(i, j) for kind, j in reached if kind == "start"}
    return pairs


def test_check_finds_exactly_the_unordered_conflicts(seed):
    """Random programs against the transitive closure of the order, over sets of rows."""
    choice = random.Random(seed)
    outcomes = {True: 0, False: 0}
    for _ in range(1500):
        program, headers, touched = [], [], []
        for _ in range(choice.randint(2, 14)):
            queue = choice.choice([Queue.LOAD, Queue.VECTOR, Queue.STORE])
            others = [1 << q for q in (Queue.LOAD, Queue.VECTOR, Queue.STORE) if q != queue]
            tokens = {name: sum(bit for bit in others if choice.random() < likely)
                      for name, likely in (("wait", 0.3), ("post", 0.6))}
            a, d, rows = choice.randrange(0, 20), choice.randrange(24, 40), choice.randint(1, 4)
            a, d = choice.choice([(a, d), (d, a)])
            if queue == Queue.LOAD:
                program.append(load(d, rows, **tokens))
                touched.append((set(), set(range(d, d + rows))))
            elif queue == Queue.STORE:
                program.append(store(a, rows, **tokens))
                touched.append((set(range(a, a + rows)), set()))
            else:
                program.append(move(a, d, rows, **tokens))
                touched.append((set(range(a, a + rows)), set(range(d, d + rows))))
            headers.append(Header(queue, tokens["wait"], tokens["post"]))
        done = schedule(headers, CONFIG.queue_depth).order
        ordered = happens_before(headers)
        unordered = {
            (i, j) for i, j in itertools.combinations(sorted(done), 2)
            if headers[i].queue != headers[j].queue and not {(i, j), (j, i)} & ordered
            and (touched[i][1] & (touched[j][0] | touched[j][1]) or touched[j][1] & touched[i][0])}
        try:
            check(*program)
            found = None
        except SynchronizationError as error:
            found = tuple(sorted(error.instructions))
        assert (found in unordered) if unordered else found is None
        outcomes[bool(unordered)] += 1
    assert min(outcomes.values()) > 100, outcomes


def test_schedule_is_legal_and_as_long_as_any(seed):
    """Queues and tokens leave no choice of which instructions run: random orders end with the same set."""
    choice = random.Random(seed)
    stuck = 0
    for _ in range(1000):
        headers = [Header(queue, sum(1 << q for q in Queue if q != queue and choice.random() < 0.15),
                          sum(1 << q for q in Queue if q != queue and choice.random() < 0.25))
                   for queue in choice.choices(list(Queue), k=choice.randint(0, 30))]
        depth = choice.choice([2, 4])
        result = schedule(headers, depth)
        queues, tokens = {queue: [] for queue in Queue}, dict.fromkeys(itertools.product(Queue, Queue), 0)
        fetched, done = 0, []
        while True:
            ready = [queue for queue in Queue if queues[queue] and all(
                tokens[q, queue] for q in Queue if headers[queues[queue][0]].wait >> q & 1)]
            fetch = fetched < len(headers) and len(queues[headers[fetched].queue]) < depth
            if not ready and not fetch:
                break
            if fetch and (not ready or choice.random() < 0.5):
                queues[headers[fetched].queue].append(fetched)
                fetched += 1
                continue
            queue = choice.choice(ready)
            done.append(queues[queue].pop(0))
            for q in Queue:
                tokens[q, queue] -= headers[done[-1]].wait >> q & 1
                tokens[queue, q] += headers[done[-1]].post >> q & 1
        assert sorted(result.order) == sorted(done)
        left = set(range(len(headers))) - set(done)
        assert (result.fault, result.at) == ((Fault.WATCHDOG, min(left)) if left else (Fault.NONE, 0))
        stuck += bool(left)
    assert 0 < stuck < 1000     # both kinds were seen


def test_a_full_queue_blocks_what_comes_behind():
    # The load waits for the vector instruction, which comes behind as many loads as the queue holds.
    waits = [Header(Queue.LOAD, V, 0)] + [Header(Queue.LOAD, 0, 0)] * 3
    assert schedule([*waits, Header(Queue.VECTOR, 0, L)], depth=4).fault == Fault.NONE
    result = schedule([*waits, Header(Queue.LOAD, 0, 0), Header(Queue.VECTOR, 0, L)], depth=4)
    assert (result.order, result.fault, result.at) == ([], Fault.WATCHDOG, 0)


def test_more_tokens_than_a_counter_holds():
    headers = [Header(Queue.LOAD, 0, V)] * isa.TOKEN_LIMIT
    assert schedule(headers, depth=4).fault == Fault.NONE
    result = schedule([*headers, Header(Queue.LOAD, 0, V)], depth=4)
    assert (result.fault, result.at) == (Fault.TOKENS, isa.TOKEN_LIMIT)


@pytest.mark.parametrize(("before", "after", "row"), [
    (move(10, 30, 5), move(30, 50, 5, chain=1), None),                              # the same rows
    (move(10, 30, 5), move(27, 50, 5, chain=1), None),                              # rows written before
    (move(10, 30, 5), move(31, 50, 5, chain=1), 31),                                # one iteration too early
    (move(10, 30, 5), move(31, 50, 5), None),                                       # not chained
    (move(10, 30, 1), move(30, 50, 5, chain=1), None),
    (move(10, 30, 5), move(34, 50, 1, chain=1), 34),
    (quantize(10, 3), move(10, 50, 5, chain=1), None),                              # no rows written
    (move(10, 30, 5), isa.encode(Opcode.VECTOR, op=VectorOp.FILL, to_vector=1, a=34, d=60, inner=1, outer=1,
                                 chain=1), None),
    (move(10, 30, 4), isa.encode(Opcode.VECTOR, op=VectorOp.ADD, to_vector=1, a=30, a_inner=1, b=33, b_inner=-1, d=60,
                                 d_inner=1, inner=4, outer=1, chain=1), 33),
])
def test_chain_reads_no_row_before_it_is_written(before, after, row):
    program = [load(0, rows=64), move(10, 61, wait=L), before, load_tile(7), after]
    program[0] = load(0, rows=64, post=V)
    if row is None:
        return check(*program)
    error = conflict(*program)
    assert error.instructions == (2, 4)
    assert f"reads vector row {row}, which instruction 2 (VECTOR MOVE" in str(error)
    assert str(error).endswith("writes in a later iteration. It must not be chained to that.")
