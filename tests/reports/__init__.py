"""Tests of what recast says, as values, text and JSON."""
