"""A JSON object kept as text, so that one member can change and nothing else does.

Parsing and dumping would re-indent hand-written lists and respell numbers; people diff
their configs. So an edit replaces the characters of one value.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from recast.errors import CheckpointError

_decoder = json.JSONDecoder()
_SPACE = re.compile(r"[ \t\n\r]*")
_DEEPEST = 512  # levels: within what Python's stack can hold, wherever a text is edited


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
    if _is_deep(document):
        raise CheckpointError(subject, f"is nested deeper than {_DEEPEST} levels", "restore it")
    return document


def _is_deep(document: object) -> bool:
    """Whether *document* is nested deeper than any real one."""
    level = [document]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            for inner in (each.values() if isinstance(each, dict) else each)  # type: ignore[attr-defined]
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


def decode(content: bytes, subject: str) -> str:
    """Return *content* as text. Raises CheckpointError if it is not UTF-8."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(subject, f"is not UTF-8 text ({error})", "restore it") from None


def replace(text: str, path: tuple[str, ...], value: object) -> str:
    """Return *text* with the member at *path* set to *value*, all else untouched."""
    return replace_all(text, [path], value)


def replace_all(text: str, paths: Iterable[tuple[str, ...]], value: object) -> str:
    """Return *text* with the member at each of *paths* set to *value*, all else untouched."""
    parts, done = [], 0
    for begin, end in sorted(_places(text, paths)):
        parts += [text[done:begin], json.dumps(value)]
        done = end
    return "".join([*parts, text[done:]])


def insert(text: str, path: tuple[str, ...], key: str, value: object) -> str:
    """Return *text* with a new last member of the object at *path*, indented like its siblings."""
    brace = next(_places(text, [path]))[0] if path else _skip(text, 0)
    members = list(_members(text, brace))
    member = f"{json.dumps(key)}: {json.dumps(value)}"
    if not members:
        return f"{text[: brace + 1]}{member}{text[brace + 1 :]}"
    _, opening, _, end = members[-1]
    separator = text[opening : _skip(text, opening)]
    return f"{text[:end]},{separator}{member}{text[end:]}"


def _places(text: str, paths: Iterable[tuple[str, ...]]) -> Iterator[tuple[int, int]]:
    """Yield where the value at each of *paths* begins and ends in *text*, in no certain order."""
    pending = [(_skip(text, 0), list(paths))]
    while pending:
        brace, sought = pending.pop()
        inner: dict[str, list[tuple[str, ...]]] = {}
        for key, *rest in sought:
            inner.setdefault(key, []).append(tuple(rest))
        # A repeated key counts where the decoder's dict took it from: the last one.
        spans = {name: (begin, end) for name, _, begin, end in _members(text, brace)}
        for key, deeper in inner.items():
            if () in deeper:
                yield spans[key]
            else:
                pending.append((spans[key][0], deeper))


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
