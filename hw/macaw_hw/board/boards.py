"""The boards that have a top level here, and what becomes of it: Verilog and constraints.

Pins and their standards come from `amaranth-boards`.
"""

from dataclasses import dataclass

from amaranth.hdl import ClockDomain, ClockSignal, Elaboratable, Module, ResetSignal, Signal
from amaranth.lib import io

from ..config import Config, named_config
from ..memory_init import fold_memory_init
from .system import BoardSystem

__all__ = ["BOARDS", "Board", "Design", "build"]

_START_CYCLES = 1 << 10


@dataclass(frozen=True)
class Board:
    """A board with the default choices for it.

    Attributes
    ----------
    platform : str
        Class in `amaranth_boards`, ``module.Class``.
    device, package, speed : str
        As nextpnr's options name them.
    clock : int
        Frequency of the oscillator in Hz, which is the clock of everything.
    baud : int
        Bits per second on the line.
    config : str
        Configuration that fits with ``memory`` bytes of block memory.
    """
    platform: str
    device: str
    package: str
    speed: str
    clock: int
    baud: int
    config: str
    memory: int

    @property
    def divisor(self):
        """Cycles per bit."""
        return self.clock // self.baud


BOARDS = {
    "ulx3s-85f": Board(
        platform="ulx3s.ULX3S_85F_Platform", device="85k", package="CABGA381", speed="6",
        clock=25_000_000, baud=1_000_000, config="n4", memory=256 << 10),
}
"""Supported boards by name."""


@dataclass(frozen=True)
class Design:
    """A board's top level for a tool flow.

    Attributes
    ----------
    board : Board
    config : Config
    verilog : str
        Its top module is ``top``; it instantiates the buffers of the vendor's pins.
    constraints : str
        Pins and clock, as an LPF file.
    """
    board: Board
    config: Config
    verilog: str
    constraints: str


class _Top(Elaboratable):
    """`BoardSystem` on the pins of a board: clock, UART, and lamps for life, interrupt and alarm.

    The board has no reset of its own; after configuration the system is held in reset for some
    cycles.
    """

    def __init__(self, system):
        self._system = system

    def elaborate(self, platform):
        m = Module()
        m.domains.sync = ClockDomain()
        m.domains.start = ClockDomain(reset_less=True)
        clock = platform.request(platform.default_clk, dir="-")
        m.submodules.clock = buffer = io.Buffer("i", clock)
        wait = Signal(range(_START_CYCLES), init=_START_CYCLES - 1)
        held = Signal(init=1)
        m.d.comb += [ClockSignal("sync").eq(buffer.i), ClockSignal("start").eq(buffer.i),
                     ResetSignal("sync").eq(held)]
        m.d.start += held.eq(wait != 0)
        with m.If(wait != 0):
            m.d.start += wait.eq(wait - 1)

        m.submodules.system = system = self._system
        line = platform.request("uart", 0, dir={"rx": "-", "tx": "-", "rts": "-", "dtr": "-"})
        m.submodules.rx = rx = io.Buffer("i", line.rx)
        m.submodules.tx = tx = io.Buffer("o", line.tx)
        m.d.comb += [system.rx.eq(rx.i), tx.o.eq(system.tx)]

        beat = Signal(range(self._system.clock))
        m.d.sync += beat.eq(beat + 1)
        for number, lamp in enumerate((beat[-1], system.irq, system.alarm)):
            led = platform.request("led", number, dir="-")
            m.submodules[f"led{number}"] = pin = io.Buffer("o", led)
            m.d.comb += pin.o.eq(lamp)
        return m


def build(name, config=None, divisor=None):
    """The `Design` of a board.

    Parameters
    ----------
    name : str
        One of `BOARDS`.
    config : Config, optional
        Another accelerator than the board's default.
    divisor : int, optional
        Another rate on the line, in cycles per bit; for simulations.

    Raises
    ------
    ValueError
        For an unknown board.
    ImportError
        Without `amaranth-boards`.
    """
    if name not in BOARDS:
        raise ValueError(f"board must be one of {', '.join(BOARDS)}, not {name!r}")
    board = BOARDS[name]
    config = config or named_config(board.config)
    system = BoardSystem(config=config, size=board.memory, divisor=divisor or board.divisor,
                         clock=board.clock)
    plan = _platform(board).prepare(_Top(system), "top", emit_src=False, debug_verilog=True)
    return Design(board, config, fold_memory_init(plan.files["top.debug.v"]), plan.files["top.lpf"])


def _platform(board):
    from importlib import import_module
    module, _, name = board.platform.partition(".")
    return getattr(import_module(f"amaranth_boards.{module}"), name)(toolchain="Trellis")
