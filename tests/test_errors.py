"""The errors: one root, one sentence with the way out, and safe passage between processes."""

import ast
import copy
import multiprocessing
import pickle
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import recast
from recast import dtypes

PUBLIC = [getattr(recast, name) for name in recast.__all__]
ERRORS = [each for each in PUBLIC if isinstance(each, type) and issubclass(each, Exception)]
SOURCES = sorted(Path(recast.__file__).parent.rglob("*.py"))


def test_there_is_one_root() -> None:
    """Every public error is a RecastError, which is an Exception and no other library's error."""
    assert len(ERRORS) >= 7
    assert all(issubclass(each, recast.RecastError) for each in ERRORS)
    assert recast.RecastError.__bases__ == (Exception,)


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("arguments", [("a file", "is broken", "mend it"), ("a file", "is broken")])
def test_errors_survive_pickling_and_copying(
    kind: type[recast.RecastError], arguments: tuple[str, ...]
) -> None:
    """An error that was pickled or copied has the class, the attributes and the text it had."""
    error = kind(*arguments)
    pickles = [pickle.dumps(error, protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)]
    others = [pickle.loads(each) for each in pickles]  # noqa: S301 - what was pickled here
    for other in [*others, copy.copy(error), copy.deepcopy(error)]:
        assert type(other) is kind
        assert (other.subject, other.problem, other.remedy) == (*arguments, "")[:3]
        assert other.args == error.args
        assert str(other) == str(error)


def test_errors_come_back_from_another_process() -> None:
    """What a worker process raises arrives whole, and the pool outlives it."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as pool:
        with pytest.raises(recast.DtypeError) as error:
            pool.submit(dtypes.target, "float3").result()
        assert pool.submit(dtypes.target, "bf16").result() is recast.Dtype.BF16
    assert error.value.subject == "float3"
    assert "bfloat16" in error.value.remedy


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("model.safetensors", "is broken", "mend it"), "model.safetensors: is broken; mend it"),
        (("model.safetensors", "is broken"), "model.safetensors: is broken"),
        (("", "nothing works", "try again"), "nothing works; try again"),
    ],
)
def test_text_is_one_sentence_with_the_way_out(
    kind: type[recast.RecastError], arguments: tuple[str, ...], sentence: str
) -> None:
    """The text names the subject first, then the problem, then the way out."""
    assert str(kind(*arguments)) == sentence


def raised() -> Iterator[tuple[str, ast.Call]]:
    """Yield where in the source an error is made, and the call that makes it."""
    names = {each.__name__ for each in ERRORS} | {"kind"}
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            call = node.exc if isinstance(node, ast.Raise) else None
            if isinstance(call, ast.Call) and getattr(call.func, "id", "") in names:
                yield f"{path.name}:{node.lineno}", call


def test_every_error_that_is_raised_names_a_way_out() -> None:
    """Wherever recast raises an error, it gives a subject, a problem and a remedy."""
    places = list(raised())
    assert len(places) > 20  # or this test has lost sight of them
    lacking = [place for place, call in places if len(call.args) != 3]
    empty = [
        place
        for place, call in places
        for part in call.args
        if isinstance(part, ast.Constant) and not part.value
    ]
    assert not lacking
    assert not empty
