"""What shall change, as values: policies and plans. No I/O, no torch."""
