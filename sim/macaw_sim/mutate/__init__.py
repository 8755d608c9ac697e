"""Single mutations of the RTL, and whether the checks notice them."""
