"""Tests of recast: one file a module, beside faults, fuzz and peers."""
