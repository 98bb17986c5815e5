"""The formats, beside the libraries that define them."""
