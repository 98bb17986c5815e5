"""Deleting what only training on needs, beside checkpoints that are sound without it."""

import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from recast.errors import CheckpointError, RecastError, StorageError
from recast.execution.fleets.discovery import AnyPath, absolute
from recast.execution.fleets.signs import glance, sign_of_life
from recast.execution.reader import inspect
from recast.execution.storage import naming, sync_folder
from recast.formats.checkpoint import Checkpoint
from recast.formats.findings import Severity, findings
from recast.formats.names import Role, role
from recast.reports.fleet import TrainerState

_IDLE = 3600.0  # seconds without a sign of it after which a training is believed to be over
_KNOWN = 30.0  # seconds for which it is known how long a run has been idle
# Names of folders, of these words and of numbers alone, that a run gives to its checkpoints.
_STEP = re.compile(
    r"((checkpoint|ckpt|step|epoch|iter|iteration|global|save|best|last|latest|final|model|\d+)"
    r"[-_.=]?)+",
    re.IGNORECASE,
)
# What recast itself writes, in place: such a file may be young though its run is old.
_REWRITTEN = (Role.WEIGHTS, Role.INDEX, Role.CONFIG, Role.UNFINISHED)


def delete_trainer_state(paths: Iterable[AnyPath], *, dry_run: bool) -> Iterator[TrainerState]:
    """Delete the trainer state of each of *paths*, or only say what there is.

    It may be all that is left of a model whose weights are broken, so it stays where anything
    blocks a conversion, and where somebody is still training.
    """
    runs = _Runs()
    for path in map(Path, paths):
        try:
            yield _delete(path, runs, dry_run=dry_run)
        except RecastError as error:
            yield TrainerState(path, error=error.bare())


def _delete(path: Path, runs: "_Runs", *, dry_run: bool) -> TrainerState:
    """Delete the trainer state of one checkpoint. Raises RecastError."""
    seen = glance(path)
    checkpoint = inspect(path)
    state = [file for file in checkpoint.left_out if file.role is Role.TRAINER_STATE]
    if not state:
        return TrainerState(path)
    _refuse_broken(checkpoint)
    places = [path / file.name for file in state]
    if sign := sign_of_life(path, seen):
        raise StorageError(str(path), f"is being written: {sign}", "run again when it is finished")
    runs.refuse_live(path)
    if not dry_run:
        for place in places:
            with naming(place):
                place.unlink(missing_ok=True)
        _remove_empty(path, places)
    return TrainerState(path, tuple(file.name for file in state), sum(file.size for file in state))


def _refuse_broken(checkpoint: Checkpoint) -> None:
    """Refuse to take the last thing from a checkpoint that is broken."""
    for finding in findings(checkpoint):
        if finding.severity is Severity.ERROR:
            raise CheckpointError(
                str(checkpoint.path),
                f"is not sound ({finding.name}), and its trainer state may be all there is",
                "see what is wrong with it first",
            )


class _Runs:
    """The runs to which checkpoints belong, and which file of each was written last."""

    def __init__(self) -> None:
        self._youngest: dict[Path, tuple[float, Path | None, float]] = {}

    def refuse_live(self, path: Path) -> None:
        """Refuse to take what a training that seems to go on would be resumed from.

        A trainer is silent between two checkpoints, but for the logs in its run's folder.
        """
        # By both: "." and a link do not say what they stand for, and a link may be in another run.
        for run in dict.fromkeys((_run(absolute(path)), _run(path.resolve()))):
            looked, file, written = self._youngest.get(run, (-math.inf, None, 0.0))
            if time.monotonic() - looked > _KNOWN:
                file, written = _youngest(run)
                self._youngest[run] = time.monotonic(), file, written
            age = time.time() - written
            if file is not None and abs(age) < _IDLE:
                raise StorageError(
                    str(path),
                    f"may be resumed from: {file.relative_to(run)} is {_minutes(age)} old",
                    f"run again when its run has been idle for {_minutes(_IDLE)}",
                )


def _run(path: Path) -> Path:
    """Return the folder of a run: of a checkpoint in it, or of the model that it ended with."""
    return path.parent if _STEP.fullmatch(path.name) else path


def _youngest(run: Path) -> tuple[Path | None, float]:
    """Return the file of a run that was written nearest to now, and when; recast's do not count.

    What goes while it is looked at was written now.
    """
    now, found, best = time.time(), None, -math.inf
    with naming(run):
        for parent, folders, names in os.walk(run, onerror=_raise):
            folders[:] = [each for each in folders if role(f"{each}/") is not Role.UNFINISHED]
            for name in names:
                if role(name) in _REWRITTEN:
                    continue
                file = Path(parent, name)
                try:
                    written = file.lstat().st_mtime
                except FileNotFoundError:
                    written = now
                if abs(now - written) < abs(now - best):
                    found, best = file, written
    return found, best


def _raise(error: OSError) -> None:
    """Raise what `os.walk` would pass over, unless there is nothing to see any more."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _minutes(seconds: float) -> str:
    """Return a time as people say it."""
    return f"{max(1, round(abs(seconds) / 60))} min"


def _remove_empty(path: Path, places: Iterable[Path]) -> None:
    """Remove the folders below *path* in which *places* lay, where they are empty now."""
    folders = {each for place in places for each in place.parents if path in each.parents}
    for folder in sorted(folders, key=lambda each: -len(each.parts)):
        with suppress(OSError):  # something else lies there
            folder.rmdir()
    sync_folder(path)
