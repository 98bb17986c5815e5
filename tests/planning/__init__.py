"""The decisions, and the bytes that follow from them."""
