"""Shared libraries of small components, through which NumPy arrays are streamed."""

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
from amaranth.back import verilog

from .. import tools
from ..verilator.build import BuildError

__all__ = ["Stream", "generated"]

_RUNTIME = ("verilated", "verilated_threads")
_FLAGS = ("-std=c++17", "-fPIC", "-DVERILATOR=1", *(f"-DVM_{name}=0" for name in (
    "COVERAGE", "SC", "TIMING", "TRACE", "TRACE_FST", "TRACE_VCD", "TRACE_SAIF")))
_VERILATE = ("--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal",
             "--top-module", "macaw", "--prefix", "Vmacaw", "-Mdir", "obj")
_OPTIMIZE = ("-O2", "-fno-semantic-interposition")


def generated(component):
    """Verilog of ``component``, one of `macaw_sim.arith.tops`, as the module ``macaw``."""
    return verilog.convert(component, name="macaw", emit_src=False, strip_internal_attrs=True)


class Stream:
    """Verilog with the ports of `macaw_sim.arith.tops.StreamTop`, compiled once for each content.

    Parameters
    ----------
    text : str
        Verilog with the top module ``macaw``.

    Raises
    ------
    ToolError, BuildError
        If the simulator cannot be built.
    """

    def __init__(self, text):
        self._library = _load(_library(text))

    def run(self, inputs, outputs):
        """What comes out for ``inputs`` (uint32 [elements, words]): uint32 [outputs, words].

        The component is reset before.

        Raises
        ------
        ValueError
            If the inputs do not have the width of the component.
        AssertionError
            If not exactly ``outputs`` elements come out.
        """
        words_in = self._library.stream_in_bytes() // 4
        inputs = np.ascontiguousarray(inputs, np.uint32)
        if inputs.ndim != 2 or inputs.shape[1] != words_in:
            raise ValueError(f"inputs must be [elements, {words_in}], not {list(inputs.shape)}")
        words_out = self._library.stream_out_bytes() // 4
        result = np.empty((outputs, words_out), np.uint32)
        came = self._library.stream_run(inputs.ctypes.data, len(inputs), result.ctypes.data,
                                        outputs)
        assert came == outputs, f"{len(inputs)} inputs gave {came} outputs instead of {outputs}"
        return result


@cache
def _load(path):
    library = ctypes.CDLL(str(path))
    library.stream_in_bytes.restype = library.stream_out_bytes.restype = ctypes.c_uint32
    library.stream_run.restype = ctypes.c_uint64
    library.stream_run.argtypes = (ctypes.c_void_p, ctypes.c_uint64) * 2
    return library


def _library(text):
    driver = files(__package__).joinpath("stream.cpp").read_text()
    key = _hash(text, driver, _VERILATE, _FLAGS, _OPTIMIZE, tools.verilator(), tools.compiler())
    library = tools.output_directory("sim", "arith") / f"{key}.so"
    with tools.locked(library.with_suffix(".lock")):
        if not library.exists():
            # In a folder of its own, also because make rejects one with a blank in its path.
            with tempfile.TemporaryDirectory(prefix="macaw-build-") as folder:
                Path(folder, "macaw.v").write_text(text)
                Path(folder, "stream.cpp").write_text(driver)
                _build(library, folder)
    return library


def _build(library, folder):
    environment = tools.verilator_environment()
    program = shutil.which("verilator", path=environment["PATH"])
    log = library.with_suffix(".log")
    _call([program, *_VERILATE, "macaw.v"], folder, environment, log)
    root = Path(tools.verilator().root
                or _call([program, "--getenv", "VERILATOR_ROOT"], folder, environment, log))
    # In one piece, because most of the compiler's time goes into Verilator's headers.
    sources = ["stream.cpp", *sorted(path.name for path in Path(folder, "obj").glob("*.cpp"))]
    Path(folder, "all.cpp").write_text("".join(f'#include "{name}"\n' for name in sources))
    _call([tools.compiler().path, *_FLAGS, *_OPTIMIZE, "-shared", *_includes(root), "-I.", "-Iobj",
           "-o", "macaw.so", "all.cpp", *_runtime(root, environment, log), "-lpthread"],
          folder, environment, log)
    temporary = library.with_suffix(".tmp")
    shutil.copyfile(Path(folder, "macaw.so"), temporary)
    temporary.replace(library)


def _runtime(root, environment, log):
    """Object files of Verilator's run-time library; they are the same for all components."""
    key = _hash(tools.verilator(), tools.compiler(), _FLAGS)
    shared = tools.output_directory("sim", "arith", f"runtime-{key}")
    objects = [shared / f"{name}.o" for name in _RUNTIME]
    with tools.locked(shared / "lock"):
        for path in objects:
            if not path.exists():
                temporary = path.with_suffix(".tmp")
                source = root / "include" / f"{path.stem}.cpp"
                _call([tools.compiler().path, *_FLAGS, "-O1", *_includes(root), "-c",
                       "-o", str(temporary), str(source)], shared, environment, log)
                temporary.replace(path)
    return [str(path) for path in objects]


def _includes(root):
    return [f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]


def _call(command, folder, environment, log):
    result = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True, check=False)
    log.write_text(result.stdout)
    if result.returncode:
        lines = result.stdout.splitlines()
        errors = [line for line in lines if "rror" in line] or lines[-5:]
        raise BuildError("the simulator does not build: "
                         f"{Path(command[0]).name} failed (log: {log})\n  "
                         + "\n  ".join(errors[:5]))
    return result.stdout.strip()


def _hash(*values):
    return hashlib.sha256(repr(values).encode()).hexdigest()[:24]
