"""Arithmetic on an ECP5: the netlist computes what the Verilog says, also where DSP blocks are too few."""

import json

import numpy as np
import pytest
from macaw.synth import flow, mapping
from macaw_sim import tools


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Results go into an empty folder; the tools' own caches stay."""
    folder, real = tmp_path / "synth", tools.output_directory
    folder.mkdir()
    monkeypatch.setattr(tools, "output_directory", lambda *parts: folder if parts == ("synth",) else real(*parts))


@pytest.fixture
def blocks(monkeypatch):
    """An ECP5 with so many DSP blocks."""
    def part(count):
        monkeypatch.setitem(flow._MULTIPLIERS, "25k", count)
        return flow.DEVICES["ecp5-25k"]
    return part


def synthesize(verilog, part):
    """The cells of ``top``, and its ports."""
    design = flow.synthesize(verilog, "top", part)
    module = json.loads(design.netlist.read_text())["modules"]["top"]
    return module["cells"], module["ports"]


def count(cells, kind):
    return sum(cell["type"] == kind for cell in cells.values())


class Netlist:
    """Evaluates LUTs, multiplexers and carry chains (as Lattice describes CCU2C), many inputs at a time."""

    def __init__(self, cells, ports, **inputs):
        self._driver = {bit: (cell, port) for cell in cells.values() for port, bits in cell["connections"].items()
                        if cell["port_directions"][port] == "output" for bit in bits}
        self._ports = ports
        self._values = {"0": np.zeros(1, bool), "1": np.ones(1, bool)}
        for name, value in inputs.items():
            self._values |= {bit: value >> i & 1 == 1 for i, bit in enumerate(ports[name]["bits"])}

    def output(self, name, signed=False):
        """All values of an output."""
        bits = self._ports[name]["bits"]
        weights = [1 << i for i in range(len(bits))]
        if signed:
            weights[-1] *= -1
        return sum(self._bit(bit) * weight for bit, weight in zip(bits, weights, strict=True))

    def _bit(self, bit):
        if bit not in self._values:
            cell, port = self._driver[bit]
            self._values[bit] = getattr(self, "_" + cell["type"].lower())(cell, port)
        return self._values[bit]

    def _pins(self, cell, names):
        return [self._bit(cell["connections"][name][0]) for name in names.split()]

    def _lut4(self, cell, _):
        return lut(cell["parameters"]["INIT"], *self._pins(cell, "A B C D"))

    def _pfumx(self, cell, _):
        a, b, c = self._pins(cell, "ALUT BLUT C0")
        return np.where(c, a, b)

    def _l6mux21(self, cell, _):
        a, b, c = self._pins(cell, "D1 D0 SD")
        return np.where(c, a, b)

    def _ccu2c(self, cell, port):
        """Nothing at the carry input: it must not matter, so all is computed with both values."""
        if cell["connections"]["CIN"] == ["x"]:
            low, high = (self._halves(cell, port, self._values[value]) for value in "01")
            assert np.array_equal(low, high), "the carry into a chain matters"
            return low
        return self._halves(cell, port, self._bit(cell["connections"]["CIN"][0]))

    def _halves(self, cell, port, carry):
        for half in "01":
            init = cell["parameters"][f"INIT{half}"]
            a, b, c, d = self._pins(cell, " ".join(name + half for name in "ABCD"))
            assert cell["parameters"][f"INJECT1_{half}"] == "NO"
            propagate, generate = lut(init, a, b, c, d), lut(init, a, b, ~(a | True), ~(a | True))
            if port == f"S{half}":
                return propagate ^ carry
            carry = np.where(propagate, carry, generate)
        return carry


def lut(init, a, b, c, d):
    table = np.array([digit == "1" for digit in reversed(init)])
    return table[a + 2 * b + 4 * c + 8 * d]


def test_multiplication_without_a_block(blocks):
    """All 65,536 products of signed bytes; 37 pairs of carries, one LUT, and nothing else."""
    cells, ports = synthesize("module top(input signed [7:0] a, b, output signed [15:0] y); assign y = a * b; "
                              "endmodule", blocks(0))
    assert (len(cells), count(cells, "CCU2C"), count(cells, "LUT4")) == (38, 37, 1)
    a, b = np.meshgrid(np.arange(-128, 128), np.arange(-128, 128))
    assert np.array_equal(Netlist(cells, ports, a=a, b=b).output("y", signed=True), a * b)


@pytest.mark.parametrize("available, used", [(9, 7), (7, 7), (6, 6), (5, 5), (4, 4), (3, 4)])
def test_blocks_while_there_are_any(blocks, available, used):
    """One of 24 x 20 bits takes four whatever happens; of three small ones as many as there is room for."""
    cells, _ = synthesize(
        "module top(input [23:0] a, input [19:0] b, input [7:0] c, d, e, output [43:0] p, output [15:0] q, r, s);\n"
        "assign p = a * b, q = $signed(c) * $signed(d), r = $signed(d) * $signed(e), s = c[6:0] * e[6:0];\n"
        "endmodule\n", blocks(available))
    assert count(cells, "MULT18X18D") == used
    soft = 7 - used
    assert count(cells, "CCU2C") >= 37 * soft - 10 * (soft == 3)


def test_which_stay_without_a_block():
    """As few as possible, from the end of the list; in order of numbers, not of digits."""
    dump = "".join(f"  cell $mul $flatten\\row{row}.\\$mul${row}\n"
                   f"    parameter \\A_SIGNED {signed}\n    parameter \\A_WIDTH {width}\n"
                   f"    parameter \\B_SIGNED {signed}\n    parameter \\B_WIDTH 7\n    parameter \\Y_WIDTH 16\n"
                   f"    connect \\A \\a\n  end\n"
                   for row, width, signed in ((10, 8, 1), (9, 8, 1), (8, 8, 0), (2, 7, 0), (3, 24, 0)))
    found = mapping.multiplications(dump)
    assert [int(each.name.rpartition("$")[2]) for each in found] == [2, 3, 8, 9, 10]
    assert [each.blocks for each in found] == [1, 2, 1, 1, 1]
    names = [f"$flatten\\row{row}.\\$mul${row}" for row in (2, 9, 10)]
    for blocks, chosen in ((6, []), (5, names[2:]), (4, names[1:]), (3, names), (0, names)):
        assert mapping.without_block(found, blocks) == chosen


@pytest.mark.parametrize("width", [5, 6, 9])
def test_additions(blocks, width):
    """Sums, differences and comparisons, also with a carry that is not constant."""
    top = width - 1
    cells, ports = synthesize(f"""module top(input [{top}:0] a, b, input c, output [{width}:0] sum, carried, output
        [{top}:0] difference, either, next, output less, not_more, signed_less, signed_not_more);
        assign sum = a + b, carried = a + b + c, difference = a - b, either = c ? a - b : a + b, next = a + 1'b1;
        assign less = a < b, not_more = a <= b;
        assign signed_less = $signed(a) < $signed(b), signed_not_more = $signed(a) <= $signed(b);
        endmodule""", blocks(0))
    assert count(cells, "CCU2C") > 10
    a, b, c = np.random.default_rng(width).integers(1 << width, size=(3, 3000))
    c &= 1
    found = Netlist(cells, ports, a=a, b=b, c=c)
    mask, sign = (1 << width) - 1, 1 << top
    for name, expected in {"sum": a + b, "carried": a + b + c, "difference": a - b & mask, "next": a + 1 & mask,
                           "either": a + np.where(c, -b, b) & mask, "less": a < b, "not_more": a <= b,
                           "signed_less": (a ^ sign) < (b ^ sign),
                           "signed_not_more": (a ^ sign) <= (b ^ sign)}.items():
        assert np.array_equal(found.output(name), expected), name
    ends = [bits for cell in cells.values() if cell["type"] == "CCU2C"
            for bits in (cell["connections"]["CIN"], cell["connections"]["COUT"])]
    assert all(bits == ["x"] or not isinstance(bits[0], str) for bits in ends)


@pytest.mark.parametrize("register, kept", [
    ("q <= p;", 0), ("if (rst) q <= 0; else q <= p;", 0), ("if (rst) q <= 1; else q <= p;", 16),
    ("if (en) q <= p;", 16), ("q <= p; r <= p[3] ^ en;", 17)])
def test_registers_of_products(blocks, register, kept):
    """A DSP block keeps its product, if it can do what the flip-flops do, and nothing else reads it."""
    cells, ports = synthesize(f"""module top(input clk, rst, en, input signed [7:0] a, b, output reg [15:0] q,
        output reg r); wire signed [15:0] p = a * b; always @(posedge clk) begin {register} end endmodule""", blocks(1))
    assert count(cells, "TRELLIS_FF") == kept
    block, = (cell for cell in cells.values() if cell["type"] == "MULT18X18D")
    assert ("REG_OUTPUT_CLK" in block["parameters"]) == (not kept)
    if not kept:
        pins = block["connections"]
        assert pins["CLK0"] == ports["clk"]["bits"] and pins["CE0"] == ["1"]
        assert pins["RST0"] == (ports["rst"]["bits"] if "rst" in register else ["0"])
        assert [pins[f"P{i}"][0] for i in range(16)] == ports["q"]["bits"]


_OPERANDS = {"complement": ("{} ^ {{9{{c}}}}", lambda a, c: a ^ -c), "masked": ("{} & {{9{{c}}}}", lambda a, c: a * c),
             "none": ("~({} | {{9{{c}}}})", lambda a, c: ~a * (1 - c)),
             "moved": ("{0} ^ ({0} >> 1)", lambda a, c: a ^ a >> 1)}


@pytest.mark.parametrize("name", _OPERANDS)
def test_logic_in_front_of_a_chain(blocks, name):
    """It goes into the chain: sums and differences take no LUT, or one for the lowest bit."""
    verilog, function = _OPERANDS[name]
    cells, ports = synthesize(f"""module top(input [8:0] a, b, input c, output [8:0] sum, difference);
        assign sum = b + ({verilog.format("a")}), difference = a - ({verilog.format("b")}); endmodule""", blocks(0))
    assert count(cells, "LUT4") <= 2
    a, b, c = np.random.default_rng(5).integers(512, size=(3, 3000))
    c &= 1
    found = Netlist(cells, ports, a=a, b=b, c=c)
    assert np.array_equal(found.output("sum"), b + function(a, c) & 511)
    assert np.array_equal(found.output("difference"), a - (function(b, c) & 511) & 511)
