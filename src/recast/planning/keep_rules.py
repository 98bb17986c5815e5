"""Tensors known to need fp32: by model_type, from the data beside this module; and by kind.

The data was observed, by building every model small and saving it in a narrow dtype with
transformers; `source` names the version. Architectures that could not be built are served
by the lists in transformers' own code. Some tensors that transformers narrows are shipped in
fp32 by publishers, and cost next to nothing: they are known by their kind, in any model.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from recast.dtypes import Dtype

Rule = Callable[[str], str | None]

# The layers that predict further tokens are of the model's own kind, but transformers drops
# them: what it keeps in "layers.3" must be kept in "mtp.layers.0" and "mtp.0" unobserved.
_FURTHER_LAYER = re.compile(r"(^|\.)mtp\w*\.(?:layers\.)?(?=[0-9]+\.)")


# How the tensors of a sub-model are prefixed, by the name of its config; else by that name.
_WORDS = {
    "text": ("text", "language", "llm", "lm"),
    "llm": ("text", "language", "llm", "lm"),
    "language": ("text", "language", "llm", "lm"),
    "vision": ("vis", "image"),
    "audio": ("audio", "speech", "sound"),
}

_ROUTING_BIAS = re.compile(
    r"(e_score_)?correction_bias|(score|router|routing)_correction_bias|experts?_bias(es)?"
    r"|balancing_bias(es)?|routing_bias(es)?"
)
_STATE_SPACE = frozenset({"A_log", "dt_bias"})
_STATISTICS = {"running_mean": "running_var", "running_var": "running_mean"}
_SHIPPED = "which publishers ship in fp32"


def rules(
    model_type: str | None,
    parts: Iterable[tuple[str, str]],
    has: Callable[[str], bool],
    target: Dtype,
) -> Rule:
    """Return a function: tensor name → why it must stay fp32, or None.

    Args:
        model_type: what the config says; None if it says nothing.
        parts: of its sub-configs, the names and the model types.
        has: whether the model has a tensor of this name.
        target: what the others become.
    """
    if target is Dtype.F32:
        return no_rule
    every = [rule(model_type, target)]
    every += [rule(kind, target, part) for part, kind in dict.fromkeys(parts)]
    every = [each for each in every if each is not no_rule]

    def first(name: str) -> str | None:
        for each in every:
            if (reason := each(name)) is not None:
                return reason
        return _by_kind(name, has)

    return first


def _by_kind(name: str, has: Callable[[str], bool]) -> str | None:
    """Return why a tensor of this name needs fp32 in any model, or None."""
    module, dot, last = name.rpartition(".")
    home = module + dot
    if _ROUTING_BIAS.fullmatch(last):
        return f"a routing bias, {_SHIPPED}"
    if last in _STATE_SPACE or (last == "D" and has(f"{home}A_log")):
        return f"{last} of a state-space layer, {_SHIPPED}"
    # Other layers have a running_mean too: these are BatchNorm's if they come as BatchNorm's do.
    if last in _STATISTICS and (has(f"{home}num_batches_tracked") or has(home + _STATISTICS[last])):
        return f"a running statistic of BatchNorm, {_SHIPPED}"
    return None


def rule(model_type: str | None, target: Dtype, part: str | None = None) -> Rule:
    """Return a function: tensor name → why a *model_type* model needs it in fp32, or None.

    The answer depends on *target* too: some tensors suffer in fp16 and not in bf16. Names match
    as a whole; with *part*, the name of a sub-config, also behind a prefix that speaks of it.
    """
    if model_type is None or target is Dtype.F32:
        return no_rule
    table = _table()
    observed = table["observed"].get(model_type, {}).get(target.short_name, [])
    was_tried = model_type in table["tried"] or model_type in table["observed"]
    if was_tried:
        prefix = _prefix(part) if part else ""
        reasons = {prefix + _numbered(pattern): pattern for pattern in observed}
        source = table["source"]
    else:
        reasons = {pattern: pattern for pattern in _modules(table, model_type, target)}
        source = "transformers' _keep_in_fp32_modules"
    if not reasons:
        return no_rule
    # One alternation: the name of the group that matched is the rule that did.
    matcher = re.compile("|".join(f"({pattern})" for pattern in reasons))
    find = matcher.fullmatch if was_tried else matcher.search
    labels = [f"{model_type} keeps {label} in fp32 ({source})" for label in reasons.values()]
    return lambda name: _first_group(find(_as_own_layer(name)), labels)


def _as_own_layer(name: str) -> str:
    """Return *name* as it would be in one of the model's own layers."""
    # There may be a million names, and hardly any of them is one to look at closely.
    return _FURTHER_LAYER.sub(r"\1layers.", name) if "mtp" in name else name


def _first_group(match: re.Match[str] | None, labels: list[str]) -> str | None:
    """Return the label of the alternative that *match* found."""
    return None if match is None or match.lastindex is None else labels[match.lastindex - 1]


def no_rule(_name: str) -> None:
    """Keep no tensor."""


def _prefix(part: str) -> str:
    """Return a regular expression for what may stand before the names of a sub-model's tensors."""
    stem = part.removesuffix("_config")
    words = "|".join(map(re.escape, _WORDS.get(stem, (stem,))))
    return rf"(?:(?:[^.]+\.)*[^.]*(?:{words})[^.]*\.(?:[^.]+\.)*?)?"


def _numbered(pattern: str) -> str:
    """Return a regular expression for whole names, where "*" stands for a layer's number."""
    return re.escape(pattern).replace(re.escape("*"), "[0-9]+")


def _modules(table: Mapping[str, Any], model_type: str, target: Dtype) -> list[str]:
    """Return the module patterns that transformers' code lists for *model_type*."""
    folder = table["aliases"].get(model_type, model_type.replace("-", "_"))
    lists = table["modules"].get(folder, {})
    relaxed = lists.get("keep", []) if target is Dtype.F16 else []
    # As transformers reads them: a star stands for anything.
    return [each.replace("*", ".*") for each in (*lists.get("keep_strict", []), *relaxed)]


@cache
def _table() -> Mapping[str, Any]:
    """Return the data."""
    text = resources.files(__package__).joinpath("keep_rules.json").read_text(encoding="utf-8")
    table: Mapping[str, Any] = json.loads(text)
    return table
