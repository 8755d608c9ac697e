"""A complete system for an FPGA board: the accelerator, memory, and a UART bridge to a host."""
