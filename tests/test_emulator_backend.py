"""The emulator behind the registers: doorbell, status, interrupts, windows, faults, bus errors."""

import numpy as np
import pytest
from macaw_hw import isa, registers
from macaw_hw.config import Config
from macaw_hw.isa import DataFormat, Fault, FaultUnit, Opcode, Queue, VectorOp
from macaw_hw.registers import REGISTERS, Access
from macaw_sim.backend import BACKENDS, Backend, BusError, create_backend
from macaw_sim.emulator import SynchronizationError

CONFIG = Config(size=4, vector_bank_rows=64, address_width=24)
PROGRAM, DRAM = 0x8000, 1 << 16
RUNNING, DONE, FAULT, ABORTED = (bits.mask for bits in REGISTERS["status"].bits)
LOAD = isa.encode(Opcode.LOAD, address=0x1000, run=8)
FILL = isa.encode(Opcode.VECTOR, op=VectorOp.FILL, to_vector=1, d=3, inner=1, outer=1, scalar=0x3F800000)
STUCK = isa.encode(Opcode.LOAD, address=0x1000, run=8, wait=1 << Queue.MATRIX)


class Host:
    """A backend with registers by name."""

    def __init__(self, **options):
        self.backend = create_backend("emulator", CONFIG, dram_bytes=DRAM, **options)
        self.write("window_limit", DRAM)
        self.write("irq_enable", 7)

    def read(self, name):
        register = REGISTERS[name]
        return sum(self.backend.read_register(register.offset + low // 8) << low
                   for low in range(0, register.width, 32))

    def write(self, name, value):
        register = REGISTERS[name]
        for low in range(0, register.width, 32):
            self.backend.write_register(register.offset + low // 8, value >> low & 0xFFFFFFFF)

    def run(self, *program, at=PROGRAM):
        """Run a program; the fault as (code, unit, instruction), or None when it is done."""
        content = np.frombuffer(b"".join(program), np.uint8)[:DRAM - at]
        self.backend.dram[at:at + content.size] = content
        self.write("program_address", at)
        self.write("program_length", len(program))
        self.write("irq_status", 7)
        assert not self.backend.wait_interrupt(10)
        self.write("control", 1)
        assert self.backend.wait_interrupt(10)
        fault = tuple(self.read(f"fault_{name}") for name in ("code", "unit", "instruction"))
        if self.read("status") == DONE:
            assert self.read("irq_status") == 1 and fault == (0, 0, 0)
            return None
        assert self.read("status") == FAULT and self.read("irq_status") == 2
        return fault

    def usable(self):
        assert self.run(LOAD) is None
        return True


@pytest.fixture
def host():
    return Host()


def test_protocol_and_choice_by_name(host):
    assert isinstance(host.backend, Backend)
    assert BACKENDS == ("emulator", "verilator", "cocotb", "serial")
    with pytest.raises(ValueError, match="^backend must be one of emulator, verilator, cocotb, serial, not 'verilog'$"):
        create_backend("verilog", CONFIG)
    with pytest.raises(ValueError, match="^dram_bytes must be a positive multiple of 4096, not 5000$"):
        create_backend("emulator", CONFIG, dram_bytes=5000)
    assert Host(read_latency=7, stalls=0.5, seed=3).usable()


def test_identity_configuration_and_reset_values(host):
    backend = create_backend("emulator", CONFIG, dram_bytes=DRAM)
    for name, register in REGISTERS.items():
        for low in range(0, register.width, 32):
            value = getattr(CONFIG, name, register.reset)
            assert backend.read_register(register.offset + low // 8) == (value if low == 0 else 0), name
    host.usable()
    host.backend.reset()
    assert host.read("status") == host.read("instructions") == host.read("window_limit") == 0
    assert host.read("watchdog") == 1 << 20


def test_written_bits_that_exist_are_kept(host):
    for name, value in (("program_address", 0xFFFFE0), ("program_length", 0xFFFFFF), ("watchdog", 0xFFFFFFFF),
                        ("window_base", 0x1FFFFFF), ("window_limit", 0x1FFFFFF), ("irq_enable", 7)):
        host.write(name, (1 << REGISTERS[name].width) - 1)
        assert host.read(name) == value, name
        host.write(name, 0)
        assert host.read(name) == 0
    assert host.read("control") == 0


def test_what_answers_slverr(host):
    for offset in (registers.REGISTER_SPACE - 4, max(r.offset for r in REGISTERS.values()) + 8):
        with pytest.raises(BusError, match=f"0x{offset:03x} answered SLVERR: no register is there"):
            host.backend.read_register(offset)
        with pytest.raises(BusError):
            host.backend.write_register(offset, 0)
    for name, register in REGISTERS.items():
        if register.access == Access.READ:
            before = host.read(name)
            with pytest.raises(BusError, match="read only"):
                host.backend.write_register(register.offset, 5)
            assert host.read(name) == before
    with pytest.raises(ValueError, match="value must be from 0 to 4294967295, not -1"):
        host.backend.write_register(REGISTERS["watchdog"].offset, -1)


def test_status_and_interrupts(host):
    assert host.run() is None and host.read("instructions") == 0
    assert host.run(LOAD, FILL) is None and host.read("instructions") == 2
    host.write("irq_status", 6)
    assert host.read("irq_status") == 1 and host.backend.wait_interrupt(1)
    host.write("irq_enable", 2)
    assert not host.backend.wait_interrupt(1)
    host.write("irq_status", 1)
    host.write("control", 1)
    assert host.read("irq_status") == 1, "events are kept whatever is enabled"
    host.write("irq_enable", 1)
    assert host.backend.wait_interrupt(1)
    host.write("control", 2)
    assert host.read("status") == DONE, "nothing to abort"


def test_program_that_never_ends_is_aborted(host):
    host.write("watchdog", 0)
    host.backend.dram[PROGRAM:PROGRAM + 32] = np.frombuffer(STUCK, np.uint8)
    host.write("program_address", PROGRAM)
    host.write("program_length", 1)
    host.write("control", 1)
    assert host.read("status") == RUNNING and not host.backend.wait_interrupt(1000)
    for name in ("program_address", "program_length", "watchdog", "window_base", "window_limit"):
        with pytest.raises(BusError, match="a program runs"):
            host.write(name, 0)
    host.write("control", 1)
    assert host.read("status") == RUNNING
    host.write("control", 2)
    assert host.read("status") == ABORTED and host.read("irq_status") == 4 and host.backend.wait_interrupt(1)
    assert host.usable()


def test_faults_of_the_sequencer(host):
    own = isa.encode(Opcode.LOAD, address=0x1000, run=8, post=1 << Queue.LOAD)
    reserved = FILL[:31] + b"\x80"
    for bad in (bytes(32), b"\x05" + bytes(31), b"\xff" * 32, own, reserved, isa.encode(Opcode.MATRIX, rows=4),
                isa.encode(Opcode.VECTOR, op=VectorOp.FILL, inner=1, outer=1),
                isa.encode(Opcode.VECTOR, op=VectorOp.MOVE, to_vector=1, shuffle=4, inner=1, outer=1),
                isa.encode(Opcode.LOAD, format=DataFormat.BFP8, run=1, pack=1, address=0x1000),
                isa.encode(Opcode.LOAD, run=1, count2=0, address=0x1000)):
        assert host.run(LOAD, FILL, bad, FILL) == (Fault.ILLEGAL_INSTRUCTION, FaultUnit.SEQUENCER, 2)
        assert host.read("instructions") == 2
    assert host.run(FILL, STUCK, LOAD, FILL) == (Fault.WATCHDOG, FaultUnit.SEQUENCER, 1)
    assert host.run(STUCK, bytes(32)) == (Fault.WATCHDOG, FaultUnit.SEQUENCER, 0)
    assert host.usable()


def test_too_many_tokens():
    host = Host(check=False)
    backend = host.backend = create_backend("emulator", CONFIG, dram_bytes=1 << 18)
    host.write("window_limit", 1 << 18)
    post = isa.encode(Opcode.VECTOR, op=VectorOp.FILL, to_vector=1, inner=1, outer=1, post=1 << Queue.STORE)
    program = np.frombuffer(post * (isa.TOKEN_LIMIT + 1), np.uint8)
    backend.dram[:program.size] = program
    host.write("program_length", isa.TOKEN_LIMIT + 1)
    host.write("control", 1)
    assert (host.read("fault_code"), host.read("fault_unit"), host.read("fault_instruction")) == (
        Fault.TOKENS, FaultUnit.VECTOR, isa.TOKEN_LIMIT)


@pytest.mark.parametrize("opcode", [Opcode.LOAD, Opcode.STORE], ids=lambda o: o.name)
def test_window(host, opcode):
    host.write("window_base", 0x1000)
    fault = Fault.WINDOW, opcode - 1, 1
    for fields, inside in (
            (dict(address=0x1000, run=4), True), (dict(address=0x0FFF, run=4), False),
            (dict(address=DRAM - 16, run=4), True), (dict(address=DRAM - 15, run=4), False),
            (dict(address=0x1030, run=4, count3=4, stride3=-16), True),
            (dict(address=0x1030, run=4, count3=4, stride3=-17), False),
            (dict(address=DRAM - 48, run=4, count1=3, stride1=16), True),
            (dict(address=DRAM - 47, run=4, count1=3, stride1=16), False),
            (dict(address=0x2000, run=4, count0=2, stride0=-0x8000), False),  # below zero
            (dict(address=0x2000, run=4, count0=2, stride0=(1 << 24)), False),  # beyond the address space
            (dict(address=1 << 39, run=4), False)):
        assert host.run(FILL, isa.encode(opcode, local=8, **fields)) == (None if inside else fault), fields
    host.write("window_limit", DRAM - 1)
    assert host.run(FILL, isa.encode(opcode, local=8, address=DRAM - 16, run=4)) == fault


def test_window_of_the_program(host):
    host.write("window_base", PROGRAM)
    assert host.run(FILL, FILL, at=PROGRAM) is None
    assert host.run(FILL, FILL, at=PROGRAM - 32) == (Fault.WINDOW, FaultUnit.SEQUENCER, 0)
    host.write("window_limit", PROGRAM + 95)
    assert host.run(FILL, FILL, FILL) == (Fault.WINDOW, FaultUnit.SEQUENCER, 2)
    assert host.read("instructions") == 2
    host.write("window_base", 1 << 23)
    host.write("window_limit", 1 << 24)
    assert host.run(FILL) == (Fault.WINDOW, FaultUnit.SEQUENCER, 0)


def test_memory_ends_before_the_window(host):
    host.write("window_limit", 1 << 24)
    assert host.run(FILL, isa.encode(Opcode.LOAD, address=DRAM - 4, run=2)) == (Fault.BUS_READ, FaultUnit.LOAD, 1)
    assert host.run(isa.encode(Opcode.STORE, address=1 << 20, run=2)) == (Fault.BUS_WRITE, FaultUnit.STORE, 0)
    assert host.run(FILL, FILL, FILL, at=DRAM - 64) == (Fault.BUS_READ, FaultUnit.SEQUENCER, 2)
    assert host.usable()


def test_injected_bus_errors(host):
    store = isa.encode(Opcode.STORE, address=0x1000, run=8)
    host.backend.inject_error(0x1012, on="write")
    assert host.run(FILL, LOAD) is None
    assert host.run(FILL, store) == (Fault.BUS_WRITE, FaultUnit.STORE, 1)
    host.backend.inject_error(0x1010, 8, on="read", response="DECERR")
    assert host.run(FILL, LOAD) == (Fault.BUS_READ, FaultUnit.LOAD, 1)
    beside = isa.encode(Opcode.LOAD, address=0x1000, run=4, count0=2, stride0=0x18)
    assert host.run(beside) is None, "the error lies between two runs"
    host.backend.clear_errors()
    assert host.run(LOAD) is None and host.run(store) is None
    host.backend.inject_error(PROGRAM + 47)
    assert host.run(FILL, FILL) == (Fault.BUS_READ, FaultUnit.SEQUENCER, 1)
    for options, message in ((dict(on="both ways"), "on must be one of read, write, both, not 'both ways'"),
                             (dict(response="OKAY"), "response must be one of SLVERR, DECERR, not 'OKAY'")):
        with pytest.raises(ValueError, match=message):
            host.backend.inject_error(0, **options)


def test_missing_synchronization_is_reported_before_anything_runs(host):
    store = isa.encode(Opcode.STORE, address=0x1000, local=3, run=4)
    assert host.run(FILL) is None
    with pytest.raises(SynchronizationError, match="reads vector row 3"):
        host.run(FILL, store)
    assert not host.backend.dram[0x1000:0x1010].any() and host.usable()
    assert Host(check=False).run(FILL, store) is None


def test_closed(host):
    host.backend.close()
    host.backend.close()
    with pytest.raises(RuntimeError, match="the backend is closed"):
        host.read("status")
    with pytest.raises(RuntimeError, match="the backend is closed"):
        host.backend.wait_interrupt(1)
