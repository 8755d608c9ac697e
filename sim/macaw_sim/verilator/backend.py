"""A device whose RTL is simulated in this process, with its memory a NumPy array."""

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from macaw_hw.config import Config

from ..backend import DRAM_BYTES, BusError
from .build import build_library, cached_verilog, waveform_format

__all__ = ["ALL_CHANNELS", "STREAMS", "Access", "ProtocolError", "VerilatorBackend", "Watched"]

_CHUNK = 20_000
_REGISTER_LIMIT = 10_000
_FOREVER = (1 << 64) - 1
_WHOLE = 1 << 16
_PAGE = 4096
_LIMIT, _DONE, _VIOLATION = range(3)
_COUNTS = ("bursts_read", "beats_read", "bursts_written", "beats_written")
_RESPONSES = {"SLVERR": 2, "DECERR": 3}
_DIRECTIONS = {"read": 1, "write": 2, "both": 3}
_NONE = (1 << 64) - 1

STREAMS = ("load", "fetch", "store")
"""What the memory answers: beats of loads, beats of instructions, bursts of stores."""
ALL_CHANNELS = ("AR", "R", "AW", "W", "B")
"""Of the memory's bus."""


class ProtocolError(RuntimeError):
    """The device broke a rule of AXI; the message says which and in which cycle. A reset clears it."""


@dataclass
class Access:
    """One access of the registers, as `VerilatorBackend.access` makes it.

    Attributes
    ----------
    write : bool
    address : int
        0 to 4095, aligned or not.
    data : int
        32 bits; what a read has read.
    strobe : int
        Bytes that a write selects, 0 to 15.
    delays : (int, int, int)
        Cycles by which the address, the data (of a write) and the ready for the response come late, counted
        from when that channel was done with the access before.
    response : int
        0 for OKAY, 2 for SLVERR.
    cycle : int
        In which the address was accepted.
    """
    write: bool
    address: int
    data: int = 0
    strobe: int = 15
    delays: tuple[int, int, int] = (0, 0, 0)
    response: int = 0
    cycle: int = 0


@dataclass(frozen=True)
class Watched:
    """What the memory answered since `VerilatorBackend.watch`.

    Attributes
    ----------
    counts : dict
        Of each of `STREAMS`.
    struck : int or None
        Byte address of the first beat or burst that was answered with the error asked for.
    fetched : bytes
        What was read as instructions.
    """
    counts: dict[str, int]
    struck: int | None
    fetched: bytes


class VerilatorBackend:
    """The Verilog of ``config`` in Verilator, with an AXI4 memory model that checks the protocol.

    Parameters
    ----------
    config : Config
        Which accelerator.
    dram_bytes : int
        Size of the memory, a multiple of 4096.
    read_latency, write_latency : int
        Cycles from a read address to its first beat, and from the last beat of a write to its response.
    read_bandwidth, write_bandwidth : float
        Beats per cycle, above 0 and at most 1.
    stalls : float
        Probability, from 0 to 0.9, that a channel begins a pause of random length in a cycle.
    outstanding : int
        Bursts that the memory accepts in each direction before the first has ended.
    reorder, interleave : bool
        Bursts of different ids overtake each other; read beats of different ids mix.
    seed : int
        Of all random choices: the same seed gives the same cycles.
    threads : int
        Threads of the simulator.
    waveform : path, optional
        File to record to; its format follows the suffix ``.fst`` or ``.vcd``, and without a suffix the
        better one that can be built is chosen and appended. Waveforms need a build of their own.
    waveform_cycles : (int, int)
        First and last cycle to record, as `cycles` counts.
    verilog : str, optional
        Verilog with the top module ``macaw`` to simulate instead of that generated for ``config``.
    observe : bool
        Keep a log of what the units do, for `take_events`. It needs a build of its own.
    coverage : bool
        Count the blocks and branches that run; for `macaw_sim.rtl_coverage`, whose ``verilog`` writes the counts.
    merge : bool
        Simulate equal lanes as one loop (`lanes`), about twice as fast; without it, the Verilog as it is.

    Attributes
    ----------
    config, dram
        As `macaw_sim.backend.Backend` defines them.
    cycles : int
        Simulated cycles since the backend was made.
    seconds : float
        Time spent in the simulator.
    waveform : Path or None
        The file that is being recorded; it is complete after the last of its cycles and after `close`.

    Raises
    ------
    ValueError
        For an option outside its range.
    ToolError, BuildError
        If the simulator cannot be built.
    """

    def __init__(self, config: Config, *, dram_bytes: int = DRAM_BYTES, read_latency: int = 40,
                 write_latency: int = 20, read_bandwidth: float = 1.0, write_bandwidth: float = 1.0,
                 stalls: float = 0.0, outstanding: int = 16, reorder: bool = False, interleave: bool = False,
                 seed: int = 0, threads: int = 1, waveform: str | Path | None = None,
                 waveform_cycles: tuple[int, int] = (0, _FOREVER), verilog: str | None = None,
                 observe: bool = False, coverage: bool = False, merge: bool = True):
        self._device = None
        self.config = config
        if dram_bytes <= 0 or dram_bytes % _PAGE:
            raise ValueError(f"dram_bytes must be a positive multiple of {_PAGE}, not {dram_bytes!r}")
        options = _MemoryOptions(
            seed=seed & _FOREVER, silent_from=_FOREVER,
            read_latency=_whole("read_latency", read_latency, 1, 1 << 20),
            write_latency=_whole("write_latency", write_latency, 1, 1 << 20),
            read_bandwidth=_bandwidth("read_bandwidth", read_bandwidth),
            write_bandwidth=_bandwidth("write_bandwidth", write_bandwidth),
            stall=_probability("stalls", stalls), outstanding=_whole("outstanding", outstanding, 1, 256),
            reorder=bool(reorder), interleave=bool(interleave))
        _whole("threads", threads, 1, 64)
        self.waveform, format = _waveform(waveform)
        text = cached_verilog(config, observe) if verilog is None else verilog
        self._library = _load(build_library(text, waveform=format, threads=threads, observe=observe,
                                            coverage=coverage, merge=merge))
        if self._library.macaw_bus_bytes() != config.bus_bytes:
            raise ValueError(f"the Verilog has a bus of {self._library.macaw_bus_bytes()} bytes, "
                             f"not the {config.bus_bytes} of config.bus_bytes")
        self.dram = np.zeros(dram_bytes, np.uint8)
        self.seconds = 0.0
        self._cycles = 0
        self._device = self._library.macaw_new(self.dram.ctypes.data, dram_bytes, ctypes.byref(options),
                                               threads)
        if self.waveform is not None:
            self._library.macaw_record(self._device, str(self.waveform).encode(), *waveform_cycles)

    @property
    def cycles(self) -> int:
        if self._device is not None:
            self._cycles = self._library.macaw_cycles(self._device)
        return self._cycles

    def read_register(self, offset: int) -> int:
        value, response = ctypes.c_uint32(), ctypes.c_uint32()
        self._access("read", offset, response, self._library.macaw_read, offset, _REGISTER_LIMIT,
                     ctypes.byref(value), ctypes.byref(response))
        return value.value

    def write_register(self, offset: int, value: int) -> None:
        response = ctypes.c_uint32()
        self._access("write", offset, response, self._library.macaw_write, offset, value, _REGISTER_LIMIT,
                     ctypes.byref(response))

    def wait_interrupt(self, max_cycles: int) -> bool:
        # In pieces, because Python notices Ctrl-C only between them.
        while True:
            piece = min(max_cycles, _CHUNK)
            outcome = self._call(self._library.macaw_run, piece)
            max_cycles -= piece
            if outcome == _DONE or max_cycles <= 0:
                return outcome == _DONE

    def reset(self) -> None:
        """Hard reset of the device; bursts under way in the memory model are forgotten."""
        self._call(self._library.macaw_reset)

    def close(self) -> None:
        if self._device is not None:
            self._cycles = self._library.macaw_cycles(self._device)
            self._library.macaw_delete(self._device)
            self._device = None
            del self.dram

    def inject_error(self, address: int, length: int = 1, *, response: str = "SLVERR",
                     on: str = "both") -> None:
        """Answer accesses that touch ``length`` bytes at ``address`` with SLVERR or DECERR, from now on.

        A read gives the response in each beat concerned, a write in its one response; such beats are neither
        read nor written. ``on`` is ``read``, ``write`` or ``both``.
        """
        for name, value, choices in (("response", response, _RESPONSES), ("on", on, _DIRECTIONS)):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        self._library.macaw_inject(self._open(), address, address + length, _RESPONSES[response],
                                   _DIRECTIONS[on])

    def clear_errors(self) -> None:
        """Undo all `inject_error`."""
        self._library.macaw_clear_errors(self._open())

    def watch(self, stream: str = "load", first: int = 0, end: int = 0, *, response: str = "SLVERR") -> None:
        """Count what the memory answers from now on, and answer beats (of ``store``: bursts) ``first`` up to but not
        including ``end`` of a stream with an error. `watched` tells what came of it.

        A beat with an error is not read. A burst with an error writes nothing.
        """
        for name, value, choices in (("stream", stream, STREAMS), ("response", response, _RESPONSES)):
            if value not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
        self._library.macaw_watch(self._open(), STREAMS.index(stream), first, end, _RESPONSES[response])

    def watched(self) -> Watched:
        """What the memory answered since `watch`."""
        device, found = self._open(), _Watched()
        self._library.macaw_watched(device, ctypes.byref(found), None)
        content = ctypes.create_string_buffer(max(1, found.fetched))
        self._library.macaw_watched(device, ctypes.byref(found), content)
        return Watched(dict(zip(STREAMS, found.counts, strict=True)),
                       None if found.struck == _NONE else found.struck, content.raw[:found.fetched])

    def access(self, accesses: Sequence[Access]) -> None:
        """Make accesses that overlap as far as the device allows: addresses, data and responses each keep their order
        among the writes and among the reads, and wait for nothing else. Results are put into ``accesses``."""
        count = len(accesses)
        entries = (_Access * count)(*(
            _Access(one.write, one.address, one.data, one.strobe, *one.delays) for one in accesses))
        limit = _REGISTER_LIMIT + sum(sum(one.delays) for one in accesses)
        if self._call(self._library.macaw_access, entries, count, limit) == _LIMIT:
            raise TimeoutError(f"no answer to {count} accesses of registers within {limit} cycles: reset the device")
        for one, entry in zip(accesses, entries, strict=True):
            one.data, one.response, one.cycle = entry.data, entry.response, entry.cycle

    def stop_answering(self, after: int = 0, channels: Sequence[str] = ALL_CHANNELS) -> None:
        """Let the memory do nothing more on some of its channels, in ``after`` cycles; `resume_answering` ends it."""
        mask = sum(1 << ALL_CHANNELS.index(channel) for channel in channels)
        self._library.macaw_silent_after(self._open(), after, mask)

    def resume_answering(self) -> None:
        """The end of `stop_answering`; what was under way goes on."""
        self._library.macaw_silent_after(self._open(), _FOREVER, 0)

    def statistics(self) -> dict[str, int]:
        """Bursts accepted and beats transferred by the memory, since the backend was made."""
        counts = _Statistics()
        self._library.macaw_statistics(self._open(), ctypes.byref(counts))
        return {name: getattr(counts, name) for name in _COUNTS}

    def take_events(self) -> tuple[np.ndarray, np.ndarray]:
        """What the units did since the last call, with ``observe``: cycles in which it changed, and from
        each of them on the bits of `macaw_hw.events.EVENTS`. The last entry is all zero."""
        device = self._open()
        count = self._library.macaw_events(device, None)
        entries = np.zeros((count, 2), np.uint64)
        self._library.macaw_events(device, entries.ctypes.data)
        return entries[:, 0].astype(np.int64), entries[:, 1].astype(np.uint32)

    def _open(self):
        if self._device is None:
            raise RuntimeError("the backend is closed")
        return self._device

    def _call(self, function, *arguments):
        device = self._open()
        start = time.perf_counter()
        outcome = function(device, *arguments)
        self.seconds += time.perf_counter() - start
        violation = self._library.macaw_violation(device)
        if violation:
            raise ProtocolError(f"AXI protocol violation in {violation.decode()}")
        return outcome

    def _access(self, verb, offset, response, function, *arguments):
        if self._call(function, *arguments) == _LIMIT:
            raise TimeoutError(f"no answer to a {verb} of register {offset:#x} within {_REGISTER_LIMIT} "
                               "cycles: reset the device")
        if response.value:
            raise BusError(f"the device rejects a {verb} of register {offset:#x}")

    def __del__(self):
        self.close()


class _MemoryOptions(ctypes.Structure):
    _fields_ = [("seed", ctypes.c_uint64), ("silent_from", ctypes.c_uint64),
                *((name, ctypes.c_uint32) for name in (
                    "read_latency", "write_latency", "read_bandwidth", "write_bandwidth", "stall",
                    "outstanding", "reorder", "interleave"))]


class _Statistics(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in _COUNTS]


class _Watched(ctypes.Structure):
    _fields_ = [("counts", ctypes.c_uint64 * len(STREAMS)), ("struck", ctypes.c_uint64), ("fetched", ctypes.c_uint64)]


class _Access(ctypes.Structure):
    _fields_ = [*((name, ctypes.c_uint32) for name in (
        "write", "address", "data", "strobe", "address_delay", "data_delay", "response_delay", "response")),
        ("cycle", ctypes.c_uint64)]


_PROTOTYPES = {
    "macaw_new": (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_uint32),
    "macaw_delete": (None, ctypes.c_void_p),
    "macaw_bus_bytes": (ctypes.c_uint32,),
    "macaw_reset": (None, ctypes.c_void_p),
    "macaw_run": (ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint64),
    "macaw_write": (ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64,
                    ctypes.c_void_p),
    "macaw_read": (ctypes.c_int32, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_void_p,
                   ctypes.c_void_p),
    "macaw_cycles": (ctypes.c_uint64, ctypes.c_void_p),
    "macaw_violation": (ctypes.c_char_p, ctypes.c_void_p),
    "macaw_inject": (None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32,
                     ctypes.c_uint32),
    "macaw_clear_errors": (None, ctypes.c_void_p),
    "macaw_silent_after": (None, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint32),
    "macaw_access": (ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64),
    "macaw_watch": (None, ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32),
    "macaw_watched": (None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p),
    "macaw_statistics": (None, ctypes.c_void_p, ctypes.c_void_p),
    "macaw_events": (ctypes.c_uint64, ctypes.c_void_p, ctypes.c_void_p),
    "macaw_record": (ctypes.c_int32, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64),
}


@cache
def _load(path):
    library = ctypes.CDLL(str(path))
    for name, (result, *arguments) in _PROTOTYPES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _waveform(path):
    if path is None:
        return None, None
    path = Path(path)
    if path.suffix not in ("", ".fst", ".vcd"):
        raise ValueError(f"waveform must end in .fst or .vcd, not {path.suffix!r}")
    format = path.suffix[1:] or waveform_format()
    path = path.with_suffix(f".{format}").absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path, format


def _whole(name, value, low, high):
    if not low <= value <= high:
        raise ValueError(f"{name} must be from {low} to {high}, not {value!r}")
    return value


def _bandwidth(name, value):
    if not 0 < value <= 1:
        raise ValueError(f"{name} must be above 0 and at most 1, not {value!r}")
    return max(1, round(value * _WHOLE))


def _probability(name, value):
    if not 0 <= value <= 0.9:
        raise ValueError(f"{name} must be from 0 to 0.9, not {value!r}")
    return int(value * (1 << 32))
