"""The dtype keys of a config.json, read and rewritten.

Which keys loaders read, and in what order, differs between libraries and versions; a key
that is out of date undoes a conversion silently. So every one of them is made true.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from recast.dtypes import Dtype, named
from recast.formats import json_text

_KEYS = ("dtype", "torch_dtype")
# transformers up to 4.55, vLLM, SGLang and mlx-lm know only this one.
_KEY_EVERY_LOADER_READS = "torch_dtype"
_QUANTIZATION_KEYS = ("quantization_config", "compression_config")
_NO_VALUE = "auto"  # what some people write; transformers 5 crashes on it


@dataclass(frozen=True, slots=True)
class DtypeClaim:
    """One dtype key of a config.

    Attributes:
        path: the keys from the root to the claim: ``("text_config", "torch_dtype")``.
        value: what stands there; None if it is null.
    """

    path: tuple[str, ...]
    value: str | None

    @property
    def dtype(self) -> Dtype | None:
        """The dtype claimed; None if the claim is empty or "auto"."""
        return None if self.value is None else named(self.value)

    def __str__(self) -> str:
        """Return the claim as one would write it."""
        value = "null" if self.value is None else self.value
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
        return tuple(
            claim for path, config in _configs(self.document) for claim in _claims(path, config)
        )

    @property
    def lacks_dtype(self) -> bool:
        """Whether a loader finds no dtype key where it looks first: at the root."""
        return self.model_type is not None and not any(key in self.document for key in _KEYS)

    def retold(self, dtype: Dtype) -> str:
        """Return the text with every dtype key saying *dtype*, and one added if none is there."""
        wrong = [claim.path for claim in self.claims if claim.value != dtype.torch_name]
        text = json_text.replace_all(self.text, wrong, dtype.torch_name)
        if self.lacks_dtype:
            text = json_text.insert(text, (), _KEY_EVERY_LOADER_READS, dtype.torch_name)
        return text


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


def _claims(path: tuple[str, ...], config: Mapping[str, Any]) -> Iterator[DtypeClaim]:
    """Yield the dtype keys that stand directly in *config*."""
    for key in _KEYS:
        match config.get(key, 0):
            case None:
                yield DtypeClaim((*path, key), None)
            case str(value) if named(value) or value == _NO_VALUE:
                yield DtypeClaim((*path, key), value)
            case dict(by_part):
                for part, value in by_part.items():
                    if isinstance(value, str) and named(value):
                        yield DtypeClaim((*path, key, part), value)
