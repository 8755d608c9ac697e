"""The arithmetic units as Verilog, in Verilator, against NumPy: 100 million vectors each."""
