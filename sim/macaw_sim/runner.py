"""Runs cocotb testbenches of Amaranth components in Verilator or Icarus Verilog.

A component becomes Verilog, the Verilog a simulator in a directory of its own below ``build/sim``, named
after the content, so that the same parametrisation is compiled once, also by parallel test processes.
"""

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import zlib
from contextlib import contextmanager
from importlib import util
from pathlib import Path

from amaranth.back import verilog

from . import tools

__all__ = ["SimulationError", "default_seed", "simulators", "run_cocotb", "build_and_run", "build_verilog"]

_ARGUMENTS = {"verilator": ["-Wno-fatal", "--output-split", "20000"], "icarus": []}
_FAST_COMPILE = {"OPT_FAST": "-O1", "OPT_SLOW": "-O0", "OPT_GLOBAL": "-O0"}
_RUNTIME = ("verilated", "verilated_dpi", "verilated_threads", "verilated_vpi")
_RUNTIME_FLAGS = ("-O1", "-DVERILATOR=1", *(f"-DVM_{name}=0" for name in (
    "COVERAGE", "SC", "TIMING", "TRACE", "TRACE_FST", "TRACE_VCD", "TRACE_SAIF")))
_TIMESCALE = ("1ns", "1ps")
_LOG_LINES = 60
_UNTRIGGERED = re.compile(r"always @\*$(?=\n[^\n]*;$)", re.MULTILINE)
_TRIGGER = re.compile(r"reg (\\\$auto\$verilog_backend\S+)  = 0;")


class SimulationError(AssertionError):
    """A testbench failed, or could not be built; the message ends with the last lines of its log."""


def simulators():
    """Names of the simulators that are installed, for ``pytest.mark.parametrize``."""
    found = ["verilator"]
    try:
        tools.icarus()
        found.append("icarus")
    except tools.ToolError:
        pass
    return found


def run_cocotb(component, testbench, *, name, simulator="verilator", parameters=None, env=None, testcase=None,
               seed=None, waves=False):
    """Run a testbench on a component and raise if a test fails.

    Parameters
    ----------
    component : wiring.Component
        The top level. Clock and reset are ports ``clk`` and ``rst``; members of interfaces are joined with
        two underscores (``control__instruction__payload``).
    testbench : str
        Module with the cocotb tests: one of `macaw_sim.testbenches`, or any that can be imported.
    name : str
        Name of the top module and beginning of the build directory's name.
    simulator : str
        One of `simulators`.
    parameters : dict, optional
        For the testbench, which reads them with `macaw_sim.testbenches.parameters`; JSON types.
    env : dict, optional
        More environment variables for the testbench.
    testcase : str or list of str, optional
        Tests to run; all by default.
    seed : int, optional
        Seed of every random choice; by default that of `default_seed`. It is printed.
    waves : bool
        Record a waveform in the run directory.

    Returns
    -------
    pathlib.Path
        Directory of the run, with ``run.log``.

    Raises
    ------
    SimulationError
        If the build or a test failed, or no test ran.
    ToolError
        If the simulator or what it needs is missing.
    """
    text = verilog.convert(component, name=name, emit_src=False, strip_internal_attrs=True)
    return build_and_run(text, testbench, name=name, simulator=simulator, parameters=parameters, env=env,
                         testcase=testcase, seed=seed, waves=waves)


def default_seed(*what):
    """``MACAW_SEED`` of the environment: a number, ``random`` for a new one, or else one that belongs to ``what``."""
    wish = os.environ.get("MACAW_SEED")
    if wish == "random":
        return random.SystemRandom().randrange(1 << 31)
    return int(wish) if wish else zlib.crc32(repr(what).encode()) >> 1


def build_and_run(text, testbench, *, name, simulator="verilator", parameters=None, env=None, testcase=None,
                  seed=None, waves=False):
    """The same as `run_cocotb`, for a component that is Verilog already."""
    build = build_verilog(text, name=name, simulator=simulator, waves=waves)
    if seed is None:
        seed = default_seed(testbench, name, testcase, parameters)
    known = f"macaw_sim.testbenches.{testbench}"
    module = known if util.find_spec(known) else testbench
    extra = {"MACAW_PARAMETERS": json.dumps(parameters or {}, sort_keys=True), **(env or {})}
    what = f"{module} on {name} in {simulator}, seed {seed}"
    print(what, extra["MACAW_PARAMETERS"])
    run = build / ("run-" + _hash(module, testcase, sorted(extra.items()), os.getpid()))
    shutil.rmtree(run, ignore_errors=True)
    run.mkdir(parents=True)
    results, log = run / "results.xml", run / "run.log"
    runner = _runner(simulator)
    with _environment(simulator):
        try:
            runner.test(test_module=module, hdl_toplevel=name, hdl_toplevel_lang="verilog", build_dir=build,
                        test_dir=run, testcase=testcase, seed=seed, waves=waves, extra_env=extra,
                        results_xml=str(results), log_file=log,
                        timescale=None if simulator == "verilator" else _TIMESCALE)
        except (RuntimeError, SystemExit) as error:
            # A simulator that ends badly may still have said in its results which test failed.
            if not results.is_file():
                raise SimulationError(f"{what}: {error}\n{_tail(log)}") from None
    _check(results, what, log)
    return run


def build_verilog(text, *, name, simulator="verilator", waves=False):
    """Compile Verilog with top module ``name`` for cocotb, unless that was done before; the directory."""
    if simulator not in ("verilator", "icarus"):
        raise ValueError(f"simulator must be verilator or icarus, not {simulator!r}")
    tool = tools.verilator() if simulator == "verilator" else tools.icarus()
    if simulator == "icarus":
        # `always @*` waits for a change, and what has constant inputs would stay X. Yosys begins longer blocks with a
        # register that it sets at the start, but in SystemVerilog, which cocotb asks for, that is too early.
        text = _UNTRIGGERED.sub("always_comb", _TRIGGER.sub(r"reg \1 ; initial #0 \1 = 0;", text))
    from cocotb_tools import config
    key = _hash(text, tool, waves, _ARGUMENTS[simulator], sorted(_FAST_COMPILE.items()), config.libs_dir)
    build = tools.output_directory("sim", "cocotb") / f"{name}-{simulator}-{key}"
    with tools.locked(build.with_suffix(".lock")):
        if not (build / "complete").exists():
            shutil.rmtree(build, ignore_errors=True)
            build.mkdir()
            source, log = build / f"{name}.v", build / "build.log"
            source.write_text(text)
            try:
                with _environment(simulator, _shared_runtime(tool) if not waves else {}):
                    _runner(simulator).build(
                        sources=[source], hdl_toplevel=name, build_dir=build, waves=waves, log_file=log,
                        timescale=_TIMESCALE, build_args=_ARGUMENTS[simulator])
            except (RuntimeError, SystemExit) as error:
                raise SimulationError(f"{name} does not build: {error}\n{_tail(log)}") from None
            (build / "complete").touch()
    return build


def _runner(simulator):
    from cocotb_tools.runner import get_runner
    return get_runner(simulator)


@contextmanager
def _environment(simulator, make_variables=None):
    """cocotb's runners look for programs in, and copy, the environment of this process."""
    before = dict(os.environ)
    if simulator == "verilator":
        os.environ.update(tools.verilator_environment(make_variables=_FAST_COMPILE | (make_variables or {})))
    # With this variable the runner would end pytest itself when a test fails.
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _shared_runtime(tool):
    """Make variables that link Verilator's run-time library from objects that all testbenches share.

    Only for the Verilator of the Python package, whose makefile adds no flags of its own to these.
    """
    if tool.root is None:
        return {}
    cxx, include = tools.compiler().path, Path(tool.root, "include")
    folder = tools.output_directory("sim", "cocotb") / f"runtime-{_hash(tool, tools.compiler(), _RUNTIME_FLAGS)}"
    objects = [folder / f"{name}.o" for name in _RUNTIME]
    with tools.locked(folder.with_suffix(".lock")):
        if not folder.exists():
            temporary = folder.with_suffix(".tmp")
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            running = [subprocess.Popen([cxx, *_RUNTIME_FLAGS, f"-I{include}", f"-I{include / 'vltstd'}", "-c", "-o",
                                         temporary / f"{name}.o", include / f"{name}.cpp"]) for name in _RUNTIME]
            if any([process.wait() for process in running]):
                raise SimulationError(f"the run-time library of Verilator does not compile with {cxx}")
            temporary.rename(folder)
    return {"VM_GLOBAL_FAST": "", "VM_GLOBAL_SLOW": "", "USER_LDLIBS": " ".join(map(str, objects))}


def _check(results, what, log):
    from cocotb_tools.check_results import get_results
    try:
        count, failed = get_results(results)
    except RuntimeError as error:
        raise SimulationError(f"{what}: {error}\n{_tail(log)}") from None
    if count == 0:
        raise SimulationError(f"{what}: no test ran\n{_tail(log)}")
    if failed:
        raise SimulationError(f"{what}: {failed} of {count} tests failed\n{_tail(log)}")


def _tail(log):
    lines = Path(log).read_text(errors="replace").splitlines() if Path(log).is_file() else []
    return "\n".join([f"(end of {log})", *lines[-_LOG_LINES:]])


def _hash(*values):
    return hashlib.sha256(repr(values).encode()).hexdigest()[:16]
