"""A board's top level simulated at its pins, behind a pseudo-terminal."""
