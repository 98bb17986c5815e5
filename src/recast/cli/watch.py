"""What is printed while a fleet is at work: lines of JSON, what went wrong, and a bar."""

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

from recast.cli.request import Request
from recast.errors import RecastError
from recast.execution.fleets.meter import Watcher
from recast.reports import text
from recast.reports.documents import Document
from recast.reports.documents import fleets as fleet_documents
from recast.reports.fleet import Outcome
from recast.reports.text import fleets as fleet_text

_NAME = 32  # characters of a checkpoint's path that stand before the bar


def tell(request: Request, document: Document, path: Path, error: RecastError | None) -> None:
    """Say at once what is known of one checkpoint, as far as the answer will not."""
    if request.lines:
        click.echo(json.dumps(document, allow_nan=False))
    if error is not None and not request.speaks:
        complain(f"{path}: {fleet_text.reason(path, error)}")


def complain(message: str) -> None:
    """Say something on stderr."""
    click.echo(f"recast: {text.printable(message)}", err=True)


class Reporter(Watcher):
    """Says what became of each checkpoint when it is known."""

    def __init__(self, request: Request) -> None:
        self.request = request

    def complain(self, message: str) -> None:
        """Say something on stderr; from any thread."""
        complain(message)

    def finish(self, outcome: Outcome) -> None:
        """Say what became of one checkpoint."""
        tell(self.request, fleet_documents.outcome(outcome), outcome.path, outcome.error)


class Bar(Reporter):
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
        name = text.printable(fleet_text.below(self.request.root, path))
        # The end of a path says more than its beginning, and the bar needs room, too.
        short = name if len(name) <= _NAME else f"...{name[3 - _NAME :]}"
        self._bar.set_description_str(short, refresh=not nbytes)
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
def watching(request: Request) -> Iterator[Reporter]:
    """Yield who tells the user how it comes along: a bar on a terminal, nothing elsewhere."""
    if request.quiet or sys.stderr is None or not sys.stderr.isatty():
        yield Reporter(request)
        return
    with ExitStack() as stack:
        yield Bar(request, stack)
