"""The generated Verilog, compiled by Verilator into a shared library and called in this process."""
