"""Arithmetic units against NumPy in short (`make arith` is the long way); mutations are found."""

import re

import numpy as np
import pytest
from macaw_hw.config import named_config
from macaw_hw.isa import VectorOp
from macaw_sim import arithmetic
from macaw_sim.arith import __main__, campaign, oracle, pairs, values
from macaw_sim.arith.build import Stream
from macaw_sim.arith.units import units

VECTORS = 500_000
N4 = named_config("n4")
UNITS = units(N4)
COMMAND = ["arith", "--config", "n4", "--jobs", "1", "--vectors", "5000"]

# Unit, pattern in its Verilog, what one of the copies has instead.
MUTATIONS = [
    # No sticky bits of the bytes that alignment drops; ties go up; the sign of a NaN.
    ("add", r"lower <= [^;]*;", "lower <= 1'h0;"),
    ("add", r"\| \S+ \[4\];(?=[^~]*zero_rounded)", "| 1'h1;"),
    ("add", r"~ nan_rounded", "1'h1"),
    # Ties go down; just below 2^-126; overflow too late.
    ("mul", r"\| value\[1\];(?=[^~]*zero_rounded)", ";"),
    ("mul", r"assign least = [^;]*;", "assign least = 1'h0;"),
    ("mul", r"= & rounded\[30:23\];", "= 1'h0;"),
    ("convert", r"= & rounded\[30:23\];", "= 1'h0;"),
    ("accumulate", r"\| \S+ \[4\];(?=[^~]*zero_rounded)", "| 1'h1;"),
    # 127.5 becomes 128; the bias of the exponent; no sticky bits, twice.
    ("quantize", r"= & shifted\[8:2\];", "= 1'h0;"),
    ("load", r"1'h0, [^;]*, leading_zeros\[0\], ", "1'h0, 8'h85 - leading_zeros, "),
    ("store", r"= \| \S+ \[14:0\];", "= 1'h0;"),
    ("to_uint8", r"= \| a\[14:0\];", "= 1'h0;"),
    # Ties go down; of zeros that are equal the first; no limit of the power.
    ("lane.ROUND", r"\| \S+ \[9\];(?=\s+assign up )", ";"),
    ("lane.MAX", r"assign holds = ([^;]*);", r"assign holds = \1 | equal;"),
    ("lane.SCALE2", r"= b_flushed\[30\] & [^;]*;", "= 1'h0;"),
]


@pytest.mark.parametrize("name", UNITS)
def test_unit(name, seed):
    result = campaign.run(UNITS[name], VECTORS, seed)
    assert not result.mismatches, "\n".join(result.examples)
    assert result.vectors > 0.7 * VECTORS  # of tiles, only the rows that are there count


@pytest.mark.parametrize("name", ["convert", "accumulate", "quantize", "load", "store"])
def test_unit_of_another_size(name, seed):
    result = campaign.run(units(named_config("n8"))[name], VECTORS, seed)
    assert not result.mismatches, "\n".join(result.examples)


@pytest.mark.parametrize("name, pattern, wrong", MUTATIONS)
def test_mutation_is_found(name, pattern, wrong, seed):
    text, count = re.subn(pattern, wrong, campaign.verilog_of(UNITS[name]), count=1)
    assert count, f"the Verilog of {name} has no {pattern} any more: choose another mutation"
    result = campaign.run(UNITS[name], VECTORS, seed, text=text)
    assert result.mismatches
    assert "NumPy 0x" in result.examples[0]


@pytest.mark.parametrize("op", VectorOp)
def test_emulator_agrees(op, rng):
    a, b = pairs.crossed_or_drawn(rng, values.SUM_KINDS, 0, 1 << 15, 1 << 15, 8)
    s = rng.choice(values.classes())
    expected = oracle.lane(op, a, b, np.full_like(a, s))
    result = arithmetic.vector_op(op, arithmetic.from_bits(a), arithmetic.from_bits(b), s)
    assert (arithmetic.to_bits(result) == expected).all()


def test_cross_is_complete(monkeypatch):
    """Every class meets every class, once."""
    numbers = values.classes()[:5 * values.HOLD]
    monkeypatch.setattr(pairs, "_classes", lambda: numbers)
    total, piece, met = 2 * len(numbers) ** 2, 1 << 13, []
    for start in range(0, total, piece):
        if not pairs.in_cross(start, total):
            break
        x, y = pairs.crossed_or_drawn(None, (), start, piece, total, 8)
        met += zip(x.tolist(), y.tolist(), strict=True)
    assert len(set(met[:len(numbers) ** 2])) == len(set(met)) == len(numbers) ** 2


@pytest.mark.parametrize("size", [4, 16])
def test_every_element_is_met(size, rng):
    """Tiles that follow each other have all signs, mantissas and distances in turn."""
    from macaw_sim.arith.units import _every_element
    area = size * size
    first, second = (_every_element(rng, tile, 64, area) for tile in (1000, 1064))
    index = 1000 * (area - 1) + np.arange(128 * (area - 1))
    x = np.concatenate([first, second])
    assert ((x[:, 1:] & 0x7FFFFF).ravel() == index & 0x7FFFFF).all()
    distance = (x[:, :1] >> 23) - (x[:, 1:] >> 23 & 0xFF)
    assert (distance.ravel() == index >> 24).all()


def test_what_does_not_fit_is_refused():
    stream = Stream(campaign.verilog_of(UNITS["add"]))
    with pytest.raises(ValueError, match=r"inputs must be \[elements, 16\], not \[3, 4\]"):
        stream.run(np.zeros((3, 4), np.uint32), 3)
    for outputs in (2, 4):
        with pytest.raises(AssertionError, match=f"3 inputs gave 3 outputs instead of {outputs}"):
            stream.run(np.zeros((3, 16), np.uint32), outputs)


def test_command(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(__main__, "_path", lambda task: tmp_path / task[1])
    monkeypatch.setattr("sys.argv", [*COMMAND, "--unit", "add", "--unit", "lo*", "--resume"])
    assert __main__.main() == 0
    assert "| add: FloatAdd | 6,144 |" in capsys.readouterr().out
    monkeypatch.setattr(__main__, "_run", None)  # what is recorded is not repeated
    assert __main__.main() == 0
    assert "| load: RowWriter, UINT8 to float32 | 6,144 |" in capsys.readouterr().out


def test_command_reports_mismatches(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(__main__, "_path", lambda task: tmp_path / task[1])
    monkeypatch.setattr("sys.argv", [*COMMAND, "--unit", "load"])
    monkeypatch.setattr(__main__, "run", lambda unit, vectors, seed: campaign.Result(
        unit.name, 5000, 3, 0.1, ("x=0x00000001: 0x3f800001, NumPy 0x3f800000",)))
    assert __main__.main() == 1
    output = capsys.readouterr()
    assert "x=0x00000001: 0x3f800001, NumPy 0x3f800000" in output.out
    assert "mismatch in load" in output.err


def test_command_refuses(monkeypatch, capsys):
    for extra, message in ((["--unit", "div"], "there is no unit 'div'"),
                           (["--vectors", "0"], "--vectors must be at least 1, not 0")):
        monkeypatch.setattr("sys.argv", [*COMMAND, *extra])
        with pytest.raises(SystemExit):
            __main__.main()
        assert message in capsys.readouterr().err
