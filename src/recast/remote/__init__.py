"""Checkpoints on the Hub: read there, fetched shard by shard, published."""
