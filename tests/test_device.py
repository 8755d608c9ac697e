"""The device: identity, memory, faults as exceptions, and that it works on after each of them."""

import gc

import numpy as np
import pytest
from macaw import Device
from macaw.faults import (
    FAULTS,
    BusReadFault,
    BusWriteFault,
    DeviceError,
    DeviceFault,
    DeviceTimeout,
    IllegalInstructionFault,
    LocalAddressFault,
    NonFiniteFault,
    WatchdogFault,
    WindowFault,
)
from macaw.program import Program
from macaw_hw import isa
from macaw_hw.config import named_config
from macaw_hw.isa import DataFormat, Fault, VectorOp
from macaw_hw.registers import COUNTERS, REGISTERS


@pytest.fixture
def device():
    with Device("n4", "emulator", dram_bytes=1 << 20) as device:
        yield device


class Raw:
    """A program of given instructions, as they are."""
    estimate = 1000

    def __init__(self, *instructions):
        self.config = named_config("n4")
        self._content = b"".join(instructions)

    def __len__(self):
        return len(self._content) // 32

    def to_bytes(self):
        return self._content


def assert_works(device):
    """A small program gives the right answer."""
    source, target = device.allocate("source", 64), device.allocate("target", 64)
    source.view("<f4", (16,))[:] = np.arange(16)
    program = Program(device.config)
    program.load(format=DataFormat.FLOAT32, address=source.address, local=0, run=16)
    program.vector(VectorOp.MUL_SCALAR, scalar=0.5, a=0, d=8, inner=4, to_vector=1)
    program.store(format=DataFormat.FLOAT32, address=target.address, local=8, run=16)
    counters = device.run(program)
    assert target.view("<f4", (16,)).tolist() == (np.arange(16) / 2).tolist()
    assert set(counters) == set(COUNTERS) and counters["instructions"] == 3
    for tensor in (source, target):
        device.free(tensor)


def test_runs_a_program(device):
    assert_works(device)
    assert_works(device)


def load(address, local=0, run=4, format=DataFormat.FLOAT32, **fields):
    return isa.encode(isa.LOAD.opcode, format=format, address=address, local=local, run=run, **fields)


@pytest.mark.parametrize("instruction, cls, unit, text", [
    (bytes(32), IllegalInstructionFault, "sequencer", "illegal: opcode must be one of"),
    (load(4096, local=2040, run=64), LocalAddressFault, "load", "LOAD   FLOAT32 [0x1000] run 64, row 2040"),
    (load(0), WindowFault, "load", "[0x0]"),
    (isa.encode(isa.STORE.opcode, format=DataFormat.FLOAT32, address=500_000, local=16, run=4), WindowFault, "store",
     "[0x7a120]"),
    (isa.encode(isa.VECTOR.opcode, op=VectorOp.FILL, scalar=0x7F800000, inner=4, outer=1, to_tile=1),
     NonFiniteFault, "vector", "FILL, tile 0, s=inf"),
    (load(4096, wait=2), WatchdogFault, "sequencer", "after matrix"),
], ids=["illegal", "local", "window read", "window write", "non finite", "watchdog"])
def test_faults_name_cause_unit_instruction_and_remedy(device, instruction, cls, unit, text):
    device.allocate("data", 4096)
    good = load(4096)
    with pytest.raises(cls) as caught:
        device.run(Raw(good, good, instruction))
    fault = caught.value
    assert (fault.unit, fault.instruction) == (unit, 2)
    assert text in fault.text
    message = str(fault)
    assert message.startswith(cls.what) and message.endswith(cls.remedy) and "instruction 2" in message
    assert fault.fault.name in message and "\n" not in message
    assert_works(device)


@pytest.mark.parametrize("on, cls", [("read", BusReadFault), ("write", BusWriteFault)])
def test_bus_errors(device, on, cls):
    tensor = device.allocate("data", 4096)
    program = Program(device.config)
    program.load(format=DataFormat.FLOAT32, address=tensor.address, local=0, run=4)
    program.store(format=DataFormat.FLOAT32, address=tensor.address + 64, local=0, run=4)
    device.backend.inject_error(tensor.address, 128, on=on)
    with pytest.raises(cls):
        device.run(program)
    device.backend.clear_errors()
    assert device.run(program)["instructions"] == 2
    assert_works(device)


def test_every_fault_has_its_exception():
    assert set(FAULTS) == set(Fault) - {Fault.NONE}
    assert all(cls.what and cls.remedy and issubclass(cls, DeviceFault) for cls in FAULTS.values())


def test_timeout_aborts_and_the_device_works_on(device):
    device._write("watchdog", 0)
    with pytest.raises(DeviceTimeout, match="did not end within 1000 cycles and was aborted"):
        device.run(Raw(load(4096, wait=2)), max_cycles=1000)
    assert_works(device)


def test_device_that_does_not_become_idle_is_reset(device, monkeypatch):
    """A burst that the memory never ends: status keeps its running bit until the reset."""
    backend = device.backend
    stuck, resets = [True], []
    read, reset = backend.read_register, backend.reset
    monkeypatch.setattr("macaw.device._DRAIN_READS", 10)
    monkeypatch.setattr(backend, "read_register", lambda offset: (
        read(offset) | (stuck[0] and offset == REGISTERS["status"].offset)))
    monkeypatch.setattr(backend, "reset", lambda: (resets.append(stuck.__setitem__(0, False)), reset()))
    with pytest.raises(WindowFault, match="instruction 0"):
        device.run(Raw(load(0)))
    assert len(resets) == 1
    assert_works(device)


@pytest.mark.parametrize("register, message", [
    ("identity", "identity register must read 0x4d434157, not 0x3: no Macaw is there"),
    ("version", "major version must be 1, not 0"),
    ("tile_banks", "the device has tile_banks 3, not 2"),
])
def test_another_device_is_refused(monkeypatch, register, message):
    from macaw_sim.emulator.backend import EmulatorBackend
    read = EmulatorBackend.read_register
    monkeypatch.setattr(EmulatorBackend, "read_register", lambda self, offset: (
        3 if offset == REGISTERS[register].offset else read(self, offset)))
    with pytest.raises(DeviceError, match=message):
        Device("n4", "emulator", dram_bytes=1 << 20)


def test_unknown_names_list_the_choices():
    with pytest.raises(ValueError, match="configuration must be one of n4, n8, n16, n32, not 'n5'"):
        Device("n5", "emulator")
    with pytest.raises(ValueError, match="backend must be one of .*emulator.*, not 'fpga'"):
        Device("n4", "fpga")


def test_memory_is_given_taken_back_and_runs_out(device):
    first, second, third = (device.allocate(name, 5000) for name in "abc")
    assert [t.address for t in (first, second, third)] == [4096, 12288, 20480]
    assert device.window == (4096, 28672)
    second.bytes[:] = 7
    device.free(second)
    again = device.allocate("again", 8192)
    assert again.address == second.address and not again.bytes.any()
    with pytest.raises(DeviceError, match="big needs 1048576 bytes, but 24576 of 1048576 bytes of device memory are in "
                                          "use; open the device with a larger dram_bytes"):
        device.allocate("big", 1 << 20)
    device.free(again)
    with pytest.raises(DeviceError, match="again is not allocated"):
        device.free(again)


def test_memory_of_unused_programs_makes_room(device):
    class Cycle:
        def __init__(self):
            self.me, self.program = self, Program(device.config)
    gc.disable()
    try:
        cycle = Cycle()
        cycle.program.vector(VectorOp.FILL, d=0, inner=1, to_vector=1)
        device.run(cycle.program)
        del cycle
        device.allocate("all", (1 << 20) - 4096)
    finally:
        gc.enable()


def test_views_share_the_memory(device):
    tensor = device.allocate("data", 64)
    tensor.view("<f4", (2, 3))[1, 2] = 1.0
    assert device.dram[tensor.address + 20:tensor.address + 24].tobytes() == np.float32(1).tobytes()


def test_memory_of_a_program_is_freed_with_it(device):
    before = device.window
    program = Program(device.config)
    program.vector(VectorOp.FILL, d=0, inner=1, to_vector=1)
    device.run(program)
    device.run(program)
    assert device.window == (4096, 8192)
    del program
    gc.collect()
    assert device.window == before


def test_program_of_another_configuration_is_refused(device):
    with pytest.raises(DeviceError, match="another configuration"):
        device.run(Program(named_config("n8")))
