"""Pipelined float32 arithmetic. The lanes are compared over many more numbers in test_activation."""

import pytest
from macaw_hw import float32
from macaw_hw.config import CONFIGS
from macaw_hw.float32 import FloatAdd, FloatMul, IntToFloat
from macaw_hw.shifts import shift_multipliers
from macaw_sim.runner import SimulationError, run_cocotb, simulators

_UNITS = {"FloatAdd": FloatAdd, "FloatAdd_2": lambda: FloatAdd(multipliers=2),
          "FloatAdd_4": lambda: FloatAdd(multipliers=4), "FloatMul": FloatMul,
          "IntToFloat": lambda: IntToFloat(width=20), "IntToFloat2": lambda: IntToFloat(width=2),
          "IntToFloat_1": lambda: IntToFloat(width=19, multipliers=1),
          "IntToFloat2_1": lambda: IntToFloat(width=2, multipliers=1),
          "IntToFloat_2": lambda: IntToFloat(width=20, multipliers=2)}


def _run(name, vectors, **options):
    component = _UNITS[name]()
    run_cocotb(component, "float32", name=name, parameters={
        "unit": type(component).__name__, "latency": component.latency, "vectors": vectors,
        "width": getattr(component, "width", None)}, **options)


@pytest.mark.parametrize("name", _UNITS)
def test_float32(name):
    _run(name, 40000)


@pytest.mark.skipif("icarus" not in simulators(), reason="Icarus Verilog is not installed")
@pytest.mark.parametrize("name", ["FloatAdd", "FloatMul", "IntToFloat"])
def test_float32_icarus(name):
    _run(name, 2000, simulator="icarus")


def test_wrong_rounding_is_found(monkeypatch):
    """Halfway cases rounded up instead of to even."""
    right = float32._packed

    def half_up(m, o, *, value, sticky, **parts):
        right(m, o, value=value, sticky=1, **parts)

    monkeypatch.setattr(float32, "_packed", half_up)
    with pytest.raises(SimulationError, match="results differ"):
        _run("FloatMul", 20000)


@pytest.mark.parametrize("width", [1, 25])
def test_width_of_integers(width):
    with pytest.raises(ValueError, match=f"^width must be from 2 to 24, not {width}$"):
        IntToFloat(width=width)


def test_multipliers_of_the_adder():
    with pytest.raises(ValueError, match="^multipliers must be one of 0, 2, 4, not 1$"):
        FloatAdd(multipliers=1)


def test_multipliers_are_what_products_leave():
    given = {name: shift_multipliers(config) for name, config in CONFIGS.items()}
    assert given["n4"] == {"convert": 1, "lane": 4, "accumulator": 4}
    assert given["n8"] == {"convert": 1, "lane": 2, "accumulator": 4}
    assert not any(given["n16"].values()) and not any(given["n32"].values())
