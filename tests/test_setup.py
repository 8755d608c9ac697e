"""The set-up by ``make``: what is missing is said in one line that names what to install."""

import shutil
import stat
import subprocess

import pytest

PYTHON_OK = "#!/bin/sh\nexit 0\n"
PYTHON_OLD = '#!/bin/sh\ncase "$2" in *version_info*) exit 1;; esac\n'
PYTHON_BARE = '#!/bin/sh\ncase "$2" in *ensurepip*) exit 1;; esac\n'


@pytest.fixture
def make(root, tmp_path, monkeypatch):
    """Runs make with nothing on the path but a shell and the given programs (None: the real one)."""
    def run(*arguments, **programs):
        tools = tmp_path / "bin"
        tools.mkdir()
        for name, script in {"sh": None, "make": None, **programs}.items():
            if script is None:
                (tools / name).symlink_to(shutil.which(name))
            else:
                (tools / name).write_text(script)
                (tools / name).chmod(stat.S_IRWXU)
        shutil.copy(root / "Makefile", tmp_path)
        shutil.copy(root / "pyproject.toml", tmp_path)
        return subprocess.run([tools / "make", *arguments], cwd=tmp_path, env={"PATH": str(tools)}, text=True,
                              capture_output=True, check=False)
    return run


@pytest.mark.parametrize("programs, message", [
    ({}, "python3 is missing; install Python 3.11 or newer (Debian: apt install python3 python3-venv)"),
    ({"python3": PYTHON_OLD}, "python3 is older than 3.11; install a newer one and run: make PYTHON=python3.11 ..."),
    ({"python3": PYTHON_BARE}, "python3 cannot make virtual environments; install its venv module "
                               "(Debian: apt install python3-venv)"),
    ({"python3": PYTHON_OK}, "perl is missing and Verilator needs it (Debian: apt install perl)"),
    ({"python3": PYTHON_OK, "perl": None},
     "a C++ compiler is missing and Verilator needs it (Debian: apt install g++)"),
])
@pytest.mark.parametrize("target", ["train", "test"])
def test_missing(make, target, programs, message):
    result = make(target, **programs)
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if not line.startswith("make:")]
    assert lines == [f"macaw: error: {message}"]


def test_help_names_the_targets(make):
    result = make("help", echo=None)
    assert result.returncode == 0
    for target in "train", "test", "lint", "verilog", "synth", "docs", "clean":
        assert f"make {target} " in result.stdout
