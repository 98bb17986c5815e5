"""The values of tensors: read in pieces, looked at, cast."""
