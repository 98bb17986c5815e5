"""What `import recast` promises: its names, their documentation, and values one can rely on."""

import ast
import copy
import dataclasses
import importlib
import inspect
import pickle
import re
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
import torch

import recast
from tests import checkpoints

PUBLIC = {name: getattr(recast, name) for name in recast.__all__}
CLASSES = [name for name, value in PUBLIC.items() if isinstance(value, type)]
FUNCTIONS = [name for name, value in PUBLIC.items() if inspect.isfunction(value)]
# Pure functions of a value that was checked when it was made.
CANNOT_FAIL = {"findings"}


@pytest.fixture
def hundred(tmp_path: Path) -> Path:
    """A checkpoint of a hundred tensors in two shards, with long names and a config."""
    names = [f"model.layers.{number}.self_attn.q_proj.weight" for number in range(100)]
    tensors = checkpoints.random_tensors(**dict.fromkeys(names, (16, 16)))
    shards = {
        "model-00001-of-00002.safetensors": {name: tensors[name] for name in names[:50]},
        "model-00002-of-00002.safetensors": {name: tensors[name] for name in names[50:]},
    }
    return checkpoints.save_sharded(tmp_path / "hundred", shards)


@pytest.fixture
def values(hundred: Path) -> dict[str, object]:
    """Return one value of each kind that the API returns, of a real checkpoint."""
    converted = recast.convert(hundred, "bf16")
    assert converted.target is not None
    return {
        "Checkpoint": recast.inspect(hundred),
        "Plan": recast.plan(hundred, "fp16", keep=["*.0.*"]),
        "Conversion": converted,
        "Verification": recast.verify(converted.target, against=hundred),
    }


def test_every_public_name_resolves_to_what_its_module_defines() -> None:
    """The names are sorted, none is missing from either list, and each comes from its home."""
    homes = vars(recast)["_HOMES"]
    assert sorted(set(recast.__all__)) == recast.__all__
    assert set(recast.__all__) == {*homes, "__version__"}
    for name, home in homes.items():
        assert PUBLIC[name] is getattr(importlib.import_module(home), name)
        assert PUBLIC[name].__module__ == home


def test_the_names_that_type_checkers_see_are_the_public_ones() -> None:
    """What is imported for type checkers only is what is loaded when it is used."""
    tree = ast.parse(inspect.getsource(recast))
    [guarded] = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(guarded.test) == "TYPE_CHECKING"
    seen = {
        alias.name: node.module
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == vars(recast)["_HOMES"]


@pytest.mark.parametrize("name", ["converts", "os", "Path", "__path__x", "import_modules", ""])
def test_other_names_are_attribute_errors(name: str) -> None:
    """A misspelt name is an AttributeError that says so, as from any other module."""
    with pytest.raises(AttributeError, match=re.escape(f"'recast' has no attribute {name!r}")):
        getattr(recast, name)
    assert not hasattr(recast, name)


def test_dir_lists_the_public_names() -> None:
    """Completion offers what is public, and nothing that happens to be imported."""
    assert dir(recast) == sorted(recast.__all__)


def test_the_version_is_that_of_the_distribution() -> None:
    """Code, package and command give one version."""
    assert recast.__version__ == metadata.version("recast")


def test_types_are_shipped() -> None:
    """The marker that tells type checkers to believe the annotations lies in the package."""
    assert (Path(recast.__file__).parent / "py.typed").is_file()


@pytest.mark.parametrize("name", [*CLASSES, *FUNCTIONS])
def test_everything_public_is_documented(name: str) -> None:
    """Every public class and function, method and property says what it is."""
    for member, documented in members(PUBLIC[name]):
        assert documented, f"{name}{member}"
        summary, _, rest = documented.partition("\n")
        assert summary.endswith(".")
        assert not rest or rest.startswith("\n")


def members(value: type | Callable[..., object]) -> Iterator[tuple[str, str]]:
    """Yield the docstring of a function, or of a class and all that it defines under a name."""
    yield "", inspect.getdoc(value) or ""
    if isinstance(value, type):
        for name, member in vars(value).items():
            if not name.startswith("_") and isinstance(member, property | classmethod):
                yield f".{name}", inspect.getdoc(member) or ""


@pytest.mark.parametrize("name", CLASSES)
def test_every_field_is_documented(name: str) -> None:
    """Values explain each of their fields by its name."""
    if dataclasses.is_dataclass(PUBLIC[name]):
        section = sections(PUBLIC[name])["Attributes"]
        for field in dataclasses.fields(PUBLIC[name]):
            assert re.search(rf"^{field.name}: ", section, re.MULTILINE), field.name


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_document_arguments_errors_and_an_example(name: str) -> None:
    """Each function explains every argument and error, and shows how it is called."""
    found = sections(PUBLIC[name])
    for argument in inspect.signature(PUBLIC[name]).parameters:
        assert re.search(rf"^{argument}: ", found["Args"], re.MULTILINE), argument
    assert f"recast.{name}(" in found["Example"]
    assert ("Raises" in found) == (name not in CANNOT_FAIL)
    for error in re.findall(r"\b\w+Error\b", found.get("Raises", "")):
        assert issubclass(PUBLIC[error], recast.RecastError)


def sections(value: object) -> dict[str, str]:
    """Return the sections of a docstring, such as "Args", by their titles."""
    found: dict[str, str] = {}
    title = ""
    for line in (inspect.getdoc(value) or "").splitlines():
        if match := re.fullmatch(r"(\w+):", line):
            title = match[1]
        else:
            found[title] = f"{found.get(title, '')}{line.removeprefix('    ')}\n"
    return found


@pytest.mark.parametrize("kind", ["Checkpoint", "Plan", "Conversion", "Verification"])
def test_values_pickle(kind: str, values: dict[str, object]) -> None:
    """What the API returns can be sent to another process, and is equal to itself there."""
    value = values[kind]
    assert type(value) is PUBLIC[kind]
    other = pickle.loads(pickle.dumps(value))  # noqa: S301 - what was pickled here
    assert other == value
    assert other is not value
    assert repr(other) == repr(value)
    assert copy.deepcopy(value) == value


@pytest.mark.parametrize("kind", ["Checkpoint", "Plan", "Conversion", "Verification"])
def test_values_are_frozen(kind: str, values: dict[str, object]) -> None:
    """No field of a value, nor of the values in it, can be assigned, and none can be added."""
    seen = set()
    for value in parts(values[kind]):
        seen.add(type(value).__name__)
        for field in dataclasses.fields(value):
            with pytest.raises(dataclasses.FrozenInstanceError):
                setattr(value, field.name, None)
        with pytest.raises((AttributeError, TypeError)):
            value.something_new = None
    assert kind in seen
    assert len(seen) > 1


def parts(value: object) -> Iterator[object]:
    """Yield a value and the values that it holds."""
    if dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from parts(getattr(value, field.name))
    elif isinstance(value, tuple):
        for each in value:
            yield from parts(each)
    elif isinstance(value, dict):
        for each in value.values():
            yield from parts(each)


@pytest.mark.parametrize("kind", ["Checkpoint", "Plan", "Conversion", "Verification"])
def test_reprs_are_short_and_say_what_it_is(
    kind: str, values: dict[str, object], hundred: Path
) -> None:
    """A value's repr names its kind and its folder, and does not fill the screen."""
    text = repr(values[kind])
    assert text.startswith(f"{kind}(")
    assert str(hundred) in text
    assert len(text) < 2000


def test_a_long_list_of_differences_does_not_fill_the_screen(
    hundred: Path, ckpt: Path, values: dict[str, object]
) -> None:
    """A verification that does not hold says how much is wrong, and lists it when asked."""
    verdict = recast.verify(ckpt, against=hundred)
    assert len(verdict.differences) > 100
    assert f"holds=False, differences={len(verdict.differences)}" in repr(verdict)
    assert len(repr(verdict)) < 2000
    assert "holds=True" in repr(values["Verification"])


def test_a_checkpoint_can_be_used_again_and_again(hundred: Path) -> None:
    """What `inspect` returned can be planned, converted and verified instead of its path."""
    checkpoint = recast.inspect(hundred)
    assert recast.plan(checkpoint, torch.bfloat16) == recast.plan(str(hundred), "bf16")
    done = recast.convert(recast.plan(checkpoint, "bf16"))
    assert done.target == hundred.with_name("hundred-bf16")
    assert recast.verify(recast.inspect(done.target), against=checkpoint)
