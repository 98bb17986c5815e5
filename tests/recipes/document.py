"""docs/cluster.md as code: its blocks, with this machine's paths and sizes put in."""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "cluster.md"
_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.DOTALL | re.MULTILINE)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def block(section: str, number: int, language: str, changes: Mapping[str, str]) -> str:
    """Return the block of this *number* in *section*, with every key of *changes* replaced.

    The longest keys are replaced first. A key that is not there is an error: the document has
    changed, and whoever put that key in has to know.
    """
    sections = dict(_SECTION.findall(DOCUMENT.read_text(encoding="utf-8")))
    found, code = _BLOCK.findall(sections[section])[number]
    assert found == language
    for old in changes:
        assert old in code, f"{old} is not in the recipe"
    either = "|".join(re.escape(old) for old in sorted(changes, key=len, reverse=True))
    return re.sub(either, lambda match: changes[match[0]], code) if changes else str(code)


def languages() -> Mapping[tuple[str, str], int]:
    """Return how many blocks each section has in each language."""
    return Counter(
        (section, language)
        for section, content in _SECTION.findall(DOCUMENT.read_text(encoding="utf-8"))
        for language, _ in _BLOCK.findall(content)
    )
