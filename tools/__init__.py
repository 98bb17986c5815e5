"""Scripts that maintainers run; not part of the installed package."""
