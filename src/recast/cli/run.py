"""The command itself: each PATH in turn, what is printed, and how the process ends."""

import gc
import io
import json
import os
import signal
import sys
from collections.abc import Iterator
from typing import NoReturn

import click

import recast
from recast.cli.modes import Answer, Mode, mode
from recast.cli.options import HELP, Arguments, options
from recast.cli.usage import check_usage
from recast.reports import documents, text


class _Interrupted(BaseException):
    """A signal asks the process to end. Like KeyboardInterrupt, it is no error to recover from."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@click.command(
    help=HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@options
def command(paths: tuple[str, ...], **options: object) -> None:
    """Do what the command line says, and exit with its status."""
    options["keep_rules"] = not options.pop("no_keep_rules")
    arguments = Arguments(**options)  # type: ignore[arg-type]  # click has checked the types
    check_usage(paths, arguments)
    work = mode(arguments)
    if arguments.quiet or sys.stderr is None or not sys.stderr.isatty():
        # The Hub's client reads it when it is loaded; it draws bars wherever stderr leads.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    failed = said = False
    results: list[documents.Document] = []
    for path in paths:
        for answer in _answers(work, path, arguments):
            if isinstance(answer, recast.RecastError):
                failed = True
                click.echo(f"recast: {text.printable(str(answer))}", err=True)
                results.append(documents.error(path, answer))
            else:
                failed |= not answer.well
                if arguments.as_json or arguments.jsonl:
                    results.append(answer.document())
                elif not arguments.quiet:
                    click.echo(f"\n{answer.text()}" if said else answer.text())
            said = True
            if arguments.jsonl:
                click.echo(json.dumps(results[-1], allow_nan=False))
    if arguments.as_json:
        document = {"recast": recast.__version__, "results": results}
        click.echo(json.dumps(document, indent=2, allow_nan=False))  # NaN is no JSON
    sys.exit(1 if failed else 0)


def _answers(work: Mode, path: str, arguments: Arguments) -> Iterator[Answer | recast.RecastError]:
    """Yield what there is to say of *path*; and, once it is said, why no page can show it."""
    try:
        if arguments.report is not None:
            from recast.execution.reporter import check_place  # noqa: PLC0415 - few want a page

            check_place(arguments.report)
        answer = work(path, arguments)
    except recast.RecastError as error:
        yield error
        return
    yield answer
    if arguments.report is not None:
        try:
            recast.report(answer.result, arguments.report)
        except recast.RecastError as error:
            yield error


def _interrupt(number: int, _frame: object) -> NoReturn:
    """End what is under way, so that nothing half-made stays."""
    for each in (signal.SIGINT, signal.SIGTERM):  # a second one shall not end the tidying up
        signal.signal(each, signal.SIG_IGN)
    raise _Interrupted(number)


def main() -> NoReturn:
    """Run the command, and end the process."""
    gc.disable()  # a short life, and up to a million small values that stay until its end
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # which nohup, and "&" in a script, set
            signal.signal(number, _interrupt)
    if isinstance(sys.stdout, io.TextIOWrapper):  # what its encoding lacks shall be no error
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        command.main()
    except _Interrupted as interrupted:
        click.echo("recast: interrupted; run the same command again to go on", err=True)
        sys.exit(128 + interrupted.number)  # as shells have it
    except OSError as error:  # such as a full disk, to which the output was redirected
        click.echo(f"recast: {error.filename or 'output'}: {error.strerror}", err=True)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the end of the process fails again
    sys.exit(1)
