"""survey_all(): what is stored in many checkpoints, and what converting them would save."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from recast.errors import RecastError
from recast.execution.converter import plan
from recast.execution.fleets.discovery import AnyPath
from recast.execution.fleets.signs import judged
from recast.execution.reader import inspect
from recast.formats.checkpoint import Checkpoint
from recast.formats.hub_path import is_uri
from recast.planning.plan import Plan
from recast.reports.fleet import Survey, survey

AUTO = "auto"  # for *like*: each checkpoint's own base


def survey_all(paths: Iterable[AnyPath], dtype: object, **wishes: Any) -> Iterator[Survey]:  # noqa: ANN401 - what `plan` takes
    """Yield what is stored in each of *paths*, and what converting it to *dtype* would save.

    Reads headers only. *wishes* are the options of `plan`. What is wrong with a checkpoint is in
    its survey, and no exception.
    """
    for path in map(Path, paths):
        try:
            checkpoint = inspect(path)
        except RecastError as error:
            yield Survey(path, error=_judged(path, error).bare())
            continue
        try:
            found: Plan | RecastError = planned(checkpoint, dtype, wishes)
        except RecastError as error:
            found = _judged(path, error).bare()
        yield survey(checkpoint, found)


def _judged(path: Path, error: RecastError) -> RecastError:
    """Return what *error* means for the checkpoint *path*."""
    try:
        return judged(path, error)
    except RecastError as gone:
        return gone


def bases_of(paths: Iterable[Path]) -> frozenset[Path]:
    """Return the folders that checkpoints of *paths* name as their bases, links resolved."""
    found = set()
    for path in paths:
        with suppress(RecastError, OSError):  # whoever repairs it will say what is wrong
            base = inspect(path).base
            if base is not None and not is_uri(base):
                found.add(Path(base).resolve())
    return frozenset(found)


def planned(checkpoint: Checkpoint, dtype: object, wishes: Mapping[str, Any]) -> Plan:
    """Plan what the wishes say for one checkpoint, whose own base may be meant."""
    if wishes.get("like") == AUTO:
        base = checkpoint.base
        here = base is not None and not is_uri(base)
        wishes = {**wishes, "like": base if here else None}
    return plan(checkpoint, dtype, **wishes)
