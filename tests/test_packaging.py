"""The ports of the Verilog as the packagers of FPGA vendors see them."""

import re

import pytest
from macaw_hw.config import named_config
from macaw_hw.packaging import annotate, platform_designer, ports
from macaw_hw.verilog import MODULE
from macaw_sim.verilator.build import cached_verilog

LOGICAL = {
    "s_axi": "AWADDR AWPROT AWVALID AWREADY WDATA WSTRB WVALID WREADY BRESP BVALID BREADY "
             "ARADDR ARPROT ARVALID ARREADY RDATA RRESP RVALID RREADY",
    "m_axi": "AWID AWADDR AWLEN AWSIZE AWBURST AWLOCK AWCACHE AWPROT AWQOS AWVALID AWREADY "
             "WDATA WSTRB WLAST WVALID WREADY BID BRESP BVALID BREADY "
             "ARID ARADDR ARLEN ARSIZE ARBURST ARLOCK ARCACHE ARPROT ARQOS ARVALID ARREADY "
             "RID RDATA RRESP RLAST RVALID RREADY",
    "clk": "CLK", "rst": "RST", "irq": "INTERRUPT",
}
"""Each interface with the logical names of its ports, as the bus definitions of Vivado spell them."""


@pytest.fixture(scope="module", params=["n4", "n8"])
def config(request):
    return named_config(request.param)


@pytest.fixture(scope="module")
def verilog(config):
    return cached_verilog(config)


def top(verilog):
    return verilog.partition(f"module {MODULE}(")[2].partition("endmodule")[0]


def test_every_port_has_its_place_in_an_interface(verilog):
    found = re.findall(r'^  \(\* X_INTERFACE_INFO = "xilinx\.com:(\w+:\w+):1\.0 (\w+) (\w+)" \*\)\n'
                       r'(?:  \(\* X_INTERFACE_PARAMETER = "[^"]*" \*\)\n)?  (?:input|output) (?:\[\d+:0\] )?(\w+);$',
                       top(verilog), re.MULTILINE)
    assert {port for *_, port in found} == set(ports(verilog, MODULE)) and len(found) == len(ports(verilog, MODULE))
    for interface, names in LOGICAL.items():
        assert {name for _, where, name, _ in found if where == interface} == set(names.split())
    for kind, interface, name, port in found:
        if interface.endswith("axi"):
            assert (kind, port) == ("interface:aximm", f"{interface}_{name.lower()}")
        else:
            assert (kind, port) == ({"clk": "signal:clock", "rst": "signal:reset", "irq": "signal:interrupt"}[port],
                                    interface)


def test_parameters(verilog, config):
    found = dict(re.findall(r'X_INTERFACE_PARAMETER = "XIL_INTERFACENAME (\w+), ([^"]*)"', verilog))
    assert set(found) == set(LOGICAL)
    assert len(re.findall("X_INTERFACE_PARAMETER", verilog)) == len(LOGICAL)
    master = dict(pair.split() for pair in found["m_axi"].split(", "))
    assert (master["PROTOCOL"], master["DATA_WIDTH"]) == ("AXI4", str(8 * config.bus_bytes))
    declared = ports(verilog, MODULE)
    assert declared["m_axi_wdata"] == ("output", int(master["DATA_WIDTH"]))
    assert declared["m_axi_araddr"] == ("output", int(master["ADDR_WIDTH"]))
    assert declared["m_axi_rid"] == ("input", int(master["ID_WIDTH"]))
    slave = dict(pair.split() for pair in found["s_axi"].split(", "))
    assert declared["s_axi_awaddr"] == ("input", int(slave["ADDR_WIDTH"]))
    assert found["clk"] == "ASSOCIATED_BUSIF s_axi:m_axi, ASSOCIATED_RESET rst"
    assert found["rst"] == "POLARITY ACTIVE_HIGH" and found["irq"] == "SENSITIVITY LEVEL_HIGH"


def test_only_ports_of_the_top_are_annotated(verilog):
    assert verilog.count("X_INTERFACE_INFO") == top(verilog).count("X_INTERFACE_INFO")


def test_unknown_module(config):
    with pytest.raises(ValueError, match="the Verilog has no module other"):
        annotate("module macaw(clk); endmodule", "other", config)


def test_platform_designer_has_every_port(verilog):
    """Read by a stand-in for the tool's Tcl: one command a line, words apart by blanks, quotes around blanks."""
    interfaces, members, properties = {}, {}, {}
    for line in platform_designer(verilog, MODULE, "macaw.v").splitlines():
        words = [quoted or word for quoted, word in re.findall(r'"([^"]*)"|(\S+)', line)]
        match words:
            case ["add_interface", name, kind, end]:
                interfaces[name] = (kind, end)
            case ["add_interface_port", interface, port, role, direction, width]:
                members[port] = (interface, role, direction.lower(), int(width))
            case ["set_interface_property", interface, name, value]:
                assert interface in interfaces
                properties[interface, name] = value
            case [] | ["#", *_] | ["package" | "set_module_property" | "set_fileset_property", *_]:
                pass
            case ["add_fileset", "synthesis", "QUARTUS_SYNTH", "{}", "{}"]:
                pass
            case ["add_fileset_file", "macaw.v", "VERILOG", "PATH", "macaw.v", "TOP_LEVEL_FILE"]:
                pass
            case _:
                raise AssertionError(line)
    assert interfaces == {"clock": ("clock", "end"), "reset": ("reset", "end"), "s_axi": ("axi4lite", "end"),
                          "m_axi": ("axi4", "start"), "irq": ("interrupt", "end")}
    declared = ports(verilog, MODULE)
    assert {name: member[2:] for name, member in members.items()} == declared
    for name, (interface, role, _, _) in members.items():
        assert (interface, role) == {"clk": ("clock", "clk"), "rst": ("reset", "reset"), "irq": ("irq", "irq")}.get(
            name, (name[:5], name[6:]))
    for interface in "s_axi", "m_axi", "irq":
        assert properties[interface, "associatedClock"] == "clock"
        assert properties[interface, "associatedReset"] == "reset"
