"""Files that are written whole or not at all, and folders that can be written to."""

import os
import tempfile
from pathlib import Path

from .errors import MacawError

__all__ = ["writable_folder", "write_atomically"]


def write_atomically(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a file under a temporary name and then rename it, so that a reader or an interruption never
    sees half of it."""
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def writable_folder(path: str | os.PathLike) -> Path:
    """The folder, made if need be.

    Raises
    ------
    MacawError
        When it cannot be made or written to.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise MacawError(f"cannot write to the folder {path}: {error.strerror}; "
                         "choose another with --output") from None
    return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
