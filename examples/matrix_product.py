"""A program by hand: a 16 x 16 matrix product, from float32 in memory to float32 in memory.

The builder inserts the tokens that order the four queues. Give a backend, "emulator" (the default) or
"verilator", as the argument.
"""

import sys

import macaw
import numpy as np
from macaw.program import Program
from macaw_hw.isa import DataFormat, VectorOp

N = 16
rng = np.random.default_rng(0)
x, w = rng.normal(size=(2, N, N)).astype(np.float32)

with macaw.Device("n16", backend=sys.argv[1] if len(sys.argv) > 1 else "emulator") as device:
    operands, result = device.allocate("operands", 8 * N * N), device.allocate("result", 4 * N * N)
    operands.view(np.float32, (2, N, N))[:] = x, w

    program = Program(device.config)
    program.load(format=DataFormat.FLOAT32, address=operands.address, local=0, run=2 * N * N)
    program.vector(VectorOp.MOVE, a=0, to_tile=1, tile=0, inner=2 * N)      # two tiles, quantized to bfp8
    program.matrix(rows=N, k_tiles=1, x=0, w=1, y=64)
    program.store(format=DataFormat.FLOAT32, address=result.address, local=64, run=N * N)
    print(program.disassemble())

    device.run(program)
    error = np.abs(result.view(np.float32, (N, N)) - x @ w).max()
print(f"largest error against float32: {error:.3f} in a product with elements up to {np.abs(x @ w).max():.1f}")
