"""Sound headers, indexes and configs, and what becomes of them when something goes wrong."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_NUMBERS = (
    *(0, 1, -1, 2, 3, 7, 8, 9, 63, 64, 255, 256, 1000, 10**6),
    *(2**31 - 1, 2**31, 2**32, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30),
    *(0.0, -0.0, 0.5, 8.0, 1e18, 1e308, float("inf"), float("nan")),
)
_TEXTS = (
    *("", " ", "\0", "a", "é", "💥", "\ud800", "/", "..", "../x", "a/../b", "/etc/passwd", "C:\\x"),
    *("F32", "BF16", "F16", "F64", "I64", "F8_E4M3", "F4", "F6_E2M3", "BOOL", "f32", "X", "C64"),
    *("dtype", "torch_dtype", "shape", "data_offsets", "__metadata__", "format", "pt"),
    *("weight_map", "metadata", "total_size", "float32", "bfloat16", "auto", "model_type"),
    *("text_config", "quantization_config", "model.safetensors", "b.safetensors"),
)
_BYTES = (b"{", b"}", b"[", b"]", b'"', b",", b":", b"\\", b"\0", b" ", b"\n", b"\xff", b"1", b"-")
_DEEP = (10, 100, 500, 509, 510, 511, 512, 513, 980, 985, 990, 20_000)
_DTYPES = {"F32": 4, "F16": 2, "BF16": 2, "I64": 8, "F64": 8, "BOOL": 1, "U8": 1, "F8_E5M2": 1}
_LARGEST_CLAIM = 1 << 45  # bytes of data: a hole as large is a file of no size


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A weights file: the bytes at its front, and its size, beyond which it is a hole."""

    content: bytes
    size: int


def shard(chance: random.Random) -> ShardFile:
    """Return a weights file with something wrong, or with nothing wrong."""
    document, nbytes = _header(chance)
    mutated = _mutated_document(document, chance) if chance.random() < 0.6 else document
    text = _dumped(mutated)
    if chance.random() < 0.4:
        text = _mutated_bytes(text, chance)
    if chance.random() < 0.7:
        text += b" " * (-len(text) % 8)
    length = len(text)
    if chance.random() < 0.1:
        length = _lie(length, chance)
    size = 8 + len(text) + nbytes
    if chance.random() < 0.1:
        size = max(0, _lie(size, chance))
    content = (length % 2**64).to_bytes(8, "little") + text
    return ShardFile(content[:size], min(size, _LARGEST_CLAIM))


def index(chance: random.Random) -> bytes:
    """Return an index of the shards a.safetensors (tensor "a") and b.safetensors ("b")."""
    document: dict[str, Any] = {
        "metadata": {"total_size": 128},
        "weight_map": {"a": "a.safetensors", "b": "b.safetensors"},
    }
    if chance.random() < 0.3:
        document["metadata"]["dtype"] = chance.choice(["float32", "bfloat16", "nonsense"])
    if chance.random() < 0.2:
        del document["metadata"]
    return _mutated_text(document, chance)


def config(chance: random.Random) -> bytes:
    """Return a config."""
    document: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": chance.choice(["llama", "t5", "qwen3_5", "unheard-of"]),
        "torch_dtype": "float32",
        "text_config": {"model_type": "llama", "dtype": "float32", "layers": [1, 2, 3]},
        "vision_config": {"torch_dtype": None},
    }
    for key in chance.sample(sorted(document), chance.randrange(3)):
        del document[key]
    return _mutated_text(document, chance)


def _header(chance: random.Random) -> tuple[dict[str, Any], int]:
    """Return a header that is sound, and the bytes of its data."""
    document: dict[str, Any] = {}
    if chance.random() < 0.5:
        document["__metadata__"] = {"format": "pt"}
    end = 0
    for number in range(chance.randrange(5)):
        dtype = chance.choice(list(_DTYPES))
        shape = [chance.choice([0, 1, 2, 3, 5]) for _ in range(chance.randrange(4))]
        nbytes = _DTYPES[dtype]
        for each in shape:
            nbytes *= each
        document[f"t.{number}"] = {
            "dtype": dtype,
            "shape": shape,
            "data_offsets": [end, end + nbytes],
        }
        end += nbytes
    return document, end


def _mutated_text(document: dict[str, Any], chance: random.Random) -> bytes:
    """Return *document* as JSON, somewhere on the way damaged, more often than not."""
    if chance.random() < 0.8:
        document = _mutated_document(document, chance)
    text = _dumped(document, indent=chance.choice([None, 2]))
    return _mutated_bytes(text, chance) if chance.random() < 0.4 else text


def _dumped(document: object, indent: int | None = None) -> bytes:
    """Return *document* as JSON; a lone surrogate is spelled in ASCII, as it has no UTF-8."""
    try:
        return json.dumps(document, ensure_ascii=False, indent=indent).encode()
    except UnicodeEncodeError:
        return json.dumps(document, indent=indent).encode()


def _mutated_document(document: object, chance: random.Random) -> Any:
    """Return a copy of *document* in which one place or a few are something else."""
    copy: Any = json.loads(json.dumps(document))
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        place = copy
        while isinstance(place, (dict, list)) and place and chance.random() < 0.8:
            key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
            if not isinstance(place[key], (dict, list)) or chance.random() < 0.25:
                chance.choice(_MUTATIONS)(place, key, chance)
                break
            place = place[key]
    return copy


def _replace(place: Any, key: Any, chance: random.Random) -> None:
    place[key] = _any_value(chance)


def _drop(place: Any, key: Any, _chance: random.Random) -> None:
    del place[key]


def _rename(place: Any, key: Any, chance: random.Random) -> None:
    if isinstance(place, dict):
        place[chance.choice(_TEXTS)] = place.pop(key)


def _add(place: Any, _key: Any, chance: random.Random) -> None:
    if isinstance(place, dict):
        place[chance.choice(_TEXTS)] = _any_value(chance)
    else:
        place.insert(chance.randrange(len(place) + 1), _any_value(chance))


def _bend(place: Any, key: Any, chance: random.Random) -> None:
    if isinstance(place[key], int):
        place[key] += chance.choice([-8, -4, -1, 1, 4, 8])


_MUTATIONS: tuple[Callable[[Any, Any, random.Random], None], ...] = (
    *(_replace, _drop, _rename, _add, _bend),
)


def _any_value(chance: random.Random) -> object:
    """Return some JSON value."""
    match chance.randrange(6):
        case 0 | 1:
            return chance.choice(_NUMBERS)
        case 2 | 3:
            return chance.choice(_TEXTS)
        case 4:
            return chance.choice([None, True, False, [], {}])
        case _:
            values = [chance.choice((*_NUMBERS, *_TEXTS)) for _ in range(chance.randrange(3))]
            return values if chance.random() < 0.5 else {str(each): each for each in values}


def _mutated_bytes(text: bytes, chance: random.Random) -> bytes:
    """Return *text* with bytes changed, lost, put in, doubled, or with a nest put in."""
    for _ in range(chance.choice([1, 1, 2, 5])):
        at = chance.randrange(len(text) + 1)
        upto = min(len(text), at + chance.choice([1, 1, 2, 8, 40]))
        match chance.randrange(7):
            case 0:
                text = text[:at]
            case 1:
                text = text[:at] + text[upto:]
            case 2:
                text = text[:upto] + text[at:]
            case 3:
                text = text[:at] + chance.choice(_BYTES) + text[at:]
            case 4:
                text = text[:at] + chance.choice(_BYTES) + text[upto:]
            case 5:
                text = (
                    text[:at] + bytes(chance.randrange(256) for _ in range(upto - at)) + text[upto:]
                )
            case _:
                if chance.random() < 0.1:
                    deep = chance.choice(_DEEP)
                    opening, closing = chance.choice([(b"[", b"]"), (b'{"a":', b"}")])
                    nest = opening * deep + b"1" + closing * deep
                    text = text.replace(b'"float32"', nest, 1)
                    text = text.replace(b"128", nest, 1)
    return text


def _lie(number: int, chance: random.Random) -> int:
    """Return something else than *number*: close to it, or as large as a file can claim."""
    return chance.choice(
        [
            *(0, 1, 7, 8, number - 8, number - 1, number + 1, number + 8, number * 2),
            *(100_000_000, 100_000_001, 10**9, 2**31, 2**32, 2**40, 2**63, 2**64 - 8, 2**64 - 1),
        ]
    )
