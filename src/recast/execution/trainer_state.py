"""Deleting what only training on needs, beside checkpoints that are sound without it."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from recast.errors import CheckpointError, RecastError, StorageError
from recast.execution.discovery import RECENT, AnyPath, glance, sign_of_life
from recast.execution.reader import inspect
from recast.execution.storage import naming, sync_folder
from recast.formats.checkpoint import Checkpoint
from recast.formats.findings import Severity, findings
from recast.formats.names import Role
from recast.reports.fleet import TrainerState


def delete_trainer_state(paths: Iterable[AnyPath], *, dry_run: bool) -> Iterator[TrainerState]:
    """Delete the trainer state of each of *paths*, or only say what there is.

    It may be all that is left of a model whose weights are broken, so it stays where anything
    blocks a conversion, and where somebody is still training.
    """
    for path in map(Path, paths):
        try:
            yield _delete(path, dry_run=dry_run)
        except RecastError as error:
            bare = type(error)(error.subject, error.problem, error.remedy)
            yield TrainerState(path, error=bare)


def _delete(path: Path, *, dry_run: bool) -> TrainerState:
    """Delete the trainer state of one checkpoint. Raises RecastError."""
    seen = glance(path)
    checkpoint = inspect(path)
    state = [file for file in checkpoint.left_out if file.role is Role.TRAINER_STATE]
    if not state:
        return TrainerState(path)
    _refuse_broken(checkpoint)
    places = [path / file.name for file in state]
    sign = sign_of_life(path, seen) or _recently_written(places)
    if sign:
        raise StorageError(str(path), f"is being written: {sign}", "run again when it is finished")
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


def _recently_written(places: Iterable[Path]) -> str:
    """Return which of *places* was written just now; empty if none was."""
    for place in places:
        with naming(place):
            if abs(time.time() - place.lstat().st_mtime) < RECENT:
                return f"{place.name} is new"
    return ""


def _remove_empty(path: Path, places: Iterable[Path]) -> None:
    """Remove the folders below *path* in which *places* lay, where they are empty now."""
    folders = {each for place in places for each in place.parents if path in each.parents}
    for folder in sorted(folders, key=lambda each: -len(each.parts)):
        with suppress(OSError):  # something else lies there
            folder.rmdir()
    sync_folder(path)
