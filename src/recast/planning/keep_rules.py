"""Tensors known to need fp32: the data beside this module, looked up.

`keep_rules.json`, by model_type, was observed, by building every model small and saving it in a
narrow dtype with transformers; `source` names the version. Architectures that could not be built
are served by the lists in transformers' own code. `always_kept.json` holds what publishers ship
in fp32 in whatever model, though transformers casts it: it is tiny, and a loader that wants it
narrow casts it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib import resources
from typing import Any

from recast.dtypes import Dtype

Rule = Callable[[str], str | None]
Part = tuple[tuple[str, ...], str]  # the keys that lead to a sub-config, and its model_type

# The layers that predict further tokens are of the model's own kind, but transformers drops
# them: what it keeps in "layers.3" must be kept in "mtp.layers.0" and "mtp.0" unobserved.
_FURTHER_LAYER = re.compile(r"(^|\.)mtp\w*\.(?:layers\.)?(?=[0-9]+\.)")
# By what a sub-config is called, the words by which tensors of that sub-model are.
_WORDS = {"vision": ("vision", "visual", "image"), "audio": ("audio", "speech")}


def keeps_nothing(_name: str) -> None:
    """Keep no tensor: the rule of those who want none."""


def rule(
    model_type: str | None,
    target: Dtype,
    parts: tuple[Part, ...] = (),
    holds: Callable[[str], bool] = lambda _name: False,
) -> Rule:
    """Return a function: tensor name → why it must stay fp32, or None.

    The answer depends on *target* too: some tensors suffer in fp16 and not in bf16.

    Args:
        model_type: what the config says; None if there is none.
        target: the dtype that the other tensors get.
        parts: the sub-configs that have a model_type of their own.
        holds: whether the checkpoint holds a tensor of this name: some rules need its neighbours.
    """
    if target is Dtype.F32:
        return keeps_nothing
    rules = list(_rules(model_type, target, parts))

    def reason(name: str) -> str | None:
        for own in rules:
            if (found := own(name)) is not None:
                return found
        return _always(name, holds)

    return reason


def _rules(model_type: str | None, target: Dtype, parts: tuple[Part, ...]) -> Iterator[Rule]:
    """Yield the rules of a model and of its sub-models, as far as they keep anything."""
    if model_type is not None and (found := _type_rule(model_type, target)):
        yield found
    for path, part_type in parts:
        if found := _type_rule(part_type, target, _in_front(path, [other for other, _ in parts])):
            yield found


def _type_rule(model_type: str, target: Dtype, before: str = "") -> Rule | None:
    """Return the rule of *model_type*, whose names stand behind what *before* matches."""
    table = _table()
    observed = table["observed"].get(model_type, {}).get(target.short_name, [])
    if model_type in table["tried"] or model_type in table["observed"]:
        reasons = {_numbered(pattern): pattern for pattern in observed}
        source = table["source"]
    else:
        before = ".*?"  # the lists are no whole names
        reasons = {
            each.replace("*", ".*") + ".*": each for each in _modules(table, model_type, target)
        }
        source = "transformers' _keep_in_fp32_modules"
    if not reasons:
        return None
    # One alternation: the name of the group that matched is the rule that did.
    find = re.compile(before + "(?:" + "|".join(f"({each})" for each in reasons) + ")").fullmatch
    labels = [f"{model_type} keeps {label} in fp32 ({source})" for label in reasons.values()]
    return lambda name: _first_group(find(_as_own_layer(name)), labels)


def _in_front(path: tuple[str, ...], paths: list[tuple[str, ...]]) -> str:
    """Return a regular expression for what stands before a name of the sub-model at *path*.

    That is anything by which no other sub-model is called: a text model lies in
    "language_model." or "model.", but not in "vision_tower.". Nor is there a number in it, as
    no sub-model lies in another one's layers.
    """
    mine = {word for key in path for word in _words(key)}
    apart = [other for other in paths if other != path[: len(other)] and path != other[: len(path)]]
    others = sorted({word for other in apart for word in _words(other[-1])} - mine)
    elsewhere = f"(?![^.]*(?:{'|'.join(map(re.escape, others))}))" if others else ""
    return rf"(?:{elsewhere}[^.]*[^.0-9][^.]*\.)*?"


def _words(key: str) -> tuple[str, ...]:
    """Return the words by which tensors of the sub-model at *key* are called."""
    stem = key.removesuffix("_config")
    return _WORDS.get(stem, (stem,))


def _always(name: str, holds: Callable[[str], bool]) -> str | None:
    """Return why the tensor *name* stays fp32 in whatever model, or None."""
    last = name.rpartition(".")[2]
    if (found := _always_kept().get(last)) is None:
        return None
    neighbours, because = found
    stem = name.removesuffix(last)
    if neighbours and not any(holds(stem + each) for each in neighbours):
        return None
    return f"every model keeps {last} in fp32 ({because})"


def _as_own_layer(name: str) -> str:
    """Return *name* as it would be in one of the model's own layers."""
    # There may be a million names, and hardly any of them is one to look at closely.
    return _FURTHER_LAYER.sub(r"\1layers.", name) if "mtp" in name else name


def _first_group(match: re.Match[str] | None, labels: list[str]) -> str | None:
    """Return the label of the alternative that *match* found."""
    return None if match is None or match.lastindex is None else labels[match.lastindex - 1]


def _numbered(pattern: str) -> str:
    """Return a regular expression for whole names, where "*" stands for a layer's number."""
    return re.escape(pattern).replace(re.escape("*"), "[0-9]+")


def _modules(table: Mapping[str, Any], model_type: str, target: Dtype) -> list[str]:
    """Return the module patterns that transformers' code lists for *model_type*."""
    folder = table["aliases"].get(model_type, model_type.replace("-", "_"))
    lists = table["modules"].get(folder, {})
    relaxed = lists.get("keep", []) if target is Dtype.F16 else []
    return [*lists.get("keep_strict", []), *relaxed]


@cache
def _table() -> Mapping[str, Any]:
    """Return what was observed, by model type."""
    table: Mapping[str, Any] = json.loads(_text("keep_rules.json"))
    return table


@cache
def _always_kept() -> Mapping[str, tuple[tuple[str, ...], str]]:
    """Return what stays fp32 in whatever model.

    By the last part of a name: the tensors of which one must lie beside it, if any must, and why.
    """
    return {
        name: (tuple(each.get("beside", ())), each["because"])
        for each in json.loads(_text("always_kept.json"))
        for name in each["names"]
    }


def _text(name: str) -> str:
    """Return the content of a data file beside this module."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
