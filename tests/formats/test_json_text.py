"""Edits of one member in a text that somebody else has laid out."""

import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recast import CheckpointError
from recast.formats import json_text

Path = tuple[str, ...]

SPACES = st.sampled_from(["", "", " ", "\n", "\r\n", "\t", "\n    ", " \t\r\n  "])
# Few, so that keys repeat.
KEYS = st.sampled_from(["dtype", "a", "", "ä", '"', "\\", "}", "a.b", "\n", "😀"])
SCALARS = st.sampled_from(
    [
        *("0", "-0", "1.50", "1e-05", "1E5", "1E+5", "12345678901234567890", "0.1e1"),
        *("true", "false", "null", "NaN", "-Infinity"),
        *('""', '"float32"', '"}"', '"],{:"', r'"\""', r'"\\"', r'"\u00e9\ud83d\ude00"', '"ä/"'),
    ]
)
VALUES = st.sampled_from(["bfloat16", 13476851248, {"total_size": 1}, None, "ä\n", [1.5]])


@dataclass
class Writer:
    """Writes a JSON text, and remembers where the value of every member stands.

    Attributes:
        text: what was written so far.
        spans: where the values of members lie, by their path through objects. Of two
            members with one key the later counts, as it does for every reader.
        objects: the paths of those that are objects.
    """

    text: str = ""
    spans: dict[Path, tuple[int, int]] = field(default_factory=dict)
    objects: set[Path] = field(default_factory=set)

    def value(self, draw: st.DrawFn, path: Path | None, depth: int) -> None:
        """Write any value."""
        write = draw(st.sampled_from([self.object, self.array, None, None] if depth else [None]))
        if write is None:
            self.text += draw(SCALARS)
        else:
            write(draw, path, depth)

    def object(self, draw: st.DrawFn, path: Path | None, depth: int) -> None:
        """Write an object; without a path, one inside an array."""
        self.text += "{" + draw(SPACES)
        if path is not None:
            self.objects.add(path)
        for number in range(draw(st.integers(0, 4))):
            self.text += "," + draw(SPACES) if number else ""
            key = draw(KEYS)
            escaped = "".join(f"\\u{ord(each):04x}" for each in key if ord(each) < 0x10000)
            spellings = [json.dumps(key), json.dumps(key, ensure_ascii=False)]
            spellings += [f'"{escaped}"'] if len(escaped) == 6 * len(key) else []
            self.text += draw(st.sampled_from(spellings)) + draw(SPACES) + ":" + draw(SPACES)
            inner = None if path is None else (*path, key)
            if inner is not None:
                self.forget(inner)
            begin = len(self.text)
            self.value(draw, inner, depth - 1)
            if inner is not None:
                self.spans[inner] = begin, len(self.text)
            self.text += draw(SPACES)
        self.text += "}"

    def array(self, draw: st.DrawFn, _path: Path | None, depth: int) -> None:
        """Write an array, in which no path leads anywhere."""
        self.text += "[" + draw(SPACES)
        for number in range(draw(st.integers(0, 3))):
            self.text += "," + draw(SPACES) if number else ""
            self.value(draw, None, depth - 1)
            self.text += draw(SPACES)
        self.text += "]"

    def forget(self, path: Path) -> None:
        """Forget the member at *path* and all in it: another one with its key follows."""
        self.spans = {key: it for key, it in self.spans.items() if key[: len(path)] != path}
        self.objects = {key for key in self.objects if key[: len(path)] != path}


@st.composite
def written(draw: st.DrawFn) -> Writer:
    """Return a JSON object as text, laid out in any way."""
    writer = Writer()
    writer.text = draw(SPACES)
    writer.object(draw, (), 3)
    writer.text += draw(SPACES)
    return writer


def spelled(text: str) -> Any:
    """Parse a text so that the order and number of keys and the spelling of numbers remain."""
    return json.loads(
        text,
        object_pairs_hook=lambda pairs: ("object", pairs),
        parse_float=str,
        parse_int=str,
        parse_constant=str,
    )


def at(tree: Any, path: Path) -> Any:
    """Return the part of a parsed text to which a path leads."""
    for key in path:
        tree = dict(tree[1])[key]
    return tree


@settings(max_examples=150)
@given(written(), VALUES, st.data())
def test_a_replacement_touches_one_value_only(
    document: Writer, value: object, data: st.DataObject
) -> None:
    """Every character before and after the value stays, and the value is the new one."""
    assert json_text.parse(document.text, "x").keys() == {path[0] for path in document.spans}
    for path in data.draw(st.permutations(sorted(document.spans)))[:5]:
        begin, end = document.spans[path]
        edited = json_text.replace(document.text, path, value)
        assert edited == document.text[:begin] + json.dumps(value) + document.text[end:]
        assert at(spelled(edited), path) == spelled(json.dumps(value))


@settings(max_examples=150)
@given(written(), KEYS, VALUES, st.data())
def test_an_insertion_adds_one_member_only(
    document: Writer, key: str, value: object, data: st.DataObject
) -> None:
    """Without what was put in, the text is what it was; parsed, it has one more, last member."""
    path = data.draw(st.sampled_from(sorted(document.objects)))
    edited = json_text.insert(document.text, path, key, value)
    pairs = enumerate(zip(edited, document.text, strict=False))
    same = next((place for place, (new, old) in pairs if new != old), len(document.text))
    added = len(edited) - len(document.text)
    assert edited[:same] + edited[same + added :] == document.text
    expected = spelled(document.text)
    at(expected, path)[1].append((key, spelled(json.dumps(value))))
    assert spelled(edited) == expected


@given(
    st.dictionaries(KEYS, st.sampled_from([1, "b", [], [1, 2], {"c": [{}]}, None]), min_size=1),
    st.sampled_from([1, 2, 4, "\t"]),
)
def test_an_insertion_is_laid_out_as_python_would(
    document: dict[str, object], indent: int | str
) -> None:
    """In a text that Python has indented, the result is what Python would have written."""
    edited = json_text.insert(json.dumps(document, indent=indent), (), "new", "bfloat16")
    assert edited == json.dumps({**document, "new": "bfloat16"}, indent=indent)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{}", '{"new": 1}'),
        ("{ }", '{"new": 1 }'),
        ("{\n}\n", '{"new": 1\n}\n'),
        ('{"a":1}', '{"a":1,"new": 1}'),
        ('{"a":1,"b":2}', '{"a":1,"b":2,"new": 1}'),
        ('{"a": 1, "b": 2}', '{"a": 1, "b": 2, "new": 1}'),
        ('{\n  "a": 1\n}\n', '{\n  "a": 1,\n  "new": 1\n}\n'),
        ('{\n    "a": 1\n}', '{\n    "a": 1,\n    "new": 1\n}'),
        ('{\n\t"a": 1\n}\n', '{\n\t"a": 1,\n\t"new": 1\n}\n'),
        ('{\r\n  "a": 1\r\n}\r\n', '{\r\n  "a": 1,\r\n  "new": 1\r\n}\r\n'),
        ('{ "a": 1,\n  "b": 2 }', '{ "a": 1,\n  "b": 2,\n  "new": 1 }'),
        ('{\n  "a": [\n    1\n  ]\n}', '{\n  "a": [\n    1\n  ],\n  "new": 1\n}'),
        ('\n{"a": {}}\n', '\n{"a": {},"new": 1}\n'),
    ],
)
def test_an_insertion_follows_its_siblings(before: str, after: str) -> None:
    """The new member stands on a line of its own, indented like the last, if that one does."""
    assert json_text.insert(before, (), "new", 1) == after


def test_an_insertion_into_an_inner_object_follows_its_siblings() -> None:
    """Inside another object, the indentation is that of the inner one."""
    before = '{\n  "metadata": {\n    "a": 1\n  },\n  "weight_map": {}\n}\n'
    after = '{\n  "metadata": {\n    "a": 1,\n    "new": 1\n  },\n  "weight_map": {}\n}\n'
    assert json_text.insert(before, ("metadata",), "new", 1) == after


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (r'{"dtype": 1, "\u0064type": 2}', '{"dtype": 1, "\\u0064type": "x"}'),
        ('{"dtype":1e-05,"n":1E5}', '{"dtype":"x","n":1E5}'),
        (
            '{"n": {"dtype": 1}, "dtype": {"n": [{"dtype": 2}]}}',
            '{"n": {"dtype": 1}, "dtype": "x"}',
        ),
        ('{\r\n\t"dtype"\r\n:\tnull\r\n}', '{\r\n\t"dtype"\r\n:\t"x"\r\n}'),
    ],
)
def test_a_replacement_finds_the_member(before: str, after: str) -> None:
    """The key may be escaped, repeated, used elsewhere too, or stand on another line."""
    assert json_text.replace(before, ("dtype",), "x") == after


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b" ", b"{", b"{} {}", b'{"a":}', b'{"a" 1}', b'{"a":1,}', b"{'a':1}", b"{a:1}"),
        *(b"[]", b"3", b"null", b'"{}"', b'{"a":1', b'{"a":"', b'{"a":"\n"}', b"\xef\xbb\xbf{}"),
        *(b"\xff{}", b'{"\xe4":1}', "{}".encode("utf-16"), b'{"a":' + b"9" * 5000 + b"}"),
        *(b"[" * 100_000, b'{"a":' * 100_000, b"\x00"),
    ],
    ids=lambda content: repr(content[:12]),
)
def test_what_is_no_object_is_an_error_that_names_the_file(content: bytes) -> None:
    """Any bytes that are no JSON object end in one sentence about the file, with a way out."""
    with pytest.raises(CheckpointError) as error:
        json_text.parse(json_text.decode(content, "sub/config.json"), "sub/config.json")
    assert error.value.subject == "sub/config.json"
    assert error.value.remedy
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


@given(st.binary(max_size=20))
def test_any_bytes_are_an_object_or_an_error(content: bytes) -> None:
    """Nothing else than a dict is returned, and nothing else than a CheckpointError is raised."""
    try:
        document = json_text.parse(json_text.decode(content, "x"), "x")
    except CheckpointError:
        return
    assert document == json.loads(content)
    assert isinstance(document, dict)
