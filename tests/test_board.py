"""The top level for a board, simulated at its UART pins, with the driver on the other end of a pseudo-terminal."""

import os

import numpy as np
import pytest
from line_faults import FaultyLine
from macaw import Device, Trainer, manual_seed, nn, optim
from macaw.faults import DeviceError, DeviceTimeout, WindowFault
from macaw.program import Program
from macaw_hw.board.boards import BOARDS, build
from macaw_hw.board.memory import BoardMemory
from macaw_hw.config import named_config
from macaw_hw.isa import DataFormat, VectorOp
from macaw_hw.registers import COUNTERS, REGISTERS
from macaw_sim.backend import Backend, BusError, create_backend
from macaw_sim.board.simulation import BoardSimulation, Pins

# A faster line takes less to simulate; MACAW_LONG=1 simulates the very design of the bitstream.
DIVISOR = BOARDS["ulx3s-85f"].divisor if "MACAW_LONG" in os.environ else 5
PINS = Pins("top", "clk25_0__io", "uart_0__rx__io", "uart_0__tx__io")
MEMORY = BOARDS["ulx3s-85f"].memory
OPTIONS = {"baud": 1_000_000, "timeout": 10.0, "dram_bytes": MEMORY}


class Lines:
    """Both directions of the line, without faults until they are switched on."""

    def __init__(self):
        self.to_board, self.from_board = FaultyLine(1, 0), FaultyLine(2, 0)

    def set(self, rate):
        self.to_board.rate = self.from_board.rate = rate

    @property
    def faults(self):
        return sum(self.to_board.counts.values()) + sum(self.from_board.counts.values())


@pytest.fixture(scope="module")
def lines():
    return Lines()


@pytest.fixture(scope="module")
def design():
    return build("ulx3s-85f", divisor=DIVISOR)


@pytest.fixture(scope="module")
def board(design, lines):
    with BoardSimulation(design.verilog, PINS, DIVISOR, lines.to_board, lines.from_board) as board:
        yield board


def train(config, backend, **options):
    """Three training steps of a small network; all that comes of them."""
    rng = np.random.default_rng(7)
    manual_seed(3)
    model = nn.Sequential(nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3))
    with Device(config, backend, **options) as device:
        trainer = Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.5), device, batch_size=4)
        steps = [trainer.train_step(rng.integers(0, 256, (4, 10), dtype=np.uint8), rng.integers(0, 3, 4))
                 for _ in range(3)]
        outputs = trainer.predict(rng.integers(0, 256, (4, 10), dtype=np.uint8))
        memory = device.dram.copy()
        if backend == "serial":
            assert all(step.counters["cycles"] > 0 for step in steps)
            assert set(steps[0].counters) == set(COUNTERS)
        weights = model.state_dict()
    return [step.loss for step in steps], outputs.tobytes(), memory.tobytes(), {
        name: value.tobytes() for name, value in weights.items()}


@pytest.fixture(scope="module")
def expected():
    return train("n4", "emulator", dram_bytes=MEMORY)


def test_training_equals_the_emulators(board, expected):
    """Losses, outputs, weights and all of memory, bit for bit."""
    assert train("n4", "serial", port=board.port, **OPTIONS) == expected


def test_training_over_a_bad_line(board, lines, expected):
    """The same with a damaged byte in about every fifty requests and responses."""
    before = lines.faults
    lines.set(0.0005)
    try:
        assert train("n4", "serial", port=board.port, **OPTIONS | {"timeout": 0.3, "attempts": 100}) == expected
    finally:
        lines.set(0)
    assert lines.faults > before


def test_identity(board):
    with pytest.raises(DeviceError, match="the device has size 4, not 8: open it with its own configuration"):
        Device("n8", "serial", port=board.port, **OPTIONS)


def test_memory_of_the_board(board):
    """Where more is asked for, it is what the board has."""
    with Device("n4", "serial", port=board.port, **OPTIONS | {"dram_bytes": 64 << 20}) as device:
        assert isinstance(device.backend, Backend) and device.dram.size == MEMORY
        with pytest.raises(DeviceError, match="weights needs 262144 bytes, but 0 of 262144 bytes"):
            device.allocate("weights", MEMORY)


def test_fault_timeout_and_the_next_program(board):
    """What the device reports comes over the line, and the device goes on."""
    with Device("n4", "serial", port=board.port, **OPTIONS) as device:
        tensor = device.allocate("tensor", 4096)
        tensor.view("<f4", 16)[:] = np.arange(16)
        outside = Program(device.config)
        outside.load(format=DataFormat.FLOAT32, address=0, local=0, run=4)
        with pytest.raises(WindowFault, match=r"WINDOW, load unit, instruction 0: LOAD   FLOAT32 \[0x0\]"):
            device.run(outside)
        long = Program(device.config)
        for _ in range(30):
            long.vector(VectorOp.MOVE, a=0, d=0, to_vector=1, inner=2000)
        with pytest.raises(DeviceTimeout, match="did not end within 1 cycles"):
            device.run(long, max_cycles=1)
        copy = Program(device.config)
        copy.load(format=DataFormat.FLOAT32, address=tensor.address, local=0, run=16)
        copy.store(format=DataFormat.FLOAT32, address=tensor.address + 64, local=0, run=16)
        counters = device.run(copy)
        assert counters["instructions"] == 2
        assert (tensor.view("<f4", 32) == np.tile(np.arange(16), 2)).all()
        device.backend.reset()
        assert device._read("irq_enable") == 0


def test_backend(board):
    with pytest.raises(ValueError, match="the serial backend needs port, the device file of the board's serial line"):
        create_backend("serial", named_config("n4"))
    with pytest.raises(ValueError, match="dram_bytes must be a positive multiple of 4096, not 5"):
        create_backend("serial", named_config("n4"), dram_bytes=5, port=board.port)
    backend = create_backend("serial", named_config("n4"), port=board.port, **OPTIONS)
    with pytest.raises(BusError, match="the device rejects a read of register 0xffc"):
        backend.read_register(0xFFC)
    with pytest.raises(BusError, match="the device rejects a write of register 0x0"):
        backend.write_register(0, 1)
    assert not backend.wait_interrupt(1000)
    backend.close()
    backend.close()
    with pytest.raises(RuntimeError, match="the backend is closed"):
        backend.read_register(REGISTERS["identity"].offset)


def test_unknown_board():
    with pytest.raises(ValueError, match="board must be one of ulx3s-85f, not 'icebreaker'"):
        build("icebreaker")


@pytest.mark.parametrize("size", [2048, 5000])
def test_size_of_the_memory(size):
    with pytest.raises(ValueError, match=f"size must be a power of two from 4096, not {size}"):
        BoardMemory(config=named_config("n4"), size=size)


def test_pins(design):
    """Clock, line and lamps of the board, and nothing else."""
    located = {line.split('"')[1]: line.split('"')[3]
               for line in design.constraints.splitlines() if line.startswith("LOCATE")}
    assert located == {"clk25_0__io": "G2", "uart_0__rx__io": "M1", "uart_0__tx__io": "L4", "led_0__io": "B2",
                       "led_1__io": "C2", "led_2__io": "C1"}
    assert 'FREQUENCY PORT "clk25_0__io" 25000000.0 HZ;' in design.constraints
