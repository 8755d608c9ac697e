"""The units: a component that streams each, and how its vectors are drawn, packed and judged."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from macaw_hw.float32 import FloatAdd, FloatMul, IntToFloat
from macaw_hw.isa import VectorOp
from macaw_hw.mac_array import sum_shape
from macaw_hw.shifts import shift_multipliers

from . import oracle, tops, values
from .lane_units import LANE_COPIES, lane_operands
from .pairs import crossed_or_drawn

__all__ = ["VECTORS", "Piece", "Unit", "units"]

VECTORS = 100_000_000
"""Vectors of a unit where nothing else is said."""

_COPIES = 8
_GROUP = 2048
"""Pieces are multiples of this many vectors."""
_DISTANCES = 10
"""Exponents from the largest of a tile down to one at which all mantissas are zero."""
_ELEMENTS = 1 << 24
"""Signs and mantissas of a float32."""


@dataclass(frozen=True)
class Piece:
    """Some of the vectors of a unit.

    Attributes
    ----------
    inputs : uint32 [elements, words]
        For the component.
    outputs : int
        Elements that must come out.
    read : callable
        Makes the results of them, in the order of ``expected``.
    expected : uint32 array
    operands : dict
        Name to bits, in the order of ``expected``; for messages.
    vectors : int
        How many they are.
    """
    inputs: np.ndarray
    outputs: int
    read: Callable
    expected: np.ndarray
    operands: dict
    vectors: int


@dataclass(frozen=True)
class Unit:
    """A unit under test.

    Attributes
    ----------
    name, about : str
    top : callable
        Makes the component, one of `tops`.
    draw : callable
        ``draw(rng, start, count, total)`` is a `Piece` of about ``count`` vectors, of which
        ``start`` of ``total`` come before.
    vectors : int
        How many are drawn in the long version.
    """
    name: str
    about: str
    top: Callable
    draw: Callable
    vectors: int = VECTORS


@cache
def units(config):
    """All units of ``config``: a dict by name."""
    size, width = config.size, sum_shape(config.size).width
    blocks = shift_multipliers(config)
    adder = partial(FloatAdd, multipliers=blocks["accumulator"])
    convert = partial(IntToFloat, width=width, multipliers=blocks["convert"])
    found = [
        Unit("add", "FloatAdd", partial(tops.Pipelines, adder, ("a", "b"), _COPIES),
             partial(_pair_piece, VectorOp.ADD, values.SUM_KINDS)),
        Unit("mul", "FloatMul", partial(tops.Pipelines, FloatMul, ("a", "b"), _COPIES),
             partial(_pair_piece, VectorOp.MUL, values.PRODUCT_KINDS)),
        Unit("convert", f"IntToFloat, every input of {width} + 10 bits",
             partial(tops.Pipelines, convert, ("p", "scale"), _COPIES),
             partial(_convert_piece, width), 1 << width + 10),
        Unit("accumulate", "Accumulator, old + sum * 2^scale", partial(tops.Accumulate, config),
             partial(_accumulate_piece, size)),
        Unit("quantize", "Quantizer, every mantissa at every distance, then random tiles",
             partial(tops.Quantize, config), partial(_quantize_piece, size),
             2 * _DISTANCES * _ELEMENTS),
        Unit("load", "RowWriter, UINT8 to float32", partial(tops.LoadPixels, config),
             partial(_load_piece, size)),
        Unit("store", "RowReader and ByteAligner, float32 to UINT8",
             partial(tops.StorePixels, config), partial(_store_piece, size)),
        Unit("to_uint8", "float32_to_uint8, every input",
             partial(tops.Pipelines, tops.ToUint8, ("a",), 2 * _COPIES), _uint8_piece, 1 << 32),
    ]
    lanes = partial(tops.Lanes, LANE_COPIES, blocks["lane"])
    found += [Unit(f"lane.{op.name}", "Lane and LaneDecoder", lanes, partial(_lane_piece, op))
              for op in VectorOp]
    return {unit.name: unit for unit in found}


def _rounded(count, group=_GROUP):
    return -(-count // group) * group


def _pipelined(ports, copies, expected):
    """The piece of a `tops.Pipelines`; ``ports`` is a dict of its inputs."""
    inputs = np.stack([port.reshape(-1, copies) for port in ports.values()], axis=1)
    inputs = inputs.reshape(-1, len(ports) * copies)
    return Piece(inputs, len(inputs), np.ravel, expected, ports, len(expected))


def _pair_piece(op, kinds, rng, start, count, total):
    a, b = crossed_or_drawn(rng, kinds, start, _rounded(count), total, _COPIES)
    return _pipelined({"a": a, "b": b}, _COPIES, oracle.lane(op, a, b, np.uint32(0)))


def _lane_piece(op, rng, start, count, total):
    a, b, s, changes = lane_operands(op, rng, start, _rounded(count), total)
    rows = [x.reshape(-1, LANE_COPIES) for x in (a, b, s)]
    inputs = np.empty((len(rows[0]), 1 + 3 * LANE_COPIES), np.uint32)
    inputs[:, 0] = op
    inputs[::values.HOLD if changes else len(inputs), 0] |= tops.Lanes.CHANGE
    for number, row in enumerate(rows):
        inputs[:, 1 + number * LANE_COPIES:][:, :LANE_COPIES] = row
    return Piece(inputs, len(inputs), np.ravel, oracle.lane(op, a, b, s),
                 {"a": a, "b": b, "scalar": s}, len(a))


def _integers(rng, width, count):
    """Sums as the array makes them, of all magnitudes; some around powers of two."""
    limit = 1 << width - 2
    p = rng.integers(-limit, limit + 1, count) >> rng.integers(0, width, count)
    edge = (1 << rng.integers(0, width - 1, count)) + rng.integers(-1, 2, count)
    edge *= rng.choice((-1, 1), count)
    return np.where(rng.integers(0, 4, count) == 0, np.clip(edge, -limit, limit), p)


def _scales(rng, count):
    """Most where results are in the range of float32."""
    scale = rng.integers(-170, 150, count)
    return np.where(rng.integers(0, 6, count) == 0, rng.integers(-512, 512, count), scale)


def _convert_piece(width, rng, start, count, total):
    count = _rounded(count)
    if total >> width + 10:
        index = np.arange(start, start + count)
        p = (index >> 10 & (1 << width) - 1) - (1 << width - 1)
        scale = (index & 1023) - 512
    else:
        p, scale = _integers(rng, width, count), _scales(rng, count)
    ports = {"p": p.astype(np.uint32), "scale": scale.astype(np.uint32)}
    return _pipelined(ports, _COPIES, oracle.convert(p, scale))


def _accumulate_piece(size, rng, start, count, total):
    rows = _rounded(count) // size
    p = _integers(rng, sum_shape(size).width, rows * size).reshape(rows, size)
    scale = _scales(rng, rows)[:, None]
    fresh = rng.integers(0, 8, (rows, 1)) == 0
    product = oracle.convert(p, scale).ravel()
    kind, n = rng.integers(0, 4, rows * size), rows * size
    old = np.where(kind == 0, values.any_bits(rng, n), np.where(
        kind == 1, rng.choice(values.classes(), n), values.near_sum(rng, product)))
    old = old.reshape(rows, size)
    expected = oracle.accumulate(np.where(fresh, np.uint32(0), old), p, scale).ravel()
    p, control = p.astype(np.uint32), (scale & 1023 | fresh << 10).astype(np.uint32)
    operands = {"old": old, "sum": p, "scale": np.broadcast_to(scale.astype(np.uint32), p.shape),
                "fresh": np.broadcast_to(fresh, p.shape)}
    return Piece(np.concatenate([old, p, control], axis=1), rows, np.ravel, expected,
                 {name: x.ravel() for name, x in operands.items()}, n)


def _quantize_piece(size, rng, start, count, total):
    area = size * size
    tiles = max(count // area, 1)
    whole = -(-_DISTANCES * _ELEMENTS // (area - 1)) * area
    if start < whole <= total:
        x, rows = _every_element(rng, start // area, tiles, area), np.full(tiles, size)
        x = x.reshape(tiles, size, size)
    else:
        x = values.tile_rows(rng, tiles, size)
        rows = np.where(rng.integers(0, 2, tiles), size, rng.integers(1, size + 1, tiles))
    there = np.arange(size) < rows[:, None]
    x[~there] = 0
    end = np.broadcast_to((np.arange(size) == rows[:, None] - 1)[:, :, None], (tiles, size, 1))
    inputs = np.concatenate([x, end], axis=2, dtype=np.uint32)[there]
    largest = np.broadcast_to((x & 0x7FFFFFFF).max(axis=(1, 2))[:, None, None], x.shape)
    return Piece(inputs, tiles * size, partial(_lines, size), oracle.quantize(x).ravel(),
                 {"x": x.ravel(), "largest": largest.ravel()}, int(rows.sum()) * size)


def _every_element(rng, tile, tiles, area):
    """Elements in order: sign, mantissa, distance to the largest, which is element 0 of a tile."""
    index = tile * (area - 1) + np.arange(tiles * (area - 1)).reshape(tiles, -1)
    top = rng.integers(_DISTANCES, 255, (tiles, 1))
    x = np.empty((tiles, area), np.uint32)
    exponent = top - index // _ELEMENTS % _DISTANCES
    x[:, 1:] = (index & 0x7FFFFF) | exponent << 23 | (index >> 23 & 1) << 31
    x[:, :1] = top << 23 | rng.integers(0, 1 << 23, (tiles, 1))
    return x


def _lines(size, out):
    """Mantissas with their tile's exponent above."""
    mantissas = out[:, :-1].copy().view(np.uint8).reshape(-1, size)
    return (mantissas | (out[:, -1:] & 0x1FF) << 8).ravel()


def _load_piece(size, rng, start, count, total):
    count = _rounded(count)
    x = rng.integers(0, 256, count, dtype=np.uint8)
    if start == 0:  # every byte in every place
        x[:256 * size] = (np.arange(256)[:, None] + 37 * np.arange(size)).ravel()[:count]
    inputs = x.view(np.uint32).reshape(-1, size // 4)
    expected = x.astype(np.float32).view(np.uint32)
    return Piece(inputs, len(inputs), np.ravel, expected, {"x": x}, count)


def _pixels(rng, count):
    """float32 bits in and around 0..255: quarters, the numbers beside them, and all others."""
    near = (rng.integers(-8, 4 * 258, count) / np.float32(4)).astype(np.float32).view(np.uint32)
    near = near + rng.integers(-1, 2, count).astype(np.uint32)
    small = values.any_bits(rng, count) & np.uint32(0x807FFFFF)
    small |= rng.integers(118, 138, count).astype(np.uint32) << 23
    kind = rng.integers(0, 4, count)
    return np.where(kind == 0, small, np.where(kind == 1, values.any_bits(rng, count), near))


def _store_piece(size, rng, start, count, total):
    group = tops.StorePixels.ROWS * size * size
    count = _rounded(count, group)
    x = _pixels(rng, count)
    x = np.where(np.isfinite(x.view(np.float32)), x, x & np.uint32(0xFF7FFFFF))
    beats = count // group * ((tops.StorePixels.ROWS + 1) * size - 1)
    return Piece(x.reshape(-1, size), beats, partial(_strobed, size), oracle.to_uint8(x),
                 {"x": x}, count)


def _strobed(size, out):
    """The bytes that are written."""
    strobes = out[:, -1:] >> np.arange(size, dtype=np.uint32) & 1
    written = out[:, :-1].copy().view(np.uint8).reshape(-1, size)[strobes.astype(bool)]
    return written.astype(np.uint32)


def _uint8_piece(rng, start, count, total):
    count = _rounded(count)
    if total >> 32:
        x = np.arange(start, start + count, dtype=np.int64).astype(np.uint32)
    else:
        some = rng.choice(values.classes(), count)
        x = np.where(rng.integers(0, 8, count) == 0, some, _pixels(rng, count))
    piece = _pipelined({"x": x}, 2 * _COPIES, oracle.to_uint8(x))
    return Piece(piece.inputs, piece.outputs, _byte_or_flag, piece.expected, piece.operands, count)


def _byte_or_flag(out):
    return np.where(out & 256, np.uint32(256), out).ravel()
