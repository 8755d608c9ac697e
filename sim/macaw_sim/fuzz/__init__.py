"""Random programs, legal and illegal, on the RTL and on the emulator; see ``docs/verification.md``."""
