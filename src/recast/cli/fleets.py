"""The modes for fleets: search, look, repair, delete."""

import gc
import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from recast import dtypes
from recast.dtypes import Dtype
from recast.errors import RecastError, RefusedError, StorageError
from recast.execution.fleets.cluster import address_in, connected
from recast.execution.fleets.crews import IN_FLIGHT
from recast.execution.fleets.discovery import discover
from recast.execution.fleets.fleet import convert_all
from recast.execution.fleets.meter import Watcher
from recast.execution.fleets.survey import AUTO, survey_all
from recast.execution.fleets.trainer_state import delete_trainer_state
from recast.execution.storage import naming
from recast.execution.workers import default_workers
from recast.planning import rates
from recast.planning.estimate import Estimate, Rates, estimate
from recast.planning.policy import OVERFLOW
from recast.reports import text
from recast.reports.documents import Document
from recast.reports.documents import fleets as fleet_documents
from recast.reports.fleet import Fate, Outcome, Survey, TrainerState, work
from recast.reports.text import fleets as fleet_text

_AHEAD = 2  # jobs given to a cluster for each it can do at once, so that no worker waits


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks of one PATH.

    Attributes:
        root: the folder of runs, or the one checkpoint.
        recursive: whether to search it.
        to: the dtype to convert to, if any.
        out: the folder that the results go to, if any.
        in_place: whether to replace the sources.
        dry_run: whether to show only what would be done.
        include: patterns of the checkpoints to take.
        exclude: patterns of what to leave out.
        wishes: the options of `recast.plan`.
        workers: how many to use, if it matters.
        rates: the file of rates and prices to estimate by, if any.
        scheduler: the address of a Dask scheduler, if any.
        scheduler_file: the file that names one, if any.
        lines: whether to print each checkpoint as a line of JSON when it is known.
        as_json: whether one document is printed in the end.
        quiet: whether to print nothing but errors.
    """

    root: Path
    recursive: bool
    to: str | None
    out: Path | None
    in_place: bool
    dry_run: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    wishes: dict[str, Any] = field(repr=False)
    workers: int | None
    rates: Path | None
    scheduler: str | None
    scheduler_file: Path | None
    lines: bool
    as_json: bool
    quiet: bool

    @property
    def target(self) -> Dtype:
        """The dtype to convert to, or to speak of."""
        return dtypes.target(self.to or "bf16")

    @property
    def takes_bases(self) -> bool:
        """Whether each checkpoint takes the dtypes of its own base."""
        return bool(self.wishes["like"] == AUTO)

    @property
    def speaks(self) -> bool:
        """Whether the answer will be a text, which names what went wrong."""
        return not (self.lines or self.as_json or self.quiet)


Answer = tuple[str, Document, bool]


def look(request: Request) -> Answer:
    """Say what is stored in a fleet, and what converting it would save."""
    surveys, said = _surveyed(request)
    broken = any(each.error is not None for each in surveys)
    return *said, not broken


def check(request: Request) -> Answer:
    """Say the same, and that all is well only if nothing is larger than it has to be."""
    surveys, said = _surveyed(request)
    # One that must not be converted, such as a quantized one, cannot be too large.
    broken = any(not isinstance(each.error, RefusedError | None) for each in surveys)
    return *said, not (broken or any(each.is_oversized for each in surveys))


def _surveyed(request: Request) -> tuple[list[Survey], tuple[str, Document]]:
    """Return what is stored in a fleet, and what there is to say of it."""
    gc.enable()  # a long life, other than that of the command's other modes
    known = _rates(request.rates)  # first: what is wrong with it need not wait for the search
    surveys: list[Survey] = []
    found = _Found(request)
    for each in survey_all(found.paths(), request.target, **request.wishes):
        surveys.append(each)
        _tell(request, fleet_documents.survey(each), each.path, each.error)
    for error in found.unreadable:
        surveys.append(Survey(Path(error.subject), error=error))
        _tell(request, fleet_documents.survey(surveys[-1]), surveys[-1].path, error)
    guess = _estimate(request, surveys, known) if request.dry_run else None
    document = fleet_documents.fleet(request.root, surveys, request.target, guess)
    told = [] if request.lines else surveys
    document["checkpoints"] = [fleet_documents.survey(each) for each in told]
    said = fleet_text.survey(request.root, surveys, request.target, guess, _width())
    if request.takes_bases and surveys:
        said += f"\n{fleet_text.bases(request.root, surveys)}"
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
    with _watching(request) as watcher, _executing(request, watcher) as (executor, workers):
        outcomes = convert_all(
            paths,
            request.target,
            executor,
            out=request.out,
            root=request.root if request.recursive else request.root.parent,
            in_place=request.in_place,
            workers=workers,
            watcher=watcher,
            **request.wishes,
        )
    for error in found.unreadable:
        outcome = Outcome(Path(error.subject), Fate.FAILED, error=error)
        outcomes.append(outcome)
        _tell(request, fleet_documents.outcome(outcome), outcome.path, error)
    seconds, in_place = time.monotonic() - begun, request.in_place
    document = fleet_documents.repair(
        request.root, outcomes, request.target, seconds, in_place=in_place
    )
    told = [] if request.lines else outcomes
    document["checkpoints"] = [fleet_documents.outcome(each) for each in told]
    said = fleet_text.repair(request.root, outcomes, seconds, in_place=in_place)
    if request.takes_bases and outcomes:
        said += f"\n{fleet_text.bases(request.root, outcomes)}"
    return said, document, not any(each.fate is Fate.FAILED for each in outcomes)


@contextmanager
def _executing(
    request: Request, reporter: "_Reporter"
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
            _tell(request, fleet_documents.trainer_state(each), each.path, each.error)
    for error in found.unreadable:
        states.append(TrainerState(Path(error.subject), error=error))
        _tell(request, fleet_documents.trainer_state(states[-1]), states[-1].path, error)
    document = fleet_documents.deletion(request.root, states, dry_run=request.dry_run)
    told = [] if request.lines else [each for each in states if each.files or each.error]
    document["checkpoints"] = [fleet_documents.trainer_state(each) for each in told]
    said = fleet_text.trainer_state(states, request.root, dry_run=request.dry_run, width=_width())
    return said, document, not any(each.error is not None for each in states)


class _Found:
    """The checkpoints that a request is about, and the folders that could not be searched."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.unreadable: list[StorageError] = []

    def paths(self) -> Iterator[Path]:
        """Yield the checkpoints."""
        root = self._request.root
        if not self._request.recursive:
            yield root
            return
        yield from discover(
            root,
            include=self._request.include,
            exclude=self._request.exclude,
            report=self.unreadable.append,
        )


def _width() -> int | None:
    """Return how many columns the terminal has; None if a file, or a program, reads along."""
    return shutil.get_terminal_size().columns if sys.stdout and sys.stdout.isatty() else None


def _tell(request: Request, document: Document, path: Path, error: RecastError | None) -> None:
    """Say at once what is known of one checkpoint, as far as the answer will not."""
    if request.lines:
        click.echo(json.dumps(document, allow_nan=False))
    if error is not None and not request.speaks:
        _complain(f"{path}: {fleet_text.reason(path, error)}")


def _complain(message: str) -> None:
    """Say something on stderr."""
    click.echo(f"recast: {text.printable(message)}", err=True)


class _Reporter(Watcher):
    """Says what became of each checkpoint when it is known."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def complain(self, message: str) -> None:
        """Say something on stderr; from any thread."""
        _complain(message)

    def finish(self, outcome: Outcome) -> None:
        """Say what became of one checkpoint."""
        _tell(self.request, fleet_documents.outcome(outcome), outcome.path, outcome.error)


class _Bar(_Reporter):
    """Shows on a terminal how many bytes are done, and which checkpoint is at work."""

    def __init__(self, request: Request, stack: ExitStack) -> None:
        super().__init__(request)
        self._stack = stack
        self._bar: Any = None

    def begin(self, nbytes: int) -> None:
        """Hear how much there is to do."""
        from tqdm import tqdm  # noqa: PLC0415 - takes a tenth of a second, and only here

        bar = tqdm(total=nbytes, unit="B", unit_scale=True, leave=False)
        self._bar = self._stack.enter_context(bar)

    def advance(self, path: Path, nbytes: int) -> None:
        """Show that more is done."""
        self._bar.set_description_str(text.printable(path.name), refresh=not nbytes)
        self._bar.update(nbytes)

    def complain(self, message: str) -> None:
        """Say something on stderr, above the bar; from any thread."""
        with self._above():
            super().complain(message)

    def finish(self, outcome: Outcome) -> None:
        """Say what became of one checkpoint, above the bar."""
        with self._above():
            super().finish(outcome)

    def _above(self) -> AbstractContextManager[None]:
        """Let what is written meanwhile stand above the bar."""
        bar: AbstractContextManager[None] = (
            nullcontext() if self._bar is None else self._bar.external_write_mode(sys.stderr)
        )
        return bar


@contextmanager
def _watching(request: Request) -> Iterator["_Reporter"]:
    """Yield who tells the user how it comes along: a bar on a terminal, nothing elsewhere."""
    if request.quiet or sys.stderr is None or not sys.stderr.isatty():
        yield _Reporter(request)
        return
    with ExitStack() as stack:
        yield _Bar(request, stack)
