"""A file of rates and prices: what `--rates` names, and what the benchmark writes."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from math import isfinite
from typing import Any, NoReturn

from recast.errors import RefusedError
from recast.planning.estimate import Prices, Rates

_DIVISORS = ("cast", "scan", "disk")  # bytes a second: none of them can be 0
_REMEDY = "docs/scale.md says what may stand in it"


def parse(text: str, subject: str) -> Rates:
    """Return what the JSON *text* says; what it leaves out is as by default.

    Raises RefusedError about *subject*, the file that holds it.
    """
    try:
        document = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RefusedError(subject, f"is no JSON: {error}", _REMEDY) from None
    said = _members(document, {each.name for each in fields(Rates)}, "rate", subject)
    priced = said.pop("prices", None)
    prices = None if priced is None else _prices(priced, subject)
    numbers: dict[str, Any] = {
        name: _number(name, value, subject)
        for name, value in said.items()
        if not (name == "disk" and value is None)
    }
    return replace(Rates(prices=prices), **numbers)


def dump(rates: Rates) -> str:
    """Return *rates* as the text of such a file."""
    said = {name: value for name, value in asdict(rates).items() if value is not None}
    return json.dumps(said, indent=2) + "\n"


def _prices(document: object, subject: str) -> Prices:
    """Return what is billed."""
    said = _members(document, {each.name for each in fields(Prices)}, "price", subject)
    currency = said.pop("currency", Prices().currency)
    if not isinstance(currency, str) or not currency:
        raise RefusedError(subject, "names no currency: it is a text such as USD", _REMEDY)
    return Prices(currency, **{key: _number(key, value, subject) for key, value in said.items()})


def _members(document: object, known: set[str], kind: str, subject: str) -> dict[str, Any]:
    """Return the members of a JSON object, none of which is unknown."""
    if not isinstance(document, Mapping):
        raise RefusedError(subject, f"holds no JSON object of {kind}s", _REMEDY)
    if unknown := sorted(document.keys() - known):
        listed = ", ".join(sorted(known))
        raise RefusedError(subject, f"{unknown[0]!r} is no {kind}", f"use some of {listed}")
    return dict(document)


def _number(name: str, value: object, subject: str) -> float:
    """Return a value that is a number and makes sense."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
        raise RefusedError(subject, f"{name} is no number: {value!r}", _REMEDY)
    if value < 0 or (value == 0 and name in _DIVISORS):
        least = "more than 0" if name in _DIVISORS else "0 or more"
        raise RefusedError(subject, f"{name} is {value}", f"it is {least}")
    return float(value)


def _is_finite(value: float) -> bool:
    """Whether *value* fits into a float."""
    try:
        return isfinite(value)
    except OverflowError:
        return False


def _no_number(name: str) -> NoReturn:
    """Refuse what Python would read, and JSON does not have."""
    raise ValueError(f"{name} is no number")
