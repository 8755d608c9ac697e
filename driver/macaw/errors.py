"""The base of every exception that Macaw raises for something its user can mend."""

__all__ = ["MacawError"]


class MacawError(Exception):
    """Something the user can mend. The message names the value, the limit and the remedy.

    The command line prints the message as one line, ``macaw: error: ...``, and exits with 1.
    """
