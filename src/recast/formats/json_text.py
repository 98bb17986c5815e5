"""A JSON object kept as text, so that one member can change and nothing else does.

Parsing and dumping would re-indent hand-written lists and respell numbers; people diff
their configs. So an edit replaces the characters of one value.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from recast.errors import CheckpointError

_decoder = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")


def parse(text: str, subject: str) -> dict[str, Any]:
    """Return the object that *text* holds.

    Raises CheckpointError, which names *subject*, if it holds anything else.
    """
    try:
        document = _decoder.decode(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            subject, f"is not JSON ({error})", "restore it from where the checkpoint came from"
        ) from None
    if not isinstance(document, dict):
        raise CheckpointError(subject, "holds no JSON object", "restore it")
    return document


def decode(content: bytes, subject: str) -> str:
    """Return *content* as text. Raises CheckpointError if it is not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(subject, f"is not UTF-8 text ({error})", "restore it") from None


def replace(text: str, path: tuple[str, ...], value: object) -> str:
    """Return *text* with the member at *path* set to *value*, all else untouched."""
    begin, end = _locate(text, path)
    return text[:begin] + json.dumps(value) + text[end:]


def insert(text: str, path: tuple[str, ...], key: str, value: object) -> str:
    """Return *text* with a new last member of the object at *path*, indented like its siblings."""
    brace, _ = _locate(text, path)
    members = list(_members(text, brace))
    member = f"{json.dumps(key)}: {json.dumps(value)}"
    if not members:
        return f"{text[: brace + 1]}{member}{text[brace + 1 :]}"
    _, opening, _, end = members[-1]
    separator = text[opening : _skip(text, opening)]
    return f"{text[:end]},{separator}{member}{text[end:]}"


def _locate(text: str, path: tuple[str, ...]) -> tuple[int, int]:
    """Return where the value at *path* begins and ends in *text*."""
    position, end = _skip(text, 0), len(text)
    for key in path:
        # A repeated key counts where the decoder's dict took it from: the last one.
        spans: Mapping[str, tuple[int, int]] = {
            name: (begin, stop) for name, _, begin, stop in _members(text, position)
        }
        position, end = spans[key]
    return position, end


def _members(text: str, brace: int) -> Iterator[tuple[str, int, int, int]]:
    """Yield each member of the object at *brace*: key, where its line, value begin, and its end."""
    opening = brace + 1
    position = _skip(text, opening)
    while text[position] != "}":
        key, position = _decoder.raw_decode(text, position)
        begin = _skip(text, _skip(text, position) + 1)  # past the colon
        _, end = _decoder.raw_decode(text, begin)
        yield key, opening, begin, end
        position = _skip(text, end)
        if text[position] == ",":
            opening = position + 1
            position = _skip(text, opening)


def _skip(text: str, position: int) -> int:
    """Return the first position from *position* on that holds no white space."""
    match = _SPACE.match(text, position)
    return match.end() if match else position
