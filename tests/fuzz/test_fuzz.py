"""Whatever is wrong with a file, it is a RecastError, and only if it is wrong for a loader, too."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.laws import Bench
from tests.fuzz.mutations import ShardFile

_PROJECT = Path(__file__).parents[2]
_FEW = settings(
    max_examples=50,
    suppress_health_check=[*settings().suppress_health_check, HealthCheck.function_scoped_fixture],
)

_texts = st.sampled_from(["", "a", "b", "é", "\ud800", "..", "float32", "bfloat16"]) | st.text(
    max_size=8
)
_numbers = st.integers(-1, 20) | st.integers() | st.floats()
_plain = st.none() | st.booleans() | _numbers | _texts
_any = st.recursive(
    _plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=5,
)

_offsets = st.lists(st.integers(0, 64).map(lambda n: n * 4) | _numbers, min_size=2, max_size=2)
_tensor = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F16", "I64", "F4", "X"]) | _texts,
        "shape": st.lists(st.integers(0, 4) | _numbers, max_size=3),
        "data_offsets": _offsets,
    }
)
_header = st.dictionaries(_texts, _tensor | _any, max_size=4)
_metadata = st.dictionaries(_texts, _texts) | _any
_index = st.fixed_dictionaries(
    {
        "weight_map": st.dictionaries(
            _texts, st.sampled_from(["a.safetensors", "b.safetensors", "../a"]) | _texts
        )
        | _any
    },
    optional={"metadata": st.dictionaries(st.just("total_size") | _texts, _plain) | _any},
)
_sub_config = st.dictionaries(st.sampled_from(["dtype", "torch_dtype", "model_type"]), _any)
_config = st.dictionaries(
    st.sampled_from(["dtype", "torch_dtype", "model_type", "text_config", "quantization_config"])
    | _texts,
    _any | _sub_config,
    max_size=5,
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A checkpoint to be damaged."""
    return Bench(tmp_path)


def _dumped(document: Any) -> bytes:
    return json.dumps(document).encode()


def test_thousands_of_mutations() -> None:
    """Mutated files are accepted if and only if a loader accepts them, in bounded memory and time.

    ``make fuzz`` tries a hundred times as many.
    """
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--inputs", "2000"],
        cwd=_PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "2,000 files" in done.stdout


@given(header=_header, metadata=st.none() | _metadata, size=st.integers(0, 300))
@_FEW
def test_headers(bench: Bench, header: dict[str, Any], metadata: object, size: int) -> None:
    """A header of any JSON is accepted if and only if safetensors accepts it."""
    if metadata is not None:
        header["__metadata__"] = metadata
    text = _dumped(header)
    bench.check_shard(ShardFile(len(text).to_bytes(8, "little") + text, 8 + len(text) + size))


@given(content=st.binary(max_size=64), size=st.integers(0, 200))
@_FEW
def test_bytes(bench: Bench, content: bytes, size: int) -> None:
    """A file of any bytes is accepted if and only if safetensors accepts it."""
    bench.check_shard(ShardFile(content[:size], size))


@given(document=_index)
@_FEW
def test_indexes(bench: Bench, document: object) -> None:
    """An index of any JSON is accepted if and only if a loader can follow it."""
    bench.check_index(_dumped(document))


@given(document=_config)
@_FEW
def test_configs(bench: Bench, document: object) -> None:
    """A config of any JSON is accepted, and what is not a dtype stays as it is."""
    assert bench.check_config(_dumped(document))


@pytest.mark.parametrize("key", ["torch_dtype", "text_config", "notes"])
def test_nests(bench: Bench, key: str) -> None:
    """JSON nested ever deeper is accepted up to some depth, and an error from there on."""
    verdicts = [
        (
            bench.check_config(b'{"model_type": "llama", "%s": %s}' % (key.encode(), nest)),
            bench.check_index(b'{"weight_map": {"a": "a.safetensors"}, "metadata": %s}' % nest),
        )
        for nest in _nests()
    ]
    assert verdicts[0] == (True, True)
    assert verdicts[-1] == (False, False)


def _nests() -> Iterator[bytes]:
    """Yield objects in objects, ever deeper."""
    recursion_limit = sys.getrecursionlimit()
    for depth in (*range(1, recursion_limit, 97), *range(recursion_limit - 120, recursion_limit)):
        yield b'{"a_config":' * depth + b"{}" + b"}" * depth
    yield b'{"a_config":' * 100_000 + b"{}" + b"}" * 100_000


@pytest.mark.parametrize("claim", [2**64 - 1, 2**63, 2**40, 100_000_001, 99_999_999])
def test_a_claimed_length_is_not_believed(bench: Bench, claim: int) -> None:
    """A header said to be longer than its file, or than any may be, is an error at once."""
    assert not bench.check_shard(ShardFile(claim.to_bytes(8, "little") + b"{}", 10))
    if claim > 100_000_000:
        assert not bench.check_shard(ShardFile(claim.to_bytes(8, "little") + b"{}", 1 << 40))


@pytest.mark.parametrize("shape", [[2**63, 2], [2**64, 1], [-1], [2**62, 2, 0], [10**30]])
def test_a_claimed_shape_is_not_believed(bench: Bench, shape: list[int]) -> None:
    """A tensor larger than its file is an error, or as empty as safetensors takes it for."""
    entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
    text = _dumped({"a": entry})
    bench.check_shard(ShardFile(len(text).to_bytes(8, "little") + text, 8 + len(text)))
