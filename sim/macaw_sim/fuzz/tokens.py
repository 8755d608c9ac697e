"""Tokens of encoded programs: put in by the program builder, added at random, taken out in pairs."""

import struct

from macaw.program import Program
from macaw_hw import isa
from macaw_hw.config import Config
from macaw_hw.isa import Opcode, Queue

from .case import instructions

__all__ = ["add_tokens", "append", "encode", "pairs", "synchronized", "without"]


def append(program: Program, opcode: Opcode, fields: dict) -> None:
    """Append an instruction, given by its encoded fields, to a program under construction."""
    rest = {name: value for name, value in fields.items() if name not in ("opcode", "wait", "post")}
    if opcode == Opcode.VECTOR:
        # A signalling NaN becomes a quiet one here; the device does not tell them apart.
        scalar = struct.unpack("<f", struct.pack("<I", rest.pop("scalar")))[0]
        program.vector(rest.pop("op"), scalar=scalar, **rest)
    else:
        getattr(program, opcode.name.lower())(**rest)


def encode(decoded) -> bytes:
    """The program of (format, fields) pairs."""
    return b"".join(isa.encode(format.opcode, **{n: v for n, v in fields.items() if n != "opcode"})
                    for format, fields in decoded)


def synchronized(program: bytes, config: Config) -> bytes:
    """The same instructions with the tokens that they need and no other. ``ValueError`` if one is illegal."""
    built = Program(config)
    for one in instructions(program):
        format, fields = isa.decode(one)
        append(built, format.opcode, fields)
    return built.to_bytes()


def pairs(decoded, source: Queue, target: Queue):
    """Indices of the instructions that post, and that take, the tokens between two queues: a token each."""
    posts = [i for i, (format, fields) in enumerate(decoded)
             if format.queue == source and fields["post"] >> target & 1]
    waits = [i for i, (format, fields) in enumerate(decoded)
             if format.queue == target and fields["wait"] >> source & 1]
    return posts, waits


def without(program: bytes, dropped: set[int]) -> bytes:
    """The program without some instructions and without the tokens that they post or take."""
    decoded = [isa.decode(one) for one in instructions(program)]
    for source in Queue:
        for target in Queue:
            for post, wait in zip(*pairs(decoded, source, target), strict=False):
                if (post in dropped) != (wait in dropped):
                    decoded[post][1]["post"] &= ~(1 << target)
                    decoded[wait][1]["wait"] &= ~(1 << source)
    return encode(pair for index, pair in enumerate(decoded) if index not in dropped)


def add_tokens(program: bytes, rng, count: int) -> bytes:
    """Up to ``count`` more tokens, none of which undoes the order that the others give, or locks up.

    The k-th token that a queue takes from another is the k-th that was posted. A new pair (post at i, taken
    at j) keeps every pair (a, b) in order unless i < a and b < j. Some last tokens are never taken.
    """
    decoded = [isa.decode(one) for one in instructions(program)]
    spread = rng.choice([4, 40, len(decoded)])
    for _ in range(count):
        first = int(rng.integers(len(decoded)))
        second = min(len(decoded) - 1, first + 1 + int(rng.integers(spread)))
        source, target = decoded[first][0].queue, decoded[second][0].queue
        if first >= second or source == target:
            continue
        posts, waits = pairs(decoded, source, target)
        if first in posts or second in waits:
            continue
        if any(first < a and b < second for a, b in zip(posts, waits, strict=True)):
            continue
        decoded[first][1]["post"] |= 1 << target
        decoded[second][1]["wait"] |= 1 << source
    for index in range(max(0, len(decoded) - 4), len(decoded)):
        format, fields = decoded[index]
        target = Queue(int(rng.integers(len(Queue))))
        later = [f for _, f in decoded[index + 1:]]
        if count and format.queue != target and not any(f["post"] >> target & 1 or f["wait"] >> format.queue & 1
                                                        for f in later):
            fields["post"] |= 1 << target
    return encode(decoded)
