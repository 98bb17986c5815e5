"""How fast recast is, beside cp, the I/O floor, and what people would write by hand."""
