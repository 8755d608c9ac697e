"""The C header: compiled as C and as C++, it has the values of the description and encodes the same bytes."""

import re
import subprocess

import pytest
from amaranth.hdl import Shape
from macaw_hw import isa
from macaw_hw.c_header import header
from macaw_hw.config import CONFIGS, named_config
from macaw_hw.registers import IDENTITY, REGISTERS, VERSION
from macaw_sim import tools

LANGUAGES = {"c": "-std=c11", "c++": "-std=c++11"}


@pytest.fixture(params=LANGUAGES)
def run(request, tmp_path):
    """Compiles the header of a configuration with statements around ``main``; gives the lines it prints."""
    def run(statements, config="n8"):
        (tmp_path / "macaw.h").write_text(header(named_config(config)))
        (tmp_path / "main.c").write_text("\n".join(
            ['#include "macaw.h"', "#include <stdio.h>", *_SHOW, "int main(void)", "{", *statements, "return 0;", "}"]))
        command = [tools.compiler().path, "-x", request.param, LANGUAGES[request.param], "-Wall", "-Wextra",
                   "-Wconversion", "-pedantic", "-Werror", "-o", "main", "main.c"]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr[:3000]
        return subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.splitlines()
    return run


_SHOW = ["static void show(const uint8_t *bytes, const char *misfit)", "{", "    int i;",
         '    if (misfit) printf("%s", misfit);',
         '    else for (i = 0; i < MACAW_INSTRUCTION_BYTES; i++) printf("%02x", bytes[i]);',
         '    printf("\\n");', "}"]


def values_of(run, macros, **options):
    """What the macros or enumerators stand for, as the compiler sees them."""
    lines = run([f'printf("%llu\\n", (unsigned long long){macro});' for macro in macros]
                + ["(void)show;"], **options)
    return dict(zip(macros, map(int, lines), strict=True))


def test_registers_and_bits(run):
    expected = {"MACAW_IDENTITY": IDENTITY, "MACAW_VERSION": VERSION}
    for name, register in REGISTERS.items():
        expected[f"MACAW_REG_{name.upper()}"] = register.offset
        if register.width == 64:
            expected[f"MACAW_REG_{name.upper()}_HIGH"] = register.offset + 4
        for bits in register.bits:
            expected[f"MACAW_{name.upper()}_{bits.name.upper()}"] = bits.mask
    assert values_of(run, expected) == expected


def test_enumerations(run):
    expected = {f"MACAW_{prefix}_{member.name}": int(member) for prefix, enumeration in (
        ("OPCODE", isa.Opcode), ("QUEUE", isa.Queue), ("DATA_FORMAT", isa.DataFormat), ("VECTOR_OP", isa.VectorOp),
        ("FAULT", isa.Fault), ("FAULT_UNIT", isa.FaultUnit)) for member in enumeration}
    assert values_of(run, expected) == expected


@pytest.mark.parametrize("name", CONFIGS)
def test_configuration(run, name):
    config = named_config(name)
    expected = {f"MACAW_CONFIG_{field.upper()}": getattr(config, field)
                for field in (*config.to_dict(), "tiles", "vector_rows", "tile_bytes", "row_bytes", "peak_macs")}
    assert values_of(run, expected, config=name) == expected


def limits(field):
    shape = Shape.cast(field.shape)
    if shape.signed:
        return -(1 << shape.width - 1), (1 << shape.width - 1) - 1
    return 0, (1 << shape.width) - 1


def statements(format, fields):
    """C that encodes an instruction from the values that differ from the initial ones, and shows it."""
    name = format.opcode.name.lower()
    return ["{", f"struct macaw_{name} f = macaw_{name}_init(); uint8_t b[MACAW_INSTRUCTION_BYTES];",
            *(f"f.{field} = {value}{'ll' if value < 0 else 'ull' if value >= 1 << 31 else ''};"
              for field, value in fields.items()),
            f"show(b, macaw_encode_{name}(b, &f));", "}"]


def test_instructions(run, rng):
    """Random fields, each at its limits now and then, or left as they are."""
    code, expected = [], []
    for _ in range(50):
        for opcode, format in isa.FORMATS.items():
            fields = {}
            for field in format.fields[1:]:
                low, high = limits(field)
                choice = rng.integers(5)
                if choice:
                    fields[field.name] = (low, high, *rng.integers(low, high, 3, endpoint=True).tolist())[choice]
            code += statements(format, fields)
            expected.append(isa.encode(opcode, **fields).hex())
    assert run(code) == expected


def test_values_that_do_not_fit(run):
    """The encoder names the field, as far as the type of the structure's member is wider than the field."""
    code, expected = [], []
    for format in isa.FORMATS.values():
        for field in format.fields[1:]:
            width = Shape.cast(field.shape).width
            if width not in (8, 16, 32, 64):
                for value in {limits(field)[1] + 1, limits(field)[0] - 1} - {-1}:
                    code += statements(format, {field.name: value})
                    expected.append(field.name)
    assert len(expected) > 40
    assert run(code) == expected


def test_places_of_fields(run):
    """LSB and width of each field, by which `macaw_get` reads what `isa.encode` wrote."""
    code, expected = [], []
    for opcode, format in isa.FORMATS.items():
        for field in format.fields[1:]:
            low, high = limits(field)
            text = ", ".join(map(str, isa.encode(opcode, **{field.name: high})))
            macro = f"MACAW_{format.opcode.name}_{field.name.upper()}"
            code += [f"{{ const uint8_t b[] = {{{text}}}; "
                     f'printf("%llu\\n", (unsigned long long)macaw_get(b, {macro}_LSB, {macro}_WIDTH)); }}']
            expected.append(high)
    assert list(map(int, run([*code, "(void)show;"]))) == expected


def test_example_of_the_documentation(root, tmp_path):
    """The C in docs/integration.md compiles with the header that it names."""
    (code,) = re.findall(r"```c\n(.*?)```", (root / "docs" / "integration.md").read_text(), re.DOTALL)
    (tmp_path / "macaw_n8.h").write_text(header(named_config("n8")))
    (tmp_path / "example.c").write_text(code.replace(
        "static void", "static void memory_barrier(void) { }\n\nvoid", 1))
    command = [tools.compiler().path, "-x", "c", "-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-c",
               "example.c"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
