"""Pipelined float32 arithmetic against `macaw_sim.arithmetic`: every result, at the promised latency.

Parameters: ``unit`` (FloatAdd, FloatMul or IntToFloat), ``latency``, ``width`` (IntToFloat), ``vectors`` (random).
"""

import itertools

import cocotb
import numpy as np
from cocotb.clock import Clock
from cocotb.triggers import RisingEdge

from macaw_sim import arithmetic

from . import generator, parameters
from .activation import SPECIAL

__all__ = []


async def stream(dut, inputs, expected, latency):
    """One set of inputs per cycle; asserts that each result comes ``latency`` cycles later."""
    Clock(dut.clk, 10, unit="ns").start()
    dut.rst.value = 1
    for _ in range(2):
        await RisingEdge(dut.clk)
    dut.rst.value = 0
    names = list(inputs)
    ports = [getattr(dut, name) for name in names]
    columns = list(zip(*(inputs[name].tolist() for name in names), strict=True))
    results = []
    for cycle in range(len(columns) + latency + 1):
        for port, value in zip(ports, columns[min(cycle, len(columns) - 1)], strict=True):
            port.value = value
        await RisingEdge(dut.clk)
        if cycle >= latency:
            results.append(int(dut.o.value))
    results = np.array(results[:len(columns)], np.uint32)
    wrong = np.flatnonzero(results != expected)
    for i in wrong[:10]:
        dut._log.error(f"{dict(zip(names, columns[i], strict=True))}: {results[i]:08x}, not {expected[i]:08x}")
    assert not len(wrong), f"{len(wrong)} of {len(columns)} results differ"


def operands(rng, count):
    """Pairs of special numbers, then random pairs with exponents and mantissas that meet."""
    special = np.array(list(itertools.product(SPECIAL, SPECIAL)), np.uint32).T
    a, b = rng.integers(0, 1 << 32, (2, count), dtype=np.uint32)
    kind = rng.integers(0, 6, count)
    exponent = a >> 23 & 0xFF

    def with_exponent(e):
        return b & np.uint32(0x807FFFFF) | np.clip(e, 0, 255).astype(np.uint32) << np.uint32(23)

    near = rng.integers(-28, 29, count)
    b = np.where(kind == 1, with_exponent(exponent + near), b)               # alignment
    b = np.where(kind == 2, a ^ np.uint32(1 << 31) ^ (b >> np.uint32(8)) >> (near + 28).astype(np.uint32) // 2, b)
    b = np.where(kind == 3, with_exponent(127 - exponent.astype(int) + near // 8), b)       # near underflow
    b = np.where(kind == 4, with_exponent(381 - exponent.astype(int) + near // 8), b)       # near overflow
    b = np.where(kind == 5, with_exponent(127 + near) & np.uint32(0xFF800000) | np.uint32(0x400000), b)
    a = np.where(kind == 5, a | np.uint32(1), a)                             # products halfway between two
    a = np.where(rng.random(count) < 0.1, a | np.uint32(0x7FF000), a)        # mantissas that round to 2
    return np.concatenate([special[0], a]), np.concatenate([special[1], b]).astype(np.uint32)


@cocotb.test()
async def matches(dut):
    p, rng = parameters(), generator()
    with np.errstate(all="ignore"):
        if p["unit"] == "IntToFloat":
            low, high = -(1 << p["width"] - 1), (1 << p["width"] - 1) - 1
            bits = rng.integers(1, p["width"], p["vectors"])
            number = rng.integers(low, high + 1, p["vectors"]) >> bits
            edges = [0, 1, -1, *(n for n in (2, -3, high - 1) if low <= n <= high), low, low + 1, high]
            edges = np.array(list(itertools.product(edges, range(-512, 512))))
            number = np.concatenate([edges[:, 0], number])
            scale = np.concatenate([edges[:, 1], rng.integers(-170, 140, p["vectors"])])
            expected = np.concatenate([arithmetic.to_bits(arithmetic.int_to_float(n, s)) for n, s in zip(
                np.array_split(number, 64), np.array_split(scale, 64), strict=True)])
            inputs = {"p": number & (1 << p["width"]) - 1, "scale": scale & 1023}
        else:
            a, b = operands(rng, p["vectors"])
            function = arithmetic.fadd if p["unit"] == "FloatAdd" else arithmetic.fmul
            expected = arithmetic.to_bits(function(arithmetic.from_bits(a), arithmetic.from_bits(b)))
            mode = "integer" if p["unit"] == "FloatAdd" else "scale"  # the lanes' tests have it set
            inputs = {"a": a, "b": b, mode: np.zeros_like(a)}
    await stream(dut, inputs, expected, p["latency"])
