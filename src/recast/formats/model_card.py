"""What the model card, a README.md, says of the model that a checkpoint was made from."""

import re

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)^---[ \t]*\r?$", re.DOTALL | re.MULTILINE)
# One name, on the line itself or as the first of a list below it.
_BASE_MODEL = re.compile(
    r"^base_model:[ \t]*(?:\r?\n[ \t]*-[ \t]*)?([^\s#\[\]{}&*|>]+)", re.MULTILINE
)


def base_model(card: str) -> str | None:
    """Return the base model that the front matter of *card* names first, if any."""
    front = _FRONT_MATTER.match(card)
    found = _BASE_MODEL.search(front[1]) if front else None
    return found[1].strip("\"'") if found else None
