"""The instruction set, described once: decoder, emulator, assembler, tests and docs read it here.

Every instruction is 32 bytes, little endian, field after field from bit 0. All start with the same
header (``opcode``, ``wait``, ``post``). Local addresses are rows of the vector memory or tiles of
the tile memory; strides are signed and address arithmetic wraps at 16 bits before it is checked
against the depth of the memory.
"""

from dataclasses import dataclass

from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data, enum

__all__ = [
    "INSTRUCTION_BYTES", "INDEX_WIDTH", "LOOPS", "TOKEN_LIMIT", "Opcode", "Queue", "DataFormat", "VectorOp", "Fault",
    "FaultUnit", "Field", "Format", "FORMATS", "LOAD", "MATRIX", "VECTOR", "STORE", "Operands", "encode", "decode",
    "violations",
]

INSTRUCTION_BYTES = 32
INDEX_WIDTH = 24
"""Bits of an instruction's index: a program has fewer than 2^24 instructions."""
LOOPS = 4
TOKEN_LIMIT = 4095
"""Tokens that can wait from one queue for another; one more is the fault TOKENS."""


class Opcode(enum.IntEnum, shape=4):
    """What the instruction is and, thereby, its queue. 0 is illegal, so that zeroed memory faults."""
    LOAD = 1
    MATRIX = 2
    VECTOR = 3
    STORE = 4


class Queue(enum.IntEnum, shape=2):
    """The in-order queues. Bit ``q`` of ``wait``/``post`` is a token from/to queue ``q``."""
    LOAD = 0
    MATRIX = 1
    VECTOR = 2
    STORE = 3


class DataFormat(enum.IntEnum, shape=2):
    """Element type in memory."""
    FLOAT32 = 0
    UINT8 = 1
    BFP8 = 2


class Fault(enum.IntEnum, shape=4):
    """Why a program was stopped.

    Faults of the sequencer itself (fetch, illegal instruction) are reported once every earlier
    instruction is done, so that they never hide an earlier fault. WATCHDOG and TOKENS name the oldest
    instruction that is not done, and the one that posts a token too many.
    """
    NONE = 0
    ILLEGAL_INSTRUCTION = 1
    LOCAL_ADDRESS = 2
    WINDOW = 3
    BUS_READ = 4
    BUS_WRITE = 5
    NON_FINITE = 6
    WATCHDOG = 7
    TOKENS = 8


class FaultUnit(enum.IntEnum, shape=3):
    """Where the fault arose: one of the queues, or the sequencer (fetch, decode, watchdog)."""
    LOAD = 0
    MATRIX = 1
    VECTOR = 2
    STORE = 3
    SEQUENCER = 4


@dataclass(frozen=True)
class Operands:
    """What a vector operation reads, and its formula for the docs."""
    a: bool
    b: bool
    formula: str


class VectorOp(enum.IntEnum, shape=6):
    """Operations of the activation unit; :attr:`operands` says what each reads and computes."""
    MOVE = 0
    FILL = 1
    ADD = 2
    SUB = 3
    MUL = 4
    ADD_SCALAR = 5
    MUL_SCALAR = 6
    RSUB_SCALAR = 7
    MUL_ADD_SCALAR = 8
    NMUL_ADD_SCALAR = 9
    SCALE_ADD = 10
    MAX = 11
    MIN = 12
    MAX_SCALAR = 13
    MIN_SCALAR = 14
    SELECT_GT = 15
    SELECT_GE = 16
    COMPARE_GT = 17
    COMPARE_GE = 18
    COMPARE_EQ = 19
    ROUND = 20
    SCALE2 = 21
    EXPONENT = 22
    RECIPROCAL_SEED = 23
    RSQRT_SEED = 24

    @property
    def operands(self):
        return _VECTOR_OPERANDS[self]


# The formulas are normative: `rnd` after each arithmetic operation; max/min return the second operand
# unless the first is greater/less; any comparison with NaN is false, but max and min give NaN.
_VECTOR_OPERANDS = {
    VectorOp.MOVE: Operands(True, False, "a"),
    VectorOp.FILL: Operands(False, False, "s"),
    VectorOp.ADD: Operands(True, True, "a + b"),
    VectorOp.SUB: Operands(True, True, "a - b"),
    VectorOp.MUL: Operands(True, True, "a * b"),
    VectorOp.ADD_SCALAR: Operands(True, False, "a + s"),
    VectorOp.MUL_SCALAR: Operands(True, False, "a * s"),
    VectorOp.RSUB_SCALAR: Operands(True, False, "s - a"),
    VectorOp.MUL_ADD_SCALAR: Operands(True, True, "a * b + s"),
    VectorOp.NMUL_ADD_SCALAR: Operands(True, True, "s - a * b"),
    VectorOp.SCALE_ADD: Operands(True, True, "a * s + b"),
    VectorOp.MAX: Operands(True, True, "a if a > b else b"),
    VectorOp.MIN: Operands(True, True, "a if a < b else b"),
    VectorOp.MAX_SCALAR: Operands(True, False, "a if a > s else s"),
    VectorOp.MIN_SCALAR: Operands(True, False, "a if a < s else s"),
    VectorOp.SELECT_GT: Operands(True, True, "b if a > s else 0"),
    VectorOp.SELECT_GE: Operands(True, True, "b if a >= s else 0"),
    VectorOp.COMPARE_GT: Operands(True, True, "s if a > b else 0"),
    VectorOp.COMPARE_GE: Operands(True, True, "s if a >= b else 0"),
    VectorOp.COMPARE_EQ: Operands(True, True, "s if a == b else 0"),
    VectorOp.ROUND: Operands(True, False, "a rounded to an integer, half to even"),
    VectorOp.SCALE2: Operands(True, True, "a * 2^trunc(b)"),
    VectorOp.EXPONENT: Operands(True, False, "floor(log2 |a|); -127 for zero, 128 for inf and NaN"),
    VectorOp.RECIPROCAL_SEED: Operands(True, False, "an approximation of 1 / a, 12 % at worst"),
    VectorOp.RSQRT_SEED: Operands(True, False, "an approximation of 1 / sqrt(a), 3.5 % at worst"),
}


@dataclass(frozen=True)
class Field:
    """One field of an instruction: its name, Amaranth shape, and what it means."""
    name: str
    shape: object
    doc: str


_HEADER = (
    Field("opcode", Opcode, "Kind of instruction; selects the queue."),
    Field("wait", unsigned(4), "Wait for one token from each queue whose bit is set, before starting."),
    Field("post", unsigned(4), "Post one token to each queue whose bit is set, after completion."),
)
_DMA = (
    Field("format", DataFormat, "Element type in memory."),
    Field("pack", unsigned(2), "Innermost loops whose runs are concatenated into one group of rows."),
    Field("address", unsigned(40), "Byte address in memory of the first element; any alignment."),
    Field("local", unsigned(16), "First vector row, or first tile for BFP8. Groups start on a new row; "
                                 "rows and tiles are consecutive."),
    Field("run", unsigned(16), "Contiguous elements in memory per run (tile records for BFP8)."),
    *(field for i in range(LOOPS) for field in (
        Field(f"count{i}", unsigned(12), f"Iterations of loop {i}" + " (the innermost)." * (i == 0)
              + "." * (i != 0)),
        Field(f"stride{i}", signed(28), f"Bytes between iterations of loop {i}."))),
)


@dataclass(frozen=True)
class Format:
    """An instruction format: its opcode, what it does, its fields from bit 0 on."""
    opcode: Opcode
    action: str
    notes: str
    specific: tuple

    @property
    def queue(self):
        return Queue[self.opcode.name]

    @property
    def fields(self):
        return _HEADER + self.specific

    @property
    def layout(self):
        """Amaranth layout of the fields, without the reserved bits above them."""
        return data.StructLayout({field.name: field.shape for field in self.fields})

    @property
    def reserved(self):
        """Bits above the last field; they must be zero."""
        return 8 * INSTRUCTION_BYTES - self.layout.size


LOAD = Format(
    Opcode.LOAD, "Memory to vector memory (FLOAT32, UINT8) or to tile memory (BFP8).",
    "For each iteration of the four nested loops (loop 0 innermost) one run of `run` elements is read at "
    "`address` + sum of index * stride. Elements fill the lanes of a row in order. A group of rows ends "
    "with each run (`pack` 0) or with the last iteration of loop `pack` - 1; the lanes that remain in its "
    "last row become zero. UINT8 elements become float32. With BFP8, `pack` must be 0.",
    _DMA)

STORE = Format(
    Opcode.STORE, "Vector memory (FLOAT32, UINT8) or tile memory (BFP8) to memory.",
    "The mirror of LOAD: lanes that LOAD would fill with zeros are skipped. UINT8 rounds half to even and "
    "clips to 0..255; a non-finite value is a fault.",
    _DMA)

MATRIX = Format(
    Opcode.MATRIX, "Y += X W over a whole reduction, on the MAC array.",
    "For k in 0..k_tiles-1, for r in 0..rows-1: row y + r*y_stride of the vector memory becomes its old value "
    "(zero if k is 0 and `accumulate` is not set) plus the int8 dot products of row r mod N of X tile "
    "x + (r div N)*x_row_stride + k*x_k_stride with the columns of W tile w + k*w_k_stride, scaled by two to "
    "the sum of both exponents. A transposed operand is read by columns.",
    (
        Field("accumulate", unsigned(1), "Add to the rows' old values instead of overwriting them."),
        Field("x_transpose", unsigned(1), "Read X tiles by columns."),
        Field("w_transpose", unsigned(1), "Read W tiles by columns."),
        Field("pad", unsigned(1), "Must be zero."),
        Field("rows", unsigned(16), "Rows of X and Y, at least 1."),
        Field("k_tiles", unsigned(16), "Tiles of the reduction, at least 1."),
        Field("x", unsigned(16), "First X tile (streamed)."),
        Field("x_row_stride", signed(16), "Tiles between N rows of X and the next N."),
        Field("x_k_stride", signed(16), "Tiles between steps of the reduction in X."),
        Field("w", unsigned(16), "First W tile (stationary)."),
        Field("w_k_stride", signed(16), "Tiles between steps of the reduction in W."),
        Field("y", unsigned(16), "First row of Y in the vector memory."),
        Field("y_stride", signed(16), "Vector rows between rows of Y."),
    ))

VECTOR = Format(
    Opcode.VECTOR, "d = op(a, b, scalar), row by row, on N float32 lanes.",
    "For o in 0..outer-1, for i in 0..inner-1: operand a is row a + i*a_inner + o*a_outer, operand b likewise "
    "with lane l taken from lane l XOR shuffle, and the result goes to row d + i*d_inner + o*d_outer "
    "(`to_vector`) and/or through the quantizer (`to_tile`): results i = N*t .. N*t+N-1 become tile "
    "tile + t*tile_inner + o*tile_outer; the rows that the last t lacks are zeros. No row may be read "
    "after the same instruction wrote it in an earlier iteration. With `chain`, iteration k (of all, from 0) must "
    "read no row that the VECTOR instruction before writes in an iteration after k.",
    (
        Field("op", VectorOp, "Operation."),
        Field("to_vector", unsigned(1), "Write results to the vector memory."),
        Field("to_tile", unsigned(1), "Quantize results into the tile memory."),
        Field("shuffle", unsigned(5), "Lane XOR mask of operand b, below N."),
        Field("a", unsigned(16), "First row of operand a."),
        Field("b", unsigned(16), "First row of operand b."),
        Field("d", unsigned(16), "First row of the result."),
        Field("tile", unsigned(16), "First tile of the result."),
        *(Field(f"{operand}_{loop}", signed(13), f"{unit} between iterations of the {loop} loop in {what}.")
          for operand, unit, what in (("a", "Rows", "a"), ("b", "Rows", "b"), ("d", "Rows", "d"))
          for loop in ("inner", "outer")),
        Field("tile_inner", signed(13), "Tiles between one tile and the next in the inner loop."),
        Field("tile_outer", signed(13), "Tiles between iterations of the outer loop."),
        Field("inner", unsigned(12), "Iterations of the inner loop, at least 1."),
        Field("outer", unsigned(12), "Iterations of the outer loop, at least 1."),
        Field("scalar", unsigned(32), "The scalar s: bits of a float32."),
        Field("chain", unsigned(1), "Iteration k may begin when the VECTOR instruction before has written the rows of "
                                    "its iterations 0..k, instead of when that instruction is done."),
    ))

FORMATS = {format.opcode: format for format in (LOAD, MATRIX, VECTOR, STORE)}


def encode(opcode, **fields):
    """The 32 bytes of an instruction.

    Fields not given are zero, except loop counts (``count0`` to ``count3``), which are 1.

    Raises
    ------
    ValueError
        For an unknown field, or a value that does not fit; the message names both and the limit.
    """
    format = FORMATS[Opcode(opcode)]
    value, offset = 0, 0
    unknown = set(fields) - {field.name for field in format.fields}
    if unknown:
        raise ValueError(f"{format.opcode.name} has no field {', '.join(sorted(unknown))}")
    for field in format.fields:
        width, is_signed = _shape(field.shape)
        default = int(opcode) if field.name == "opcode" else int(field.name.startswith("count"))
        number = int(fields.get(field.name, default))
        low, high = (-(1 << width - 1), (1 << width - 1) - 1) if is_signed else (0, (1 << width) - 1)
        if not low <= number <= high:
            raise ValueError(f"{format.opcode.name} field {field.name} must be from {low} to {high}, "
                             f"not {number}")
        value |= (number & ((1 << width) - 1)) << offset
        offset += width
    return value.to_bytes(INSTRUCTION_BYTES, "little")


def decode(instruction):
    """The format and the fields (a dict of plain integers) of 32 bytes of instruction.

    Raises
    ------
    ValueError
        When the opcode is unknown or a reserved bit is set.
    """
    value = int.from_bytes(instruction, "little")
    try:
        format = FORMATS[Opcode(value & 0xF)]
    except ValueError:
        raise ValueError(f"opcode must be one of {', '.join(str(int(o)) for o in Opcode)}, "
                         f"not {value & 0xF}") from None
    fields, offset = {}, 0
    for field in format.fields:
        width, is_signed = _shape(field.shape)
        number = value >> offset & ((1 << width) - 1)
        fields[field.name] = number - (1 << width) if is_signed and number >> width - 1 else number
        offset += width
    if value >> offset:
        raise ValueError(f"{format.opcode.name} has reserved bits set above bit {offset - 1}")
    return format, fields


def violations(format, fields, size):
    """The rules an instruction must keep beyond its layout, as (message, broken) pairs.

    ``fields`` maps names to integers (emulator, assembler) or to Amaranth values (decoder); ``broken``
    is a truth value of the same kind.
    """
    own = 1 << format.queue
    yield "a queue cannot wait for itself", (fields["wait"] & own) != 0
    yield "a queue cannot post to itself", (fields["post"] & own) != 0
    for name in _COUNTS[format.opcode]:
        yield f"{name} must be at least 1", fields[name] == 0
    if format.opcode in (Opcode.LOAD, Opcode.STORE):
        yield "format must be 0, 1 or 2", fields["format"] == 3
        yield "pack must be 0 for BFP8", (fields["format"] == DataFormat.BFP8) & (fields["pack"] != 0)
    if format.opcode == Opcode.MATRIX:
        yield "pad must be 0", fields["pad"] != 0
    if format.opcode == Opcode.VECTOR:
        yield f"op must be at most {max(VectorOp)}", fields["op"] > max(VectorOp)
        yield f"shuffle must be below {size}", fields["shuffle"] >= size
        yield "a result must go to_vector or to_tile", (fields["to_vector"] | fields["to_tile"]) == 0


_COUNTS = {
    Opcode.LOAD: ("run", *(f"count{i}" for i in range(LOOPS))),
    Opcode.STORE: ("run", *(f"count{i}" for i in range(LOOPS))),
    Opcode.MATRIX: ("rows", "k_tiles"),
    Opcode.VECTOR: ("inner", "outer"),
}


def _shape(shape):
    shape = Shape.cast(shape)
    return shape.width, shape.signed
