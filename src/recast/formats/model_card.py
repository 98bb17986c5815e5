"""What the model card, a README.md, says of the model that a checkpoint was made from."""

import re

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
# One name, on the line itself or as the first of a list below it.
_BASE_MODEL = re.compile(
    r"^base_model:[ \t]*(?:\r?\n[ \t]*-[ \t]*)?([^\s#\[\]{}&*|>]+)", re.MULTILINE
)
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def base_model(card: str) -> str | None:
    """Return the base model that the front matter of *card* names first, if any."""
    front = _FRONT_MATTER.match(card)
    found = _BASE_MODEL.search(front[1]) if front else None
    return found[1].strip("\"'") if found else None


def is_repository(name: str) -> bool:
    """Whether *name* is that of a repository on the Hub: ``org/name``."""
    return _REPOSITORY.fullmatch(name) is not None
