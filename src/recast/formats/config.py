"""The dtype keys of a config.json, read and rewritten.

Which keys loaders read, and in what order, differs between libraries and versions; a key
that is out of date undoes a conversion silently. So every one of them is made true.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from json import dumps
from typing import Any

from recast.dtypes import Dtype, named
from recast.formats import json_text

_KEYS = ("dtype", "torch_dtype")
# transformers up to 4.55, vLLM, SGLang and mlx-lm know only this one.
_KEY_EVERY_LOADER_READS = "torch_dtype"
_QUANTIZATION_KEYS = ("quantization_config", "compression_config")
_NO_VALUE = "auto"  # what some people write; transformers 5 crashes on it
_MAIN = ""  # in a dict of dtypes by part: the model as a whole


@dataclass(frozen=True, slots=True)
class DtypeClaim:
    """One dtype key of a config, or of index metadata.

    Attributes:
        path: the keys from the root to the claim: ``("text_config", "torch_dtype")``.
        value: what stands there, as JSON if it is no string; None if it is null, or if a dict of
            dtypes by part says nothing of the model as a whole.
    """

    path: tuple[str, ...]
    value: str | None

    @classmethod
    def of(cls, path: tuple[str, ...], value: object) -> "DtypeClaim":
        """Return the claim that *value*, parsed from JSON, is."""
        return cls(path, value if value is None or isinstance(value, str) else dumps(value))

    @property
    def dtype(self) -> Dtype | None:
        """The dtype claimed; None if the value names none."""
        return None if self.value is None else named(self.value)

    def __str__(self) -> str:
        """Return the claim as one would write it."""
        value = "null" if self.value is None else self.value or '""'
        return f"{'.'.join(key or '(main)' for key in self.path)} = {value}"


@dataclass(frozen=True, slots=True)
class Config:
    """A config.json as it stands in its file.

    Attributes:
        name: its path relative to the checkpoint, with "/".
        text: the file's content.
        document: the same, parsed.
    """

    name: str
    text: str = field(repr=False)
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def parse(cls, name: str, content: bytes) -> "Config":
        """Read a config. Raises CheckpointError if it is not a JSON object."""
        text = json_text.decode(content, name)
        return cls(name, text, json_text.parse(text, name))

    @property
    def size(self) -> int:
        """The bytes of the file."""
        return len(self.text.encode())

    @property
    def model_type(self) -> str | None:
        """The architecture in transformers' words; None if the config names none."""
        model_type = self.document.get("model_type")
        return model_type if isinstance(model_type, str) else None

    @property
    def parts(self) -> tuple[tuple[tuple[str, ...], str], ...]:
        """The sub-configs that name an architecture: the keys that lead to each, and its name."""
        return tuple(
            (path, config["model_type"])
            for path, config in _configs(self.document)
            if path and isinstance(config.get("model_type"), str)
        )

    @property
    def nested(self) -> tuple[Mapping[str, Any], ...]:
        """The sub-configs, at any depth."""
        return tuple(config for path, config in _configs(self.document) if path)

    @property
    def vocabulary(self) -> int | None:
        """The number of tokens, where the config or its text_config names one."""
        text = self.document.get("text_config")
        for config in (self.document, text if isinstance(text, dict) else {}):
            if isinstance(size := config.get("vocab_size"), int):
                return size
        return None

    @property
    def quantization(self) -> str | None:
        """The method by which the model is quantized; None if it is not."""
        for _, config in _configs(self.document):
            for key in _QUANTIZATION_KEYS:
                if isinstance(found := config.get(key), dict) and found:
                    return str(found.get("quant_method", key))
        by_mlx = self.document.get("quantization")
        if isinstance(by_mlx, dict) and by_mlx.keys() & {"bits", "group_size"}:
            return f"{by_mlx.get('bits', 'few')} bits"
        return None

    @property
    def claims(self) -> tuple[DtypeClaim, ...]:
        """Every dtype key, root first, then the sub-configs in the file's order."""
        is_plain = self.quantization is None  # else words may be right that are no float dtypes
        return tuple(
            claim
            for path, config in _configs(self.document)
            for claim in _claims(path, config, whatever=is_plain and _names_architecture(config))
        )

    @property
    def lacks_dtype(self) -> bool:
        """Whether a loader finds no dtype key where it looks first: at the root."""
        return self.model_type is not None and not any(key in self.document for key in _KEYS)

    def retold(self, dtype: Dtype | None) -> str:
        """Return the text with every dtype key saying *dtype*, and one added if none is there.

        Where nothing is stored that has a dtype, *dtype* is None, and the text stays.
        """
        if dtype is None:
            return self.text
        wrong = [claim.path for claim in self.claims if claim.value != dtype.torch_name]
        there = [path for path in wrong if not self._lacks(path)]
        text = json_text.replace_all(self.text, there, dtype.torch_name)
        for path in wrong:
            if self._lacks(path):
                text = json_text.insert(text, path[:-1], path[-1], dtype.torch_name)
        if self.lacks_dtype:
            text = json_text.insert(text, (), _KEY_EVERY_LOADER_READS, dtype.torch_name)
        return text

    def _lacks(self, path: tuple[str, ...]) -> bool:
        """Whether *path* is that of a claim that should be there, and is not: see `_claims`."""
        return path[1:] == (_MAIN,) and _MAIN not in self.document[path[0]]


def _configs(root: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield *root* and its sub-configs, each with its path."""
    pending: list[tuple[tuple[str, ...], Mapping[str, Any]]] = [((), root)]
    while pending:  # no recursion: a file may be nested as deep as its author likes
        path, config = pending.pop()
        yield path, config
        nested = [
            ((*path, key), value)
            for key, value in config.items()
            if isinstance(value, dict) and key not in _QUANTIZATION_KEYS and _is_config(key, value)
        ]
        pending += reversed(nested)


def _is_config(key: str, value: Mapping[str, Any]) -> bool:
    """Whether a dict of a config is a sub-config, and not a table such as a vocabulary."""
    return key.endswith("_config") or "model_type" in value


def _names_architecture(config: Mapping[str, Any]) -> bool:
    """Whether *config* is that of a model, or of a part of one."""
    return isinstance(config.get("model_type"), str)


def _claims(
    path: tuple[str, ...], config: Mapping[str, Any], *, whatever: bool
) -> Iterator[DtypeClaim]:
    """Yield the dtype keys that stand directly in *config*; with *whatever* as their value.

    Without it, only what is plainly a dtype is taken for a claim. A dict at the root that says
    nothing of the model as a whole is a claim of null: transformers 5 then loads fp32.
    """
    for key in _KEYS:
        if key not in config:
            continue
        value = config[key]
        if not isinstance(value, dict):
            if whatever or _is_dtype(value):
                yield DtypeClaim.of((*path, key), value)
            continue
        if whatever and not path and _MAIN not in value:
            yield DtypeClaim((key, _MAIN), None)
        for part, claimed in value.items():
            if _is_dtype(claimed) or (whatever and (part == _MAIN or isinstance(claimed, str))):
                yield DtypeClaim.of((*path, key, part), claimed)


def _is_dtype(value: object) -> bool:
    """Whether *value* stands where a dtype does: it names one, or leaves it open."""
    if isinstance(value, str):
        return named(value) is not None or value == _NO_VALUE
    return value is None
