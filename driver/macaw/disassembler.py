"""Instructions as text."""

import re
import struct

from macaw_hw import isa
from macaw_hw.isa import LOOPS, DataFormat, Opcode, Queue, VectorOp

__all__ = ["disassemble"]


def _queues(mask):
    return "+".join(queue.name.lower() for queue in Queue if mask >> queue & 1)


def _strided(first, *strides):
    return f"{first}" + "".join(f"{stride:+}*{name}" for name, stride in strides if stride)


def _dma(f):
    loops = "".join(f" x{f[f'count{i}']}{f[f'stride{i}']:+}" for i in range(LOOPS) if f[f"count{i}"] > 1)
    format = DataFormat(f["format"]) if f["format"] < 3 else f["format"]
    what = "tile" if f["format"] == DataFormat.BFP8 else "row"
    return (f"{getattr(format, 'name', format)} [{f['address']:#x}] run {f['run']}{loops}"
            + f" pack {f['pack']}" * bool(f["pack"]) + f", {what} {f['local']}")


def _matrix(f):
    x = _strided(f["x"], ("r", f["x_row_stride"]), ("k", f["x_k_stride"])) + "^T" * f["x_transpose"]
    w = _strided(f["w"], ("k", f["w_k_stride"])) + "^T" * f["w_transpose"]
    return (f"row {_strided(f['y'], ('i', f['y_stride']))} {'+=' if f['accumulate'] else '='} "
            f"tile {x} . tile {w}, rows {f['rows']}, k {f['k_tiles']}")


def _vector(f):
    try:
        op = VectorOp(f["op"])
    except ValueError:
        return f"op {f['op']}"
    parts = [op.name]
    for name, used in (("a", op.operands.a), ("b", op.operands.b), ("d", f["to_vector"])):
        if used:
            parts.append(f"{name}=row {_strided(f[name], ('i', f[f'{name}_inner']), ('o', f[f'{name}_outer']))}"
                         + f" shuffle {f['shuffle']}" * (name == "b" and f["shuffle"] != 0))
    if f["to_tile"]:
        parts.append(f"tile {_strided(f['tile'], ('t', f['tile_inner']), ('o', f['tile_outer']))}")
    if re.search(r"\bs\b", op.operands.formula):
        parts.append(f"s={struct.unpack('<f', struct.pack('<I', f['scalar']))[0]:.9g}")
    return ", ".join([*parts, f"{f['outer']} x {f['inner']}"]) + ", chained" * f["chain"]


_TEXT = {Opcode.LOAD: _dma, Opcode.STORE: _dma, Opcode.MATRIX: _matrix, Opcode.VECTOR: _vector}


def disassemble(instruction):
    """One line for an instruction: 32 bytes, or a pair of format and fields as :func:`macaw_hw.isa.decode` gives.

    Bytes that are no instruction give a line that says so.
    """
    if isinstance(instruction, (bytes, bytearray, memoryview)):
        try:
            instruction = isa.decode(instruction)
        except ValueError as error:
            return f"illegal: {error}"
    format, fields = instruction
    tokens = "".join(f" {name} {_queues(fields[field])}" for name, field in (("after", "wait"), ("then", "post"))
                     if fields[field])
    return f"{format.opcode.name:6} {_TEXT[format.opcode](fields)}{';' * bool(tokens)}{tokens}"
