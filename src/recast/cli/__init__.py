"""The command: parse, call the public API, render. The only package that prints."""

from recast.cli.run import command, main

__all__ = ["command", "main"]
