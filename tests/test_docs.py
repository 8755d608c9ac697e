"""The documentation: generated pages are up to date, the README's example runs as printed, links lead somewhere."""

import contextlib
import io
import re
import subprocess
import sys
import xml.etree.ElementTree

import pytest
from macaw_hw import reference
from macaw_hw.config import CONFIGS
from macaw_hw.isa import FORMATS, VectorOp
from macaw_hw.registers import REGISTERS


@pytest.mark.parametrize("name", reference.PAGES)
def test_generated_page_is_up_to_date(root, name):
    assert (root / "docs" / name).read_text() == reference.PAGES[name](), "run `make docs`"


def test_isa_page_is_complete():
    page = reference.isa_page()
    for format in FORMATS.values():
        assert f"\n## {format.opcode.name}\n" in page
        assert all(f"| `{field.name}` |" in page for field in format.fields)
    for op in VectorOp:
        assert re.search(rf"^\| {int(op)} \| `{op.name}` \| [^|]* \| {re.escape(op.operands.formula)} \|$",
                         page.replace("\\|", "|"), re.MULTILINE)


def test_registers_page_is_complete():
    page = reference.registers_page()
    for name, register in REGISTERS.items():
        assert f"| `{register.offset:#05x}` | `{name}` | {register.width} |" in page
        assert all(f"`{bits.name}`" in page for bits in register.bits)


def test_write(tmp_path):
    reference.write(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(reference.PAGES)


def test_readme_example(root, tmp_path, monkeypatch):
    text = (root / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL).group(1)
    expected = re.search(r"```text\n(.*?)```", text, re.DOTALL).group(1)
    monkeypatch.chdir(tmp_path)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert printed.getvalue() == expected
    assert (tmp_path / "digits.safetensors").stat().st_size > 4 * (64 * 32 + 32 * 10)


def test_example_of_a_program(root):
    """The example that drives the units itself: four instructions in a chain of tokens, a product close to NumPy's."""
    result = subprocess.run([sys.executable, root / "examples" / "matrix_product.py"], text=True, capture_output=True,
                            check=True)
    *program, last = result.stdout.splitlines()
    assert [line.split()[1] for line in program] == ["LOAD", "VECTOR", "MATRIX", "STORE"]
    assert float(re.search(r"largest error against float32: (\S+)", last).group(1)) < 0.3


def test_links(root):
    pages = [root / "README.md", root / "CHANGELOG.md", *(root / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_picture(root):
    svg = xml.etree.ElementTree.parse(root / "docs" / "architecture.svg").getroot()
    assert svg.tag.endswith("svg") and svg.get("viewBox")
    text = " ".join(svg.itertext())
    for part in ("Registers", "Sequencer", "DMA engine", "Tile memory", "MAC array", "Vector memory",
                 "Activation unit", "quantizer"):
        assert part in text


def test_readme_names_the_configurations(root):
    text = (root / "README.md").read_text()
    assert all(f"`{name}`" in text for name in CONFIGS)
