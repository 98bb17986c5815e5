"""The rates of recast's estimate, fitted to what was measured."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Protocol

from recast.planning.estimate import Rates, Work, estimate

_DIGITS = 3  # that mean anything
_PER_SECOND = ("cast", "scan")  # the others are seconds each
_NAMES = tuple(each.name for each in fields(Rates) if each.name not in ("disk", "prices"))


class Measured(Protocol):
    """A fleet that was dealt with."""

    @property
    def todo(self) -> Work:
        """The work."""

    @property
    def workers(self) -> int:
        """How many took part."""

    @property
    def seconds(self) -> float:
        """How long it took."""

    @property
    def is_whole(self) -> bool:
        """Whether that is the time of a whole process."""


def predicted(row: Measured, rates: Rates) -> float:
    """Return the seconds that the model says for *row*."""
    rates = rates if row.is_whole else replace(rates, start=0.0)
    return estimate(row.todo, row.workers, rates).seconds


def fit(rows: Sequence[Measured]) -> Rates:
    """Return the rates by which the model errs least, each error relative to its row.

    The model is linear in its seconds, so each rate's part of a row is what the model says when
    all others take no time. None can be negative: one that would be is set to nothing, and the
    others are fitted again. What no row tells stays as it was.
    """
    import numpy as np  # noqa: PLC0415 - what this process holds counts as its children's memory

    parts = np.array([[_part(row, name) for name in _NAMES] for row in rows])
    parts /= np.array([[row.seconds] for row in rows])
    left = [place for place in range(len(_NAMES)) if parts[:, place].any()]
    told = {_NAMES[place]: 0.0 for place in left}
    while left:
        found, *_ = np.linalg.lstsq(parts[:, left], np.ones(len(rows)), rcond=None)
        if (found >= 0).all():
            told |= {_NAMES[place]: float(each) for place, each in zip(left, found, strict=True)}
            break
        del left[int(found.argmin())]
    return Rates(**{name: _rounded(_as_rate(name, each)) for name, each in told.items()})


def _part(row: Measured, name: str) -> float:
    """Return the seconds of *row* when *name* takes a second each, and nothing else any time."""
    nothing = dict.fromkeys(_NAMES, 0.0) | dict.fromkeys(_PER_SECOND, float("inf"))
    return predicted(row, Rates(**nothing | {name: 1.0}))


def _as_rate(name: str, seconds: float) -> float:
    """Return a rate: of bytes, how many a second."""
    if name not in _PER_SECOND:
        return seconds
    return 1 / max(seconds, 1e-12)  # what takes no time that can be seen


def _rounded(value: float) -> float:
    """Return *value* with as many digits as mean anything."""
    return float(f"{value:.{_DIGITS}g}")
