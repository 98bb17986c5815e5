"""Tensors known to need fp32, by model_type: the data beside this module, looked up.

The data was observed, by building every model small and saving it in a narrow dtype with
transformers; `source` names the version. Architectures that could not be built are served
by the lists in transformers' own code.
"""

import json
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from typing import Any

from recast.dtypes import Dtype

Rule = Callable[[str], str | None]

# The layers that predict further tokens are of the model's own kind, but transformers drops
# them: what it keeps in "layers.3" must be kept in "mtp.layers.0" and "mtp.0" unobserved.
_FURTHER_LAYER = re.compile(r"(^|\.)mtp\w*\.(?:layers\.)?(?=[0-9]+\.)")


def rule(model_type: str | None, target: Dtype) -> Rule:
    """Return a function: tensor name → why it must stay fp32, or None.

    The answer depends on *target* too: some tensors suffer in fp16 and not in bf16.
    """
    if model_type is None or target is Dtype.F32:
        return _keeps_nothing
    table = _table()
    observed = table["observed"].get(model_type, {}).get(target.short_name, [])
    was_tried = model_type in table["tried"] or model_type in table["observed"]
    if was_tried:
        reasons = {_numbered(pattern): pattern for pattern in observed}
        source = table["source"]
    else:
        reasons = {pattern: pattern for pattern in _modules(table, model_type, target)}
        source = "transformers' _keep_in_fp32_modules"
    if not reasons:
        return _keeps_nothing
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


def _keeps_nothing(_name: str) -> None:
    """Keep no tensor."""


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
    """Return the data."""
    text = resources.files(__package__).joinpath("keep_rules.json").read_text(encoding="utf-8")
    table: Mapping[str, Any] = json.loads(text)
    return table
