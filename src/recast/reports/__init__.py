"""What was done and found, as values, and their text and JSON forms."""
