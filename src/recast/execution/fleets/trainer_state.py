"""Deleting what only training on needs, beside checkpoints that are sound without it."""

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path

from recast.errors import CheckpointError, RecastError, StorageError
from recast.execution.fleets.discovery import AnyPath, absolute, glance, sign_of_life
from recast.execution.reader import inspect
from recast.execution.storage import naming, sync_folder
from recast.formats.checkpoint import Checkpoint
from recast.formats.findings import Severity, findings
from recast.formats.names import Role, role
from recast.reports.fleet import TrainerState

_IDLE = 3600.0  # seconds without a sign of it after which a training is believed to be over
_LOGS = ("events.out.tfevents.*", "*.log", "*.wandb", "trainer_state.json", "latest")


def delete_trainer_state(paths: Iterable[AnyPath], *, dry_run: bool) -> Iterator[TrainerState]:
    """Delete the trainer state of each of *paths*, or only say what there is.

    It may be all that is left of a model whose weights are broken, so it stays where anything
    blocks a conversion, and where somebody is still training.
    """
    for path in map(Path, paths):
        try:
            yield _delete(path, dry_run=dry_run)
        except RecastError as error:
            yield TrainerState(path, error=error.bare())


def _delete(path: Path, *, dry_run: bool) -> TrainerState:
    """Delete the trainer state of one checkpoint. Raises RecastError."""
    seen = glance(path)
    checkpoint = inspect(path)
    state = [file for file in checkpoint.left_out if file.role is Role.TRAINER_STATE]
    if not state:
        return TrainerState(path)
    _refuse_broken(checkpoint)
    names = tuple(file.name for file in state)
    if sign := sign_of_life(path, seen):
        raise StorageError(str(path), f"is being written: {sign}", "run again when it is finished")
    _refuse_live(path, names)
    if not dry_run:
        places = [path / name for name in names]
        for place in places:
            with naming(place):
                place.unlink(missing_ok=True)
        _remove_empty(path, places)
    return TrainerState(path, names, sum(file.size for file in state))


def _refuse_broken(checkpoint: Checkpoint) -> None:
    """Refuse to take the last thing from a checkpoint that is broken."""
    for finding in findings(checkpoint):
        if finding.severity is Severity.ERROR:
            raise CheckpointError(
                str(checkpoint.path),
                f"is not sound ({finding.name}), and its trainer state may be all there is",
                "see what is wrong with it first",
            )


def _refuse_live(path: Path, names: Iterable[str]) -> None:
    """Refuse to take what a training that seems to go on would be resumed from.

    A trainer is silent between two checkpoints, but for the logs in its run's folder.
    """
    state = [(name, path / name) for name in names]
    for name, file in [*state, *(log for run in _runs(path) for log in _logs(run))]:
        age = _age(file)
        if abs(age) < _IDLE:
            raise StorageError(
                str(path),
                f"may be resumed from: {name} is {_minutes(age)} old",
                f"run again when its run has been idle for {_minutes(_IDLE)}",
            )


def _runs(path: Path) -> list[Path]:
    """Return the folder of the run that has saved *path*; two if a link leads there from another.

    Whatever the checkpoint was called: "." and a link to it do not say what it is.
    """
    with naming(path):
        named, real = (_run(each) for each in (absolute(path), path.resolve()))
        return [named] if named.samefile(real) else [named, real]


def _run(path: Path) -> Path:
    """Return the folder of a run: of a checkpoint in it, or of the model that it ended with."""
    return path.parent if role(f"{path.name}/") is Role.NESTED_CHECKPOINT else path


def _logs(run: Path) -> Iterator[tuple[str, Path]]:
    """Yield what only a trainer would write in the folder of a run, by names relative to it."""
    with naming(run):
        for parent, folders, files in os.walk(run, onerror=_raise):
            for name in filter(_is_trainers, (*folders, *files)):
                file = Path(parent, name)
                yield file.relative_to(run).as_posix(), file


def _raise(error: OSError) -> None:
    """Raise what `os.walk` would pass over, unless there is nothing to see any more."""
    if not isinstance(error, FileNotFoundError):
        raise error


def _age(file: Path) -> float:
    """Return for how many seconds a file has been as it is: none if it goes just now."""
    with naming(file):
        try:
            return time.time() - file.lstat().st_mtime
        except FileNotFoundError:
            return 0.0


def _is_trainers(name: str) -> bool:
    """Whether only a trainer would write this file of a run: a log, say, or its progress."""
    return any(fnmatchcase(name, each) for each in _LOGS)


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
