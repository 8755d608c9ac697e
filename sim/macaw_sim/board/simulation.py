"""A board in Verilator, whose UART pins are bridged to a pseudo-terminal, bit by bit."""

import ctypes
import hashlib
import os
import pty
import select
import shutil
import subprocess
import tempfile
import threading
import tty
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

from .. import tools
from ..verilator.build import BuildError

__all__ = ["BoardSimulation", "Pins"]

_FRACTION = 256
_CHUNK = 4096
_QUIET = 400_000
_IDLE_SECONDS = 0.02
_PIECE = 4096
_SOURCES = ("line.cpp", "pins.v")
_ARGUMENTS = ("--cc", "--exe", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert",
              "-Wno-fatal", "--prefix", "Vboard", "--output-split", "15000",
              "--output-split-cfuncs", "5000", "-LDFLAGS", "-shared",
              "-CFLAGS", "-fPIC -fvisibility=hidden")
_MAKE_VARIABLES = {"OPT_FAST": "-O1", "OPT_SLOW": "-O0", "OPT_GLOBAL": "-O0"}


@dataclass(frozen=True)
class Pins:
    """Names of a top module and of its pins."""
    top: str
    clock: str
    rx: str
    tx: str


class BoardSimulation:
    """The Verilog of a board's top level, running in a thread.

    The other end of its line is a pseudo-terminal, ``port``, which any program can open as a serial
    port. Simulated time stands still while the line is quiet.

    Parameters
    ----------
    verilog : str
    pins : Pins
    bit_cycles : float
        Cycles of the board's clock for each bit, as the host's end of the line measures them.
    to_board, from_board : function, optional
        What becomes of bytes on their way, each a function from bytes to bytes; from the line's
        thread.

    Attributes
    ----------
    port : str
    cycles : int
        Simulated cycles so far.

    A context manager; `close` ends the thread and the pseudo-terminal.

    Raises
    ------
    ToolError, BuildError
        If the simulator cannot be built.
    """

    def __init__(self, verilog: str, pins: Pins, bit_cycles: float,
                 to_board: Callable[[bytes], bytes] = bytes,
                 from_board: Callable[[bytes], bytes] = bytes):
        self._library = _load(_build(verilog, pins))
        self._to_board, self._from_board = to_board, from_board
        self._master, self._slave = pty.openpty()
        tty.setraw(self._slave)
        self.port = os.ttyname(self._slave)
        self._line = self._library.board_new(round(bit_cycles * _FRACTION))
        self._noise = 0
        self._cycles = 0
        self._error: BaseException | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="board", daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    @property
    def cycles(self) -> int:
        return self._cycles

    def noise(self, cycles: int) -> None:
        """Invert the level at the board's pin for so many cycles, soon."""
        self._noise = cycles

    def close(self) -> None:
        """End the simulation; an error of its thread is raised here. A second call does nothing."""
        self._end.set()
        self._thread.join()
        if self._line is not None:
            self._library.board_delete(self._line)
            self._line = None
            os.close(self._master)
            os.close(self._slave)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _run(self):
        try:
            while not self._end.is_set():
                self._step()
        except BaseException as error:
            self._error = error

    def _step(self):
        library, line = self._library, self._line
        idle = library.board_quiet(line) > _QUIET and not self._noise
        if select.select([self._master], [], [], _IDLE_SECONDS if idle else 0)[0]:
            data = self._to_board(os.read(self._master, _PIECE))
            library.board_send(line, data, len(data))
        elif idle:
            return
        if self._noise:
            library.board_noise(line, self._noise)
            self._noise = 0
        count = library.board_run(line, _CHUNK)
        self._cycles = library.board_cycles(line)
        if count:
            buffer = (ctypes.c_uint8 * count)()
            library.board_receive(line, buffer, count)
            data = self._from_board(bytes(buffer))
            while data:
                data = data[os.write(self._master, data):]


def _build(verilog, pins):
    """The shared library of the top level, looked for by the hash of what goes into it."""
    environment = tools.verilator_environment(make_variables=_MAKE_VARIABLES, jobs=os.cpu_count())
    sources = {name: files(__package__).joinpath(name).read_text() for name in _SOURCES}
    sources["board.v"] = verilog
    arguments = [*_ARGUMENTS, "--top-module", pins.top]
    for name in ("clock", "rx", "tx"):
        # Verilator's name for a port: two underscores become something else.
        member = getattr(pins, name).replace("__", "___05F")
        arguments += ["-CFLAGS", f"-D{name.upper()}={member}"]
    content = sources, arguments, _MAKE_VARIABLES, tools.verilator(), tools.compiler()
    key = hashlib.sha256(repr(content).encode()).hexdigest()[:24]
    folder = tools.output_directory("sim", "board")
    library = folder / f"{key}.so"
    with tools.locked(folder / f"{key}.lock"):
        if not library.exists():
            _compile(library, sources, arguments, environment)
    return library


def _compile(library, sources, arguments, environment):
    with (tempfile.TemporaryDirectory(prefix="macaw-board-") as folder,
          open(library.with_suffix(".log"), "w") as log):
        for name, text in sources.items():
            Path(folder, name).write_text(text)
        for command in (["verilator", *arguments, "-Mdir", "obj", "-o", "board.so", "board.v",
                         "pins.v", "line.cpp"], ["make", "-C", "obj", "-f", "Vboard.mk"]):
            command[0] = shutil.which(command[0], path=environment["PATH"])
            result = subprocess.run(command, cwd=folder, env=environment, stdout=log,
                                    stderr=subprocess.STDOUT, check=False)
            if result.returncode:
                raise BuildError(f"the board's simulator does not build (log: {log.name})")
        temporary = library.with_suffix(f".{os.getpid()}.tmp")
        shutil.copyfile(Path(folder, "obj", "board.so"), temporary)
        temporary.replace(library)


@cache
def _load(path):
    library = ctypes.CDLL(str(path))
    pointer, number = ctypes.c_void_p, ctypes.c_uint64
    for name, result, *arguments in (
            ("new", pointer, number), ("delete", None, pointer),
            ("send", None, pointer, ctypes.c_char_p, number), ("run", number, pointer, number),
            ("receive", None, pointer, pointer, number),
            ("quiet", number, pointer), ("noise", None, pointer, number),
            ("cycles", number, pointer)):
        function = getattr(library, f"board_{name}")
        function.restype, function.argtypes = result, arguments
    return library
