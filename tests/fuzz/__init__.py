"""Files as an enemy, or a bad disk, would make them: ``python -m tests.fuzz``, or ``make fuzz``."""
