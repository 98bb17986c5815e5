"""What is there, as values: headers, indexes, configs, checkpoints. No I/O, no torch."""
