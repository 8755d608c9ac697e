"""The UART bridge of a board, simulated bit by bit behind a pseudo-terminal: requests, refusals, a bad line."""

import inspect
import os
import select

import pytest
from amaranth.back import verilog
from line_faults import KINDS, FaultyLine
from macaw_hw.board import bridge, frames
from macaw_hw.board.protocol import (
    BLOCK_BYTES,
    ESCAPE,
    FLAG,
    HEADER,
    RESPONSE,
    Command,
    Deframer,
    Status,
    frame,
)
from macaw_hw.board.uart import UartReceiver
from macaw_sim.board.simulation import BoardSimulation, Pins
from macaw_sim.serial_link import SerialError, SerialLink
from macaw_sim.testbenches import bridge_top
from macaw_sim.testbenches.bridge_top import READS, REFUSED, SILENT, SUM, WRITES, BridgeTop

PINS = Pins("bridge", "clk", "rx", "tx")
SIZE = 8192
DIVISOR = 8
PATIENT = {"baud": 1_000_000, "timeout": 5.0}


@pytest.fixture(scope="module")
def text():
    return verilog.convert(BridgeTop(divisor=DIVISOR, size=SIZE), name="bridge", emit_src=False,
                           strip_internal_attrs=True)


@pytest.fixture
def board(text):
    with BoardSimulation(text, PINS, DIVISOR) as board:
        yield board


@pytest.fixture
def link(board):
    link = SerialLink(board.port, **PATIENT)
    yield link
    link.close()


class Raw:
    """The line without a driver: frames as they are."""

    def __init__(self, port):
        self._file = os.open(port, os.O_RDWR | os.O_NOCTTY)
        self._deframer = Deframer()

    def send(self, *pieces):
        os.write(self._file, b"".join(pieces))

    def receive(self, count=1):
        """The next so many responses, as (sequence, status, data)."""
        responses = []
        while len(responses) < count:
            assert select.select([self._file], [], [], 60)[0], "the board is silent"
            responses += self._deframer.feed(os.read(self._file, 4096))
        return [(*RESPONSE.unpack_from(content), content[RESPONSE.size:]) for content in responses]

    def close(self):
        os.close(self._file)


@pytest.fixture
def raw(board):
    raw = Raw(board.port)
    yield raw
    raw.close()


def request(sequence, command, address=0, length=0, data=b""):
    return frame(HEADER.pack(sequence, command, address, length) + data)


def word(value):
    return value.to_bytes(4, "little")


def test_frames():
    """Each content comes back, whatever is in it and however it is cut."""
    contents = [b"", b"\x00", bytes([FLAG]), bytes([ESCAPE, FLAG]), bytes(range(256)), bytes([ESCAPE]) * BLOCK_BYTES]
    line = b"".join(map(frame, contents))
    assert list(Deframer().feed(line)) == contents
    deframer = Deframer()
    assert [content for byte in line for content in deframer.feed([byte])] == contents
    assert frame(b"123456789") == bytes([FLAG]) + b"123456789" + word(0xCBF43926) + bytes([FLAG])


def test_capabilities(link):
    capabilities = link.capabilities
    assert (capabilities.block_bytes, capabilities.memory_bytes, capabilities.clock) == (BLOCK_BYTES, SIZE, 1_000_000)


def test_registers(link):
    for value in 1, 2, 0x7D7E7D7E:
        assert link.request(Command.WRITE_REGISTER, SUM, 0, word(value)) == (Status.OK, b"")
    assert link.request(Command.READ_REGISTER, SUM) == (Status.OK, word(0x7D7E7D81))
    assert link.request(Command.READ_REGISTER, WRITES) == (Status.OK, word(3))
    assert link.request(Command.READ_REGISTER, READS) == (Status.OK, word(2))
    assert link.repeated == 0


@pytest.mark.parametrize("address, status", [(REFUSED, Status.BUS_ERROR), (SILENT, Status.NO_ANSWER)])
def test_registers_that_fail(link, address, status):
    assert link.request(Command.READ_REGISTER, address) == (status, b"")
    assert link.request(Command.WRITE_REGISTER, address, 0, word(5)) == (status, b"")
    assert link.request(Command.READ_REGISTER, SUM) == (Status.OK, word(0))


def test_memory(link, rng):
    """Any alignment and length, and nothing beside it; zero at last."""
    model = bytearray(SIZE)
    assert link.request(Command.CLEAR) == (Status.OK, b"")
    for length in (0, 1, 3, 4, 255, BLOCK_BYTES - 1, BLOCK_BYTES):
        address = int(rng.integers(SIZE - length + 1))
        data = rng.integers(0, 256, length, dtype="u1").tobytes()
        model[address:address + length] = data
        assert link.request(Command.WRITE_MEMORY, address, length, data) == (Status.OK, b"")
        assert link.request(Command.READ_MEMORY, address, length) == (Status.OK, data)
    for address in range(0, SIZE, BLOCK_BYTES):
        found = link.request(Command.READ_MEMORY, address, BLOCK_BYTES)
        assert found == (Status.OK, model[address:address + BLOCK_BYTES])
    assert link.request(Command.CLEAR) == (Status.OK, b"")
    assert link.request(Command.READ_MEMORY, SIZE - BLOCK_BYTES, BLOCK_BYTES) == (Status.OK, bytes(BLOCK_BYTES))


@pytest.mark.parametrize("arguments", [
    (Command.READ_MEMORY, SIZE - 4, 5), (Command.READ_MEMORY, SIZE, 1), (Command.READ_MEMORY, 0xFFFFFFFF, 1),
    (Command.READ_MEMORY, 0, BLOCK_BYTES + 1), (Command.READ_MEMORY, 0, 0, b"x"),
    (Command.WRITE_MEMORY, 0, 4, b"abc"), (Command.WRITE_MEMORY, 0, 4, b"abcde"),
    (Command.WRITE_MEMORY, SIZE - 1, 2, b"ab"),
    (Command.WRITE_REGISTER, SUM, 0, b"abc"), (Command.WRITE_REGISTER, SUM, 0, b"abcde"), (Command.STATE, 0, 0, b"x"),
    (max(Command) + 1,), (255,)])
def test_wrong_arguments(link, arguments):
    link.request(Command.CLEAR)
    assert link.request(*arguments) == (Status.ARGUMENT, b"")
    assert link.request(Command.READ_REGISTER, WRITES) == (Status.OK, word(0))
    assert link.request(Command.READ_MEMORY, 0, 16) == (Status.OK, bytes(16))
    assert link.request(Command.READ_MEMORY, SIZE - 16, 16) == (Status.OK, bytes(16))


@pytest.mark.parametrize("rate", [0.97, 1.0, 1.03])
def test_rate_of_the_line(text, rate):
    """Three per cent faster and slower than the board."""
    with BoardSimulation(text, PINS, rate * DIVISOR) as board:
        link = SerialLink(board.port, **PATIENT)
        data = bytes(range(256))
        assert link.request(Command.WRITE_MEMORY, 0, 256, data) == (Status.OK, b"")
        assert link.request(Command.READ_MEMORY, 0, 256) == (Status.OK, data)
        assert link.repeated == 0
        link.close()


def test_request_that_arrives_again(raw):
    """It is answered again and carried out once; with other content it is refused."""
    add = request(8, Command.WRITE_REGISTER, SUM, 0, word(5))
    raw.send(request(7, Command.SYNC, 0x12345678))
    assert raw.receive()[0][:2] == (7, Status.OK)
    for _ in range(3):
        raw.send(add)
        assert raw.receive() == [(8, Status.OK, b"")]
    raw.send(request(8, Command.WRITE_REGISTER, SUM, 0, word(6)))
    assert raw.receive() == [(8, Status.SEQUENCE, b"")]
    raw.send(add)
    assert raw.receive() == [(8, Status.OK, b"")]
    for _ in range(2):
        raw.send(request(9, Command.READ_REGISTER, SUM))
        assert raw.receive() == [(9, Status.OK, word(5))]


@pytest.mark.parametrize("sequence", [6, 9, 0, 255])
def test_request_out_of_order(raw, sequence):
    raw.send(request(7, Command.SYNC))
    raw.receive()
    raw.send(request(sequence, Command.WRITE_REGISTER, SUM, 0, word(5)))
    assert raw.receive() == [(sequence, Status.SEQUENCE, b"")]
    raw.send(request(8, Command.READ_REGISTER, SUM))
    assert raw.receive() == [(8, Status.OK, word(0))]


def test_nothing_before_the_session(raw):
    raw.send(request(1, Command.WRITE_REGISTER, SUM, 0, word(5)))
    assert raw.receive() == [(1, Status.SEQUENCE, b"")]


DAMAGES = {
    "wrong bit": lambda line: line[:5] + bytes([line[5] ^ 4]) + line[6:],
    "lost byte": lambda line: line[:5] + line[6:],
    "lost end": lambda line: line[:-3],
    "lost begin": lambda line: line[4:],
    "cut by a flag": lambda line: line[:6] + bytes([FLAG]) + line[6:],
    "two escapes": lambda line: line[:6] + bytes([ESCAPE, ESCAPE]) + line[6:],
    "escape at the end": lambda line: line[:-1] + bytes([ESCAPE, FLAG]),
    "too long": lambda line: line[:-1] + bytes(BLOCK_BYTES) + line[-1:],
    "only a byte": lambda line: bytes([FLAG, 0, FLAG]),
    "two bytes swapped": lambda line: line[:2] + line[3:1:-1] + line[4:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_request(raw, damage):
    """It has no effect, the board says so, and the next one is taken."""
    good = request(8, Command.WRITE_REGISTER, SUM, 0, word(5))
    raw.send(request(7, Command.SYNC))
    raw.receive()
    raw.send(DAMAGES[damage](good), bytes([FLAG]))
    assert (0, Status.DAMAGED, b"") in raw.receive()
    raw.send(request(8, Command.READ_REGISTER, SUM))
    answers = raw.receive()
    while answers[-1][:2] == (0, Status.DAMAGED):       # one that was cut gives two
        answers = raw.receive()
    assert answers[-1] in [(8, Status.OK, word(0)), (8, Status.SEQUENCE, b"")]
    assert (damage == "lost begin") or answers[-1] == (8, Status.OK, word(0))


def test_silent_line(board, text):
    """An error, and no wait for ever; then the line works again, and so does the link."""
    dead = [False]
    with BoardSimulation(text, PINS, DIVISOR, to_board=lambda data: b"" if dead[0] else data) as board:
        link = SerialLink(board.port, **PATIENT)
        link._timeout, link._attempts, dead[0] = 0.05, 3, True
        with pytest.raises(SerialError, match="no valid answer on /dev/.* to 3 requests: check the cable"):
            link.request(Command.READ_REGISTER, SUM)
        with pytest.raises(SerialError, match="no valid answer"):
            link.request(Command.READ_REGISTER, SUM)
        link._timeout, link._attempts, dead[0] = 5, 8, False
        assert link.request(Command.READ_REGISTER, SUM) == (Status.OK, word(0))
        link.close()


def test_another_program_on_the_line(board, link, raw):
    raw.send(request(77, Command.SYNC))
    with pytest.raises(SerialError, match="does not know this session any more"):
        link.request(Command.WRITE_REGISTER, SUM, 0, word(5))
    assert link.request(Command.READ_REGISTER, SUM) == (Status.OK, word(0))


def test_no_port(tmp_path):
    with pytest.raises(SerialError, match="cannot open the serial port .*none"):
        SerialLink(str(tmp_path / "none"), baud=1_000_000)


@pytest.mark.parametrize("option", ["baud", "timeout", "attempts"])
def test_options(option):
    with pytest.raises(ValueError, match=f"{option} must be above 0, not 0"):
        SerialLink("/dev/null", **{"baud": 1, option: 0})


def test_divisor():
    with pytest.raises(ValueError, match="divisor must be at least 4, not 3"):
        UartReceiver(divisor=3)


def exercise(text, rng, faults):
    """Random requests until a bad line has had so many faults; every answer and the end state are compared."""
    lines = [FaultyLine(int(rng.integers(1 << 30)), 0.02) for _ in range(2)]
    with BoardSimulation(text, PINS, DIVISOR, *lines) as board:
        link = SerialLink(board.port, baud=1_000_000, timeout=0.1, attempts=200)
        memory, total, writes, noises = bytearray(SIZE), 0, 0, 0
        assert link.request(Command.CLEAR) == (Status.OK, b"")
        while sum(sum(line.counts.values()) for line in lines) < faults:
            if rng.random() < 0.1:
                noises += 1
                board.noise(int(rng.integers(1, 100)))
            choice = rng.integers(4)
            address = int(rng.integers(SIZE - 64))
            length = int(rng.integers(1, 64))
            if choice == 0:
                value = int(rng.integers(1 << 32))
                assert link.request(Command.WRITE_REGISTER, SUM, 0, word(value)) == (Status.OK, b"")
                total, writes = (total + value) % (1 << 32), writes + 1
            elif choice == 1:
                assert link.request(Command.READ_REGISTER, SUM) == (Status.OK, word(total))
            elif choice == 2:
                data = rng.integers(0, 256, length, dtype="u1").tobytes()
                memory[address:address + length] = data
                assert link.request(Command.WRITE_MEMORY, address, length, data) == (Status.OK, b"")
            else:
                expected = (Status.OK, memory[address:address + length])
                assert link.request(Command.READ_MEMORY, address, length) == expected
        for line in lines:
            line.rate = 0
        assert link.request(Command.READ_REGISTER, WRITES) == (Status.OK, word(writes))
        for address in range(0, SIZE, BLOCK_BYTES):
            found = link.request(Command.READ_MEMORY, address, BLOCK_BYTES)
            assert found == (Status.OK, memory[address:address + BLOCK_BYTES])
        repeated = link.repeated
        link.close()
    return lines, repeated, noises


def test_hundreds_of_faults_on_the_line(text, rng):
    """Every answer is right, and every request is carried out once, whatever happens to the bytes."""
    lines, repeated, noises = exercise(text, rng, 600)
    assert repeated > 100 and noises > 10
    assert all(line.counts[kind] for line in lines for kind in KINDS)


MUTANTS = {
    "the CRC is not looked at": (frames, "crc.match_detected & ", ""),
    "what comes again is carried out again": (
        bridge, "(request.sequence == (latest + 1)[:8])",
        "((request.sequence == (latest + 1)[:8]) | (request.sequence == latest))"),
    "the response is not kept": (bridge, "request.sequence == latest) & (request.crc == crc)", "0)"),
}


@pytest.mark.skipif("MACAW_LONG" not in os.environ, reason="builds three boards; MACAW_LONG=1 runs it")
@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_noticed(mutant, rng, monkeypatch):
    module, before, after = MUTANTS[mutant]
    source = inspect.getsource(module)
    assert source.count(before) == 1
    scope = {"__name__": module.__name__, "__package__": module.__package__}
    exec(compile(source.replace(before, after), module.__file__, "exec"), scope)
    for name in "FrameReceiver", "Bridge":
        if name in scope:
            for user in bridge, bridge_top:
                if hasattr(user, name):
                    monkeypatch.setattr(user, name, scope[name])
    text = verilog.convert(BridgeTop(divisor=DIVISOR, size=SIZE), name="bridge", emit_src=False,
                           strip_internal_attrs=True)
    with pytest.raises((AssertionError, SerialError)):
        exercise(text, rng, 3000)
