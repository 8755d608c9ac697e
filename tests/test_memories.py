"""Vector memory and tile memory, and how their contents appear in Verilog."""

import pytest
from amaranth.back import verilog
from macaw_hw.config import named_config
from macaw_hw.memory_init import fold_memory_init
from macaw_hw.tile_memory import TileMemory
from macaw_hw.vector_memory import VectorMemory
from macaw_sim.runner import build_and_run, simulators

_KINDS = {"vector": VectorMemory, "tile": TileMemory}


def _verilog(kind, config, name):
    return verilog.convert(_KINDS[kind](config=config), name=name, emit_src=False, strip_internal_attrs=True)


@pytest.mark.parametrize("simulator", simulators())
@pytest.mark.parametrize(("name", "cycles"), [("n4", 3000), ("n16", 800)])
@pytest.mark.parametrize("kind", _KINDS)
def test_memory(kind, name, cycles, simulator):
    top = f"{kind}_memory"
    text = fold_memory_init(_verilog(kind, named_config(name), top))
    build_and_run(text, "memories", name=top, simulator=simulator,
                  parameters={"config": name, "kind": kind, "depth": 3, "cycles": cycles})


@pytest.mark.parametrize("kind", _KINDS)
def test_memory_init_is_folded(kind):
    text = _verilog(kind, named_config("n4"), "memory")
    folded = fold_memory_init(text)
    memories = folded.count("`ifndef SYNTHESIS")
    assert memories == {"vector": 2, "tile": 2 * (4 + 1)}[kind]
    assert "] = " not in folded.replace("_index] = ", "")
    removed = sum(line.startswith("    ") and "] = " in line for line in text.splitlines())
    assert len(text.splitlines()) - len(folded.splitlines()) == removed - 2 * memories


@pytest.mark.parametrize("content", [
    "    rom[0] = 8'h00;\n    rom[1] = 8'h01;\n",
    "    rom[0] = 8'h00;\n    rom[2] = 8'h00;\n",
    "    rom[0] = 8'h00;\n    ram[1] = 8'h00;\n",
])
def test_other_contents_stay(content):
    text = f"  reg [7:0] rom [1:0];\n  initial begin\n{content}  end\n"
    assert fold_memory_init(text) == text


def test_escaped_names():
    text = "  initial begin\n    \\a$1 [0] = 8'h00;\n    \\a$1 [1] = 8'h00;\n  end\n"
    assert "  initial for (\\a$1_index  = 0; \\a$1_index  < 2; " in fold_memory_init(text)
