"""Everything that stands in for a chip: the emulator, the RTL in Verilator or over cocotb, and testbenches."""
