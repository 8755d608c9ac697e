"""What the commands print with: the console, tables, paths."""

from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["console", "new_table", "print_table", "shown"]

_WIDTH = 140      # of a table where the output is no terminal

console = Console(highlight=False, soft_wrap=True)


def new_table(title: str, *columns: str) -> Table:
    """An empty table."""
    return Table(*columns, title=title, title_justify="left", box=box.SIMPLE)


def print_table(table: Table) -> None:
    """Print a table, on a terminal as wide as that."""
    Console(highlight=False, width=None if console.is_terminal else _WIDTH).print(table)


def shown(path: Path) -> Path:
    """The path, relative where that is shorter to read."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
