"""Proofs with the engines inside of Yosys: some hold, and all fail where the unit is wrong.

All of them: ``make formal``."""

import subprocess
import sys

import pytest
from macaw_sim.formal import PROOFS, engine
from macaw_sim.formal.mutants import MUTANTS

QUICK = ["read_arbiter"]


@pytest.mark.parametrize("name", QUICK)
def test_holds(name, tmp_path):
    result = engine.run(PROOFS[name], tmp_path)
    assert result.good, result.message


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{mutant.proof}-{mutant.new}")
def test_mutant_fails(mutant, tmp_path):
    with mutant.applied():
        result = engine.run(PROOFS[mutant.proof], tmp_path, reach=False)
    assert len(result.failed) == 1 and mutant.property in result.failed[0], result.message
    assert result.trace.read_text().count("bad_") > 0
    assert not engine.run(PROOFS[mutant.proof], tmp_path, reach=False).failed


def test_unknown_proof():
    done = subprocess.run([sys.executable, "-m", "macaw_sim.formal", "--only", "nothing"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--only must name one of read_arbiter" in done.stderr
