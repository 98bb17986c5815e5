"""report(): a result → a page on the disk."""

import os
from pathlib import Path

from recast.errors import TargetError
from recast.execution.publish import write_file
from recast.execution.storage import naming
from recast.reports.page import BEGINNING, Result, html, renderer

_MODE = 0o644
_ELSEWHERE = "write the page elsewhere"


def report(result: Result, path: str | os.PathLike[str]) -> None:
    """Write a page that shows *result* to *path*: one HTML file that needs nothing else.

    It appears under its name when it is complete.

    Args:
        result: what `inspect`, `convert`, `scan` or `verify` returned.
        path: the file to write. A page that is there is replaced, and nothing else is.

    Raises:
        RecastError: if Jinja2 is missing, which ``recast[report]`` installs; TargetError if
            something else is there, or no folder to write to; StorageError if writing fails.

    Example:
        >>> recast.report(recast.convert("./ckpt", "bfloat16"), "ckpt.html")  # doctest: +SKIP
    """
    check_place(Path(path))
    write_file(Path(path), html(result).encode(), _MODE)


def check_place(path: Path) -> None:
    """Raise RecastError if no page can be written to *path*, which is said before any work."""
    renderer()
    folder = path.parent
    with naming(path):
        if not folder.is_dir():
            raise TargetError(str(path), f"{folder} is no folder", f"make it, or {_ELSEWHERE}")
        if not os.access(folder, os.W_OK | os.X_OK):
            raise TargetError(str(path), f"{folder} cannot be written to", _ELSEWHERE)
        if path.exists() and not _is_page(path):  # but somebody's weights, say
            raise TargetError(str(path), "is there, and is no page of recast's", _ELSEWHERE)


def _is_page(path: Path) -> bool:
    """Whether *path* is a file that begins as pages do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(BEGINNING)) == BEGINNING
