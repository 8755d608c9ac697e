"""The AXI4 memory model with its pins in the hands of a Python test."""

import ctypes
import hashlib
import subprocess
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

from macaw_sim import tools
from macaw_sim.verilator.backend import _MemoryOptions

__all__ = ["Bus", "FOREVER"]

FOREVER = (1 << 64) - 1
_DEFAULTS = {"seed": 0, "silent_from": FOREVER, "read_latency": 1, "write_latency": 1, "read_bandwidth": 1 << 16,
             "write_bandwidth": 1 << 16, "stall": 0, "outstanding": 16, "reorder": 0, "interleave": 0}


class Pins(ctypes.Structure):
    _fields_ = [("araddr", ctypes.c_uint64), ("awaddr", ctypes.c_uint64),
                *((name, ctypes.c_uint32) for name in (
                    "arvalid", "arlen", "arsize", "arburst", "arlock", "arid", "rready",
                    "awvalid", "awlen", "awsize", "awburst", "awlock", "awid",
                    "wvalid", "wstrb", "wlast", "bready",
                    "arready", "awready", "wready", "rvalid", "rid", "rresp", "rlast", "bvalid", "bid", "bresp")),
                ("wdata", ctypes.c_uint8 * 32), ("rdata", ctypes.c_uint8 * 32)]


class Bus:
    """One memory over the array ``memory``; ``options`` are the fields of the model's MemoryOptions."""

    def __init__(self, memory, width, **options):
        self._library = _library()
        self._memory = memory
        self.width = width
        self.time = 0
        self.pins = Pins(arsize=width.bit_length() - 1, awsize=width.bit_length() - 1, arburst=1, awburst=1)
        self._handle = self._library.memory_new(width, memory.ctypes.data, memory.size,
                                                ctypes.byref(_MemoryOptions(**_DEFAULTS | options)))

    def __del__(self):
        self._library.memory_delete(self._handle)

    def cycle(self, **pins):
        """Set pins, run one cycle; what was transferred in it (``r``, ``b``: the payload or None)."""
        p = self.pins
        for name, value in pins.items():
            if name == "wdata":
                p.wdata[:len(value)] = value
            else:
                setattr(p, name, value)
        moved = SimpleNamespace(ar=p.arvalid and p.arready, aw=p.awvalid and p.awready, w=p.wvalid and p.wready,
                                r=None, b=None)
        if p.rvalid and p.rready:
            moved.r = SimpleNamespace(id=p.rid, resp=p.rresp, last=p.rlast, data=bytes(p.rdata[:self.width]))
        if p.bvalid and p.bready:
            moved.b = SimpleNamespace(id=p.bid, resp=p.bresp)
        self._library.memory_cycle(self._handle, ctypes.byref(p))
        self.time += 1
        return moved

    def idle(self):
        """Lower all valids and readies."""
        for name in ("arvalid", "awvalid", "wvalid", "rready", "bready"):
            setattr(self.pins, name, 0)

    def read(self, address, beats, id=0, limit=5000):
        """A whole read burst; its beats, each with the cycles since its address as ``delay``."""
        result, start = [], None
        self.pins.arvalid, self.pins.rready = 1, 1
        self.pins.araddr, self.pins.arlen, self.pins.arid = address, beats - 1, id
        for _ in range(limit):
            now, moved = self.time, self.cycle()
            if moved.ar:
                self.pins.arvalid, start = 0, now
            if moved.r:
                moved.r.delay = now - start
                result.append(moved.r)
                if moved.r.last:
                    self.idle()
                    return result
        raise TimeoutError("no end of the read burst")

    def write(self, address, data, strobes=None, id=0, limit=5000):
        """A whole write burst of ``data`` bytes; its response, with the cycles since the last beat."""
        beats = [data[i:i + self.width] for i in range(0, len(data), self.width)]
        strobes = strobes or [(1 << self.width) - 1] * len(beats)
        sent, last = 0, None
        self.pins.awvalid, self.pins.bready = 1, 1
        self.pins.awaddr, self.pins.awlen, self.pins.awid = address, len(beats) - 1, id
        for _ in range(limit):
            if sent < len(beats):
                self.pins.wvalid, self.pins.wstrb, self.pins.wlast = 1, strobes[sent], sent == len(beats) - 1
                self.pins.wdata[:self.width] = beats[sent]
            now, moved = self.time, self.cycle()
            if moved.aw:
                self.pins.awvalid = 0
            if moved.w:
                sent, last = sent + 1, now
                self.pins.wvalid = 0
            if moved.b:
                self.idle()
                moved.b.delay = now - last
                return moved.b
        raise TimeoutError("no response to the write burst")

    def reset(self):
        self._library.memory_reset(self._handle)

    def inject(self, first, end, response, directions):
        self._library.memory_inject(self._handle, first, end, response, directions)

    def silent_from(self, cycle):
        self._library.memory_silent_from(self._handle, cycle)

    @property
    def violation(self):
        return self._library.memory_violation(self._handle).decode()


def _library():
    sources = [Path(__file__).with_name("axi_memory_driver.cpp"), files("macaw_sim.verilator") / "axi_memory.h"]
    key = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    path = tools.output_directory("sim", "tests") / f"axi-memory-{key}.so"
    with tools.locked(path.with_suffix(".lock")):
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            subprocess.run([tools.compiler().path, "-std=c++14", "-Wall", "-Wextra", "-Werror", "-O1", "-fPIC",
                            "-shared", f"-I{sources[1].parent}", "-o", temporary, sources[0]], check=True)
            temporary.replace(path)
    library = ctypes.CDLL(str(path))
    library.memory_new.restype = ctypes.c_void_p
    library.memory_new.argtypes = ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p
    library.memory_violation.restype = ctypes.c_char_p
    library.memory_inject.argtypes = (ctypes.c_void_p, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint32,
                                      ctypes.c_uint32)
    library.memory_silent_from.argtypes = ctypes.c_void_p, ctypes.c_uint64
    library.memory_cycle.argtypes = ctypes.c_void_p, ctypes.c_void_p
    for name in ("delete", "reset", "violation"):
        getattr(library, f"memory_{name}").argtypes = (ctypes.c_void_p,)
    return library
