"""report(): a result → a page on the disk."""

import os
from pathlib import Path

from recast.execution.storage import naming
from recast.reports.page import Result, html


def report(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a page that shows *result* to *path*: one HTML file that needs nothing else.

    Args:
        result: what `inspect`, `convert`, `scan` or `verify` returned.
        path: the file to write; one that is there is replaced.

    Raises:
        RecastError: if Jinja2 is missing, which ``recast[report]`` installs; StorageError if the
            file cannot be written.

    Example:
        >>> recast.report(recast.convert("./ckpt", "bfloat16"), "ckpt.html")  # doctest: +SKIP
    """
    content = html(result)
    with naming(Path(path)):
        Path(path).write_text(content, encoding="utf-8")
