"""The modes for fleets: search, look, repair, delete."""

import gc
import logging
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path

from recast.cli.request import Request
from recast.cli.watch import Reporter, tell, watching
from recast.dtypes import Dtype
from recast.errors import CheckpointError, StorageError
from recast.execution.fleets.cluster import address_in, connected
from recast.execution.fleets.crews import IN_FLIGHT
from recast.execution.fleets.discovery import discover
from recast.execution.fleets.fleet import convert_all
from recast.execution.fleets.survey import survey_all
from recast.execution.fleets.trainer_state import delete_trainer_state
from recast.execution.storage import naming
from recast.execution.workers import default_workers
from recast.formats.forms import Unread
from recast.planning import rates
from recast.planning.estimate import Estimate, Rates, estimate
from recast.planning.policy import OVERFLOW
from recast.reports.documents import Document
from recast.reports.documents import fleets as fleet_documents
from recast.reports.fleet import Fate, Outcome, Survey, TrainerState, work
from recast.reports.text import fleets as fleet_text

_AHEAD = 2  # jobs given to a cluster for each it can do at once, so that no worker waits


Answer = tuple[str, Document, bool]


def look(request: Request) -> Answer:
    """Say what is stored in a fleet, and what converting it would save."""
    surveys, said = _surveyed(request)
    broken = any(each.error is not None for each in surveys)
    return *said, not broken


def check(request: Request) -> Answer:
    """Say the same, and that all is well only if nothing is larger than it has to be."""
    surveys, said = _surveyed(request)
    # Codes must not be converted, so they cannot be too large.
    broken = any(each.error is not None and "quantized" not in each.findings for each in surveys)
    return *said, not (broken or any(each.is_oversized for each in surveys))


def _surveyed(request: Request) -> tuple[list[Survey], tuple[str, Document]]:
    """Return what is stored in a fleet, and what there is to say of it."""
    gc.enable()  # a long life, other than that of the command's other modes
    known = _rates(request.rates)  # first: what is wrong with it need not wait for the search
    surveys: list[Survey] = []
    found = _Found(request)
    for each in survey_all(found.paths(), request.target, **request.wishes):
        surveys.append(each)
        tell(request, fleet_documents.survey(each), each.path, each.error)
    for error in found.unreadable:
        surveys.append(Survey(Path(error.subject), error=error))
        tell(request, fleet_documents.survey(surveys[-1]), surveys[-1].path, error)
    guess = _estimate(request, surveys, known) if request.dry_run else None
    document = fleet_documents.fleet(request.root, surveys, request.target, guess)
    document["unread"] = fleet_documents.unread(found.unread)
    document["outside"] = fleet_documents.outside(found.outside)
    told = [] if request.lines else surveys
    document["checkpoints"] = [fleet_documents.survey(each) for each in told]
    said = fleet_text.survey(request.root, surveys, request.target, guess, _width())
    if request.takes_bases and surveys:
        said += f"\n{fleet_text.bases(request.root, surveys)}"
    said += fleet_text.besides(request.root, found.unread, found.outside)
    return surveys, (said, document)


def _estimate(request: Request, surveys: list[Survey], known: Rates) -> Estimate:
    """Return what converting would take."""
    lets_pass = OVERFLOW in request.wishes["allow"] and not request.wishes["lossless"]
    scans = request.in_place and not lets_pass and not request.target.holds(Dtype.F32)
    todo = work(surveys, in_place=request.in_place, scans=scans)
    return estimate(todo, request.workers or default_workers(), known)


def _rates(path: Path | None) -> Rates:
    """Return the rates that a file names. Raises StorageError, and RefusedError."""
    if path is None:
        return Rates()
    with naming(path):
        content = path.read_bytes()
    return rates.parse(content.decode("utf-8", "replace"), str(path))


def repair(request: Request) -> Answer:
    """Convert every checkpoint of a fleet, and say what became of each."""
    gc.enable()
    begun = time.monotonic()
    found = _Found(request)
    paths = list(found.paths())
    with watching(request) as watcher, _executing(request, watcher) as (executor, workers):
        outcomes = convert_all(
            paths,
            request.target,
            executor,
            out=request.out,
            root=request.root,
            in_place=request.in_place,
            workers=workers,
            watcher=watcher,
            **request.wishes,
        )
    for error in found.unreadable:
        outcome = Outcome(Path(error.subject), Fate.FAILED, error=error)
        outcomes.append(outcome)
        tell(request, fleet_documents.outcome(outcome), outcome.path, error)
    seconds, in_place = time.monotonic() - begun, request.in_place
    document = fleet_documents.repair(
        request.root, outcomes, request.target, seconds, in_place=in_place
    )
    document["unread"] = fleet_documents.unread(found.unread)
    document["outside"] = fleet_documents.outside(found.outside)
    told = [] if request.lines else outcomes
    document["checkpoints"] = [fleet_documents.outcome(each) for each in told]
    said = fleet_text.repair(request.root, outcomes, seconds, in_place=in_place)
    if request.takes_bases and outcomes:
        said += f"\n{fleet_text.bases(request.root, outcomes)}"
    said += fleet_text.besides(request.root, found.unread, found.outside)
    return said, document, not any(each.fate is Fate.FAILED for each in outcomes)


@contextmanager
def _executing(
    request: Request, reporter: Reporter
) -> Iterator[tuple[Executor | None, int | None]]:
    """Yield who converts the shards, and how many at once, as far as it matters."""
    address = _scheduler(request)
    if address is None:
        yield None, request.workers
        return
    disabled = logging.root.manager.disable
    logging.disable()  # what Dask says of connections that end: the user is told here
    try:
        with connected(address, reporter.complain) as cluster:
            yield cluster.executor, request.workers or max(IN_FLIGHT, _AHEAD * cluster.workers)
    finally:
        logging.disable(disabled)


def _scheduler(request: Request) -> str | None:
    """Return the address of the scheduler to use, if any."""
    return address_in(request.scheduler_file) if request.scheduler_file else request.scheduler


def delete(request: Request) -> Answer:
    """Delete the trainer state of every checkpoint of a fleet, or say what would be deleted."""
    gc.enable()
    found = _Found(request)
    states = []
    for each in delete_trainer_state(found.paths(), dry_run=request.dry_run):
        states.append(each)
        if each.files or each.error:
            tell(request, fleet_documents.trainer_state(each), each.path, each.error)
    for error in found.unreadable:
        states.append(TrainerState(Path(error.subject), error=error))
        tell(request, fleet_documents.trainer_state(states[-1]), states[-1].path, error)
    document = fleet_documents.deletion(request.root, states, dry_run=request.dry_run)
    told = [] if request.lines else [each for each in states if each.files or each.error]
    document["checkpoints"] = [fleet_documents.trainer_state(each) for each in told]
    document["outside"] = fleet_documents.outside(found.outside)
    said = fleet_text.trainer_state(states, request.root, dry_run=request.dry_run, width=_width())
    said += fleet_text.besides(request.root, (), found.outside)
    return said, document, not any(each.error is not None for each in states)


class _Found:
    """The checkpoints that a request is about, and the folders that are named besides."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.unreadable: list[StorageError] = []
        self.unread = list[Unread]()
        self.outside: list[Path] = []

    def paths(self) -> Iterator[Path]:
        """Yield the checkpoints. Raises CheckpointError if patterns leave nothing of what is there.

        A pattern that is mistyped must not pass for a fleet in which all is well.
        """
        root = self._request.root
        if not self._request.recursive:
            yield root
            return
        include, exclude = self._request.include, self._request.exclude
        home = root.resolve()
        empty = True
        for path in discover(
            root,
            include=include,
            exclude=exclude,
            report=self.unreadable.append,
            unread=self.unread.append,
        ):
            empty = False
            # No link on the way may lead out.
            if self._request.writes_beside and not path.resolve().is_relative_to(home):
                self.outside.append(path)
            else:
                yield path
        if empty and (include or exclude) and not (self.unread or self.unreadable):
            raise CheckpointError(
                str(root),
                "holds no checkpoint that --include and --exclude leave",
                f"look at what there is: {shlex.join(['recast', str(root), '-r'])}",
            )


def _width() -> int | None:
    """Return how many columns the terminal has; None if a file, or a program, reads along."""
    return shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None
