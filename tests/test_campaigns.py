"""Wrong options of the verification commands: one line that names the value and the limit, and exit code 2."""

import sys

import pytest
from macaw_sim import rtl_coverage, tools
from macaw_sim.formal import __main__ as formal
from macaw_sim.fuzz import __main__ as fuzz


@pytest.mark.parametrize("command, options, message", [
    (formal, ["--jobs", "0"], "--jobs must be at least 1, not 0"),
    (fuzz, ["--count", "-5"], "--count must be at least 0, not -5"),
    (fuzz, ["--beats", "-1"], "--beats must be at least 0, not -1"),
    (fuzz, ["--replay", "no.npz"], "there is no file no.npz; failures are saved under build/fuzz"),
    (rtl_coverage, ["--count", "0"], "--count must be at least 1, not 0"),
])
def test_wrong_options(command, options, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["command", *options])
    with pytest.raises(SystemExit) as end:
        command.main()
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].endswith(f"error: {message}")


@pytest.mark.parametrize("command, work", [(fuzz, "campaign.legal"), (rtl_coverage, "collect")])
def test_missing_tool(command, work, monkeypatch, capsys):
    def missing(*arguments, **options):
        raise tools.ToolError("a C++ compiler is missing: install g++")
    module, _, name = work.rpartition(".")
    monkeypatch.setattr(getattr(command, module) if module else command, name, missing)
    monkeypatch.setattr(sys, "argv", ["command"])
    assert command.main() == 1
    assert capsys.readouterr().err == "macaw: error: a C++ compiler is missing: install g++\n"
