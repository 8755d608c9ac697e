"""Macaw's hardware: Amaranth components, and the descriptions that everything else reads."""
