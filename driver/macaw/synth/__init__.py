"""From Verilog to an FPGA, with the tools that YoWASP packages."""
