"""The parameters of an accelerator, validated, and the named instances that are supported."""

from dataclasses import asdict, dataclass

__all__ = ["Config", "CONFIGS", "named_config"]


def _power_of_two(name, value, low, high):
    if value not in [1 << i for i in range(17) if low <= 1 << i <= high]:
        raise ValueError(f"{name} must be a power of two from {low} to {high}, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that distinguishes one accelerator from another.

    Parameters
    ----------
    size : int
        N: the array has N x N MACs, a tile N x N mantissas, a vector row N float32 lanes.
    vector_banks, vector_bank_rows : int
        Banks of the vector memory, and rows of N float32 lanes in each.
    tile_banks, tile_bank_tiles : int
        Banks of the tile memory, and bfp8 tiles of N x N mantissas in each.
    bus_bytes : int
        Width of the AXI4 data bus in bytes: N or 2 N. 0 means N.
    address_width : int
        Width of AXI4 addresses in bits.
    queue_depth : int
        Instructions that each of the four queues holds.

    Raises
    ------
    ValueError
        For a field outside its range; the message names the field, the value and the range.
    """

    size: int = 16
    vector_banks: int = 4
    vector_bank_rows: int = 512
    tile_banks: int = 2
    tile_bank_tiles: int = 512
    bus_bytes: int = 0
    address_width: int = 32
    queue_depth: int = 16

    def __post_init__(self):
        if self.size not in (4, 8, 16, 32):
            raise ValueError(f"size must be one of 4, 8, 16, 32, not {self.size!r}")
        _power_of_two("vector_banks", self.vector_banks, 2, 16)
        _power_of_two("vector_bank_rows", self.vector_bank_rows, 64, 16384)
        _power_of_two("tile_banks", self.tile_banks, 2, 16)
        _power_of_two("tile_bank_tiles", self.tile_bank_tiles, 8, 16384)
        _power_of_two("queue_depth", self.queue_depth, 2, 64)
        if self.vector_rows > 1 << 15:
            raise ValueError(
                f"vector_banks * vector_bank_rows must be at most 32768, not {self.vector_rows}")
        if self.tiles > 1 << 15:
            raise ValueError(
                f"tile_banks * tile_bank_tiles must be at most 32768, not {self.tiles}")
        if self.bus_bytes == 0:
            object.__setattr__(self, "bus_bytes", self.size)
        if self.bus_bytes not in (self.size, 2 * self.size) or self.bus_bytes > 32:
            choices = [b for b in (self.size, 2 * self.size) if b <= 32]
            raise ValueError(f"bus_bytes must be one of {', '.join(map(str, choices))} "
                             f"for size {self.size}, not {self.bus_bytes!r}")
        if self.address_width not in range(20, 41):
            raise ValueError(f"address_width must be from 20 to 40, not {self.address_width!r}")

    @property
    def vector_rows(self):
        """Rows of the vector memory."""
        return self.vector_banks * self.vector_bank_rows

    @property
    def tiles(self):
        """Tiles of the tile memory."""
        return self.tile_banks * self.tile_bank_tiles

    @property
    def row_bytes(self):
        """Bytes of one vector row: N float32."""
        return 4 * self.size

    @property
    def tile_bytes(self):
        """Bytes of one bfp8 tile record in memory: a row of N bytes that holds the exponent
        (int16, little endian, then zeros), then N rows of N mantissas (int8)."""
        return self.size * (self.size + 1)

    @property
    def peak_macs(self):
        """Multiply-accumulates per cycle."""
        return self.size * self.size

    def to_dict(self):
        return asdict(self)


CONFIGS = {
    "n4": Config(size=4, vector_banks=2, vector_bank_rows=1024, tile_bank_tiles=512),
    "n8": Config(size=8, tile_bank_tiles=2048),
    "n16": Config(size=16),
    "n32": Config(size=32, vector_bank_rows=1024),
}
"""The supported configurations: each is elaborated, linted and simulated in CI."""


def named_config(name):
    """The supported configuration called ``name``; ``ValueError`` names the choices."""
    try:
        return CONFIGS[name]
    except KeyError:
        raise ValueError(f"configuration must be one of {', '.join(CONFIGS)}, not {name!r}") from None
