"""Many checkpoints: found, surveyed, and repaired by workers that share their shards."""
