"""The recipes of docs/cluster.md, carried out."""
