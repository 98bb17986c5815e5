"""Fleets: many checkpoints, on any executor."""
