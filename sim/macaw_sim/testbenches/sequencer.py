"""Sequencer: order within queues, tokens between them, faults.

Four model units accept instructions at random and finish them, in order, after random times. A model of
the tokens follows what the sequencer does and checks every instruction that it issues.
"""

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, ReadOnly, RisingEdge
from macaw_hw.isa import TOKEN_LIMIT, Fault, FaultUnit, Opcode, Queue, decode, encode
from macaw_hw.sequencer import IN_FLIGHT

from . import generator, parameters

__all__ = []

_UNITS = [queue.name.lower() for queue in Queue]


def random_program(rng, length):
    """Instructions with tokens that can be met: every wait follows its post in program order."""
    program = [{"opcode": Opcode(int(rng.integers(1, 5))), "wait": 0, "post": 0} for _ in range(length)]
    waits = [set() for _ in program]
    for target in range(length):
        for _ in range(int(rng.integers(0, 3))):
            source = int(rng.integers(max(0, target - 24), target + 1))
            a, b = program[source]["opcode"] - 1, program[target]["opcode"] - 1
            if a == b or program[source]["post"] >> b & 1 or program[target]["wait"] >> a & 1:
                continue
            program[source]["post"] |= 1 << b
            program[target]["wait"] |= 1 << a
            waits[target].add(source)
    return [encode(i["opcode"], wait=i["wait"], post=i["post"], **_legal(i["opcode"], rng))
            for i in program]


def _legal(opcode, rng):
    tag = int(rng.integers(1, 1 << 12))
    return {Opcode.LOAD: {"run": tag}, Opcode.STORE: {"run": tag}, Opcode.MATRIX: {"rows": tag, "k_tiles": 1},
            Opcode.VECTOR: {"inner": tag, "outer": 1, "to_vector": 1}}[opcode]


class Bench:
    """Feeder, four model units, and the token model."""

    def __init__(self, dut, rng, program):
        self.dut, self.rng, self.program = dut, rng, program
        self.issued = {queue: [] for queue in Queue}
        self.done = {queue: 0 for queue in Queue}
        self.tokens = {(a, b): 0 for a in Queue for b in Queue}

    async def start(self):
        dut = self.dut
        dut.i__valid.value = 0
        dut.expired.value = 0
        for unit in _UNITS:
            for name in ("instruction__ready", "done", "fault", "busy", "wait_memory", "wait_other"):
                getattr(dut, f"{unit}__{name}").value = 0
        Clock(dut.clk, 10, unit="ns").start()
        dut.rst.value = 1
        await RisingEdge(dut.clk)
        await RisingEdge(dut.clk)
        dut.rst.value = 0

    async def feed(self, fault=Fault.NONE):
        for position, instruction in enumerate(self.program):
            last = position == len(self.program) - 1
            bits = int.from_bytes(instruction, "little")
            self.dut.i__payload.value = bits | (int(fault) if last else 0) << 256
            self.dut.i__valid.value = 1
            while True:
                await RisingEdge(self.dut.clk)
                if self.dut.i__ready.value:
                    break
            self.dut.i__valid.value = 0
            while self.rng.random() < 0.2:
                await RisingEdge(self.dut.clk)

    async def unit(self, queue, pace=0.3):
        """Accept at random, finish at random; check tokens and order."""
        dut, name = self.dut, _UNITS[queue]
        ready, done = getattr(dut, f"{name}__instruction__ready"), getattr(dut, f"{name}__done")
        valid = getattr(dut, f"{name}__instruction__valid")
        payload = getattr(dut, f"{name}__instruction__payload")
        finishing = False
        while True:
            await RisingEdge(dut.clk)
            accepted = bool(valid.value) and bool(ready.value)
            if finishing:
                _, fields = self.issued[queue][self.done[queue]]
                self.done[queue] += 1
                for other in Queue:
                    self.tokens[queue, other] += fields["post"] >> other & 1
            if accepted:
                bits = int(payload.value).to_bytes(32, "little")
                _, fields = decode(bits)
                self.issued[queue].append((bits, fields))
            in_flight = len(self.issued[queue]) - self.done[queue]
            finishing = in_flight > 0 and self.rng.random() < pace
            ready.value = int(self.rng.random() < 0.5 and in_flight < IN_FLIGHT)
            done.value = int(finishing)

    async def check_tokens(self):
        """In every cycle: an instruction is issued only when its tokens are there, and takes them."""
        dut = self.dut
        seen = {queue: 0 for queue in Queue}
        while True:
            await RisingEdge(dut.clk)
            await ReadOnly()
            for queue in Queue:
                for _, fields in self.issued[queue][seen[queue]:]:
                    for other in Queue:
                        if fields["wait"] >> other & 1:
                            self.tokens[other, queue] -= 1
                            assert self.tokens[other, queue] >= 0, \
                                f"{queue.name} took a token from {other.name} that was not posted"
                    seen[queue] += 1

    async def idle(self, limit=20000):
        for _ in range(limit):
            await RisingEdge(self.dut.clk)
            if self.dut.empty.value and sum(self.done.values()) == len(self.program):
                return
        raise AssertionError(f"not empty after {limit} cycles: {self.done}")


@cocotb.test()
async def runs_random_programs(dut):
    """Every instruction reaches its unit, in order and unchanged, and never before its tokens."""
    rng = generator()
    program = random_program(rng, parameters().get("length", 400))
    bench = Bench(dut, rng, program)
    await bench.start()
    for queue in Queue:
        cocotb.start_soon(bench.unit(queue))
    cocotb.start_soon(bench.check_tokens())
    cocotb.start_soon(bench.feed())
    await bench.idle()
    for queue in Queue:
        expected = [bits for bits in program if bits[0] & 15 == queue + 1]
        assert [bits for bits, _ in bench.issued[queue]] == expected
    assert all(count == 0 for count in bench.tokens.values())
    assert dut.fault.value == Fault.NONE


@cocotb.test()
async def reports_its_own_faults_last(dut):
    """A fetch fault or an illegal instruction is reported once everything before it is done."""
    rng = generator(1)
    illegal = [bytes(32), encode(Opcode.LOAD, run=0), encode(Opcode.VECTOR, inner=1, outer=1),
               encode(Opcode.MATRIX, rows=1, k_tiles=1, wait=2), encode(Opcode.STORE, run=1, format=3),
               encode(Opcode.MATRIX, rows=1, k_tiles=1)[:31] + b"\x01"]
    for bad in [*illegal, None]:
        program = random_program(rng, 30)
        cause = Fault.BUS_READ if bad is None else Fault.ILLEGAL_INSTRUCTION
        bench = Bench(dut, rng, [*program, bad or program[0]])
        await bench.start()
        tasks = [cocotb.start_soon(bench.unit(queue)) for queue in Queue]
        cocotb.start_soon(bench.feed(fault=Fault.NONE if bad else cause))
        for _ in range(5000):
            await RisingEdge(dut.clk)
            if dut.fault.value != Fault.NONE:
                break
            for queue in Queue:
                assert len(bench.issued[queue]) <= sum(p[0] & 15 == queue + 1 for p in program)
        assert dut.fault.value == cause, bad
        assert (dut.fault_unit.value, dut.fault_index.value) == (FaultUnit.SEQUENCER, len(program))
        assert sum(bench.done.values()) == len(program)
        for task in tasks:
            task.cancel()


@cocotb.test()
async def names_the_instruction_of_a_unit_fault(dut):
    """The oldest instruction of the faulting unit that is not done."""
    rng = generator(2)
    for queue in Queue:
        program = [i for i in random_program(rng, 60)]
        program = [bytes([i[0] & 15, i[1] & 0xF0]) + i[2:] for i in program]  # no tokens
        bench = Bench(dut, rng, program)
        await bench.start()
        tasks = [cocotb.start_soon(bench.unit(q)) for q in Queue]
        feeder = cocotb.start_soon(bench.feed())
        indices = [n for n, i in enumerate(program) if i[0] & 15 == queue + 1]
        while len(bench.issued[queue]) < 3 or bench.done[queue] == len(bench.issued[queue]):
            await RisingEdge(dut.clk)
        for task in [*tasks, feeder]:
            task.cancel()
        for unit in _UNITS:
            getattr(dut, f"{unit}__instruction__ready").value = 0
            getattr(dut, f"{unit}__done").value = 0
        done = bench.done[queue]
        getattr(dut, f"{_UNITS[queue]}__fault").value = Fault.LOCAL_ADDRESS
        await ClockCycles(dut.clk, 2)
        await ReadOnly()
        assert (dut.stop.value, dut.fault.value) == (1, Fault.NONE)
        await ClockCycles(dut.clk, 9)
        await ReadOnly()
        assert (dut.fault.value, dut.fault_unit.value) == (Fault.LOCAL_ADDRESS, queue.value)
        assert dut.fault_index.value in (indices[done], indices[done + 1])
        await RisingEdge(dut.clk)


@cocotb.test()
async def names_the_oldest_instruction_when_the_watchdog_expires(dut):
    """The oldest one that is not done, over all queues, or the next one if there is none."""
    rng = generator(4)
    done = {}

    async def count():
        while True:
            await RisingEdge(dut.clk)
            for queue in Queue:
                done[queue] += int(getattr(dut, f"{_UNITS[queue]}__done").value)

    for accepted in range(12):
        program = [bytes([i[0] & 15, i[1] & 0xF0]) + i[2:] for i in random_program(rng, accepted)]
        bench = Bench(dut, rng, program)
        await bench.start()
        done.update(dict.fromkeys(Queue, 0))
        counter = cocotb.start_soon(count())
        tasks = [cocotb.start_soon(bench.unit(queue)) for queue in Queue]
        await bench.feed()
        await ClockCycles(dut.clk, int(rng.integers(1, 8)))
        for task in tasks:
            task.cancel()
        for unit in _UNITS:
            getattr(dut, f"{unit}__instruction__ready").value = 0
            getattr(dut, f"{unit}__done").value = 0
        dut.expired.value = 1
        await ClockCycles(dut.clk, 11)
        await ReadOnly()
        counter.cancel()
        left = []
        for queue in Queue:
            indices = [n for n, i in enumerate(program) if i[0] & 15 == queue + 1]
            left += indices[done[queue]:]
        assert (dut.fault.value, dut.fault_unit.value) == (Fault.WATCHDOG, FaultUnit.SEQUENCER)
        assert dut.fault_index.value == min(left, default=len(program))
        await RisingEdge(dut.clk)


@cocotb.test()
async def counts_tokens_to_the_limit(dut):
    """TOKEN_LIMIT tokens are kept; one more is a fault of the instruction that posts it."""
    post = encode(Opcode.LOAD, run=1, post=1 << Queue.MATRIX)
    bench = Bench(dut, generator(3), [post] * (TOKEN_LIMIT + 1))
    await bench.start()
    cocotb.start_soon(bench.feed())
    dut.load__instruction__ready.value = 1
    dut.load__done.value = 0
    accepted = 0
    while dut.fault.value == Fault.NONE:
        accepted += bool(dut.load__instruction__valid.value) and bool(dut.load__instruction__ready.value)
        await RisingEdge(dut.clk)
        dut.load__done.value = int(accepted > 0)
        accepted -= accepted > 0
    assert dut.fault.value == Fault.TOKENS
    assert (dut.fault_unit.value, dut.fault_index.value) == (FaultUnit.LOAD, TOKEN_LIMIT)
