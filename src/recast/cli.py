"""The command: parse, call the public API, render. The only module that prints."""

import gc
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click

import recast
from recast import dtypes
from recast.reports import documents, text

Progress = Callable[[int], None]

_HELP = """Say in which dtype a checkpoint is stored, and rewrite it in another.

PATH is a checkpoint's folder or one .safetensors file. Without options: what is stored, what
is claimed, what is wrong. With --to: convert PATH, into PATH-bf16 beside it or into DIR. PATH
itself is never written to, except with --in-place. What was interrupted goes on when the same
command is run again.

\b
recast ./ckpt                          inspect
recast ./ckpt --scan                   look at every value: what do they need?
recast ./ckpt --to bf16 -n             show what converting would do
recast ./ckpt --to bf16                convert into ./ckpt-bf16
recast ./ckpt-bf16 --against ./ckpt    verify
recast ./ckpt --to bf16 --push         convert, and publish on the Hub
recast hf://org/name                   inspect what is on the Hub

Exit status: 0 all is well, 1 something is wrong with a PATH, 2 the command line is wrong.
"""
_PATH = click.Path(path_type=Path, readable=False)  # whether it can be read is seen when it is


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line, parsed."""

    to: str | None
    out: Path | None
    in_place: bool
    dry_run: bool
    against: Path | None
    scan: bool
    keep: tuple[str, ...]
    keep_rules: bool
    lossless: bool
    allow: tuple[str, ...]
    workers: int | None
    as_json: bool
    quiet: bool
    push: str | None = None
    public: bool = False
    pr: bool = False
    revision: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a mode has to say of one path: the same as text and as JSON, and whether all is well."""

    text: str
    document: documents.Document
    well: bool = True


class _Interrupted(BaseException):
    """A signal asks the process to end. Like KeyboardInterrupt, it is no error to recover from."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@click.command(
    help=_HELP, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--to", metavar="DTYPE", help="Convert to bf16, fp16 or fp32.")
@click.option("-o", "--out", type=_PATH, metavar="DIR", help="Write the result to DIR.")
@click.option("--in-place", is_flag=True, help="Replace the files of PATH itself, one by one.")
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan; write nothing.")
@click.option("--against", type=_PATH, metavar="SRC", help="Verify that PATH is what SRC becomes.")
@click.option("--scan", is_flag=True, help="Look at every value: what do they need?")
@click.option(
    "--keep", multiple=True, metavar="GLOB", help="Leave these tensors as they are (repeatable)."
)
@click.option("--no-keep-rules", is_flag=True, help="Cast even tensors known to need fp32.")
@click.option("--lossless", is_flag=True, help="Fail if any value would change.")
@click.option(
    "--allow",
    multiple=True,
    metavar="NAME",
    help="Go on in spite of this: overflow, or a finding's name (repeatable).",
)
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Threads (default: usable CPUs)."
)
@click.option(
    "--push",
    is_flag=False,
    flag_value="",
    metavar="[ORG/NAME]",
    help="Publish the result on the Hub, in one commit.",
)
@click.option("--public", is_flag=True, help="A repository that --push makes is public.")
@click.option("--pr", is_flag=True, help="--push opens a pull request, or updates its own.")
@click.option("--revision", metavar="BRANCH", help="--push commits to BRANCH.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors.")
@click.version_option(recast.__version__, prog_name="recast")
def command(paths: tuple[str, ...], **options: object) -> None:
    """Do what the command line says, and exit with its status."""
    options["keep_rules"] = not options.pop("no_keep_rules")
    arguments = Arguments(**options)  # type: ignore[arg-type]  # click has checked the types
    mode = _mode(paths, arguments)
    if arguments.quiet or sys.stderr is None or not sys.stderr.isatty():
        # The Hub's client reads it when it is loaded; it draws bars wherever stderr leads.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    failed = False
    results: list[documents.Document] = []
    for path in paths:
        try:
            answer = mode(path, arguments)
        except recast.RecastError as error:
            failed = True
            click.echo(f"recast: {text.printable(str(error))}", err=True)
            results.append(documents.error(path, error))
            continue
        failed |= not answer.well
        if not (arguments.as_json or arguments.quiet):
            click.echo(f"\n{answer.text}" if results else answer.text)
        results.append(answer.document)
    if arguments.as_json:
        document = {"recast": recast.__version__, "results": results}
        click.echo(json.dumps(document, indent=2, allow_nan=False))  # NaN is no JSON
    sys.exit(1 if failed else 0)


def _mode(paths: tuple[str, ...], arguments: Arguments) -> Callable[[str, Arguments], Answer]:
    """Return what to do with each path. Raises UsageError for flags that do not go together."""
    _check_usage(paths, arguments)
    if arguments.against is not None:
        return _verify
    if arguments.scan:
        return _scan
    if arguments.to is None:
        return _inspect
    return _plan if arguments.dry_run else _convert


def _check_usage(paths: tuple[str, ...], arguments: Arguments) -> None:
    """Raise UsageError for flags that do not go together, or mean nothing."""
    if not all(paths):
        raise click.UsageError("a PATH is empty: write . for the current folder")
    if arguments.to is not None:
        # Here, so that a misspelt dtype is a wrong command line and not one error a path.
        try:
            dtypes.target(arguments.to)
        except recast.DtypeError as error:
            raise click.BadParameter(str(error), param_hint="--to") from None
    elif given := _given(arguments):
        raise click.UsageError(f"{given} goes with --to")
    if arguments.in_place and arguments.out:
        raise click.UsageError("--in-place replaces PATH, -o writes elsewhere: give one of them")
    if arguments.against is not None and arguments.to is not None:
        raise click.UsageError("--against verifies what --to has made: give one of them")
    if arguments.scan and (arguments.to is not None or arguments.against is not None):
        raise click.UsageError("--scan looks at the values of PATH: give it alone")
    _check_push(paths, arguments)
    if len(paths) > 1 and (arguments.out or arguments.against):
        raise click.UsageError("-o and --against go with one PATH")


def _check_push(paths: tuple[str, ...], arguments: Arguments) -> None:
    """Raise UsageError for flags about pushing that do not go together, or mean nothing."""
    if arguments.push is None and (arguments.public or arguments.pr or arguments.revision):
        raise click.UsageError("--public, --pr and --revision go with --push")
    if len(paths) > 1 and arguments.push:
        raise click.UsageError("--push ORG/NAME goes with one PATH; --push alone with many")


def _given(arguments: Arguments) -> str | None:
    """Return the first option in *arguments* that means nothing without --to, if any."""
    needed = {
        "-o": arguments.out,
        "--in-place": arguments.in_place,
        "-n": arguments.dry_run,
        "--keep": arguments.keep,
        "--no-keep-rules": not arguments.keep_rules,
        "--lossless": arguments.lossless,
        "--allow": arguments.allow,
        "--push": arguments.push is not None,
    }
    return next((option for option, value in needed.items() if value), None)


def _inspect(path: str, _arguments: Arguments) -> Answer:
    """Say what is stored, claimed and wrong."""
    checkpoint = _checkpoint(path)
    broken = any(each.severity is recast.Severity.ERROR for each in recast.findings(checkpoint))
    return Answer(text.inspection(checkpoint), documents.inspection(checkpoint), not broken)


def _checkpoint(path: str | Path) -> recast.Checkpoint:
    """Read what lies at *path*."""
    with _naming_files_of(path):
        return recast.inspect(path)


def _planned(path: str, arguments: Arguments) -> recast.Plan:
    """Plan what the arguments ask for."""
    checkpoint = _checkpoint(path)
    with _naming_files_of(path):
        return recast.plan(
            checkpoint,
            arguments.to,
            keep=arguments.keep,
            keep_rules=arguments.keep_rules,
            lossless=arguments.lossless,
            allow=arguments.allow,
        )


def _plan(path: str, arguments: Arguments) -> Answer:
    """Say what converting would do."""
    plan = _planned(path, arguments)
    target = arguments.out or plan.default_target
    if arguments.in_place:
        target = plan.checkpoint.local_path
    said, document = text.plan(plan, target), documents.plan_document(plan, target)
    if arguments.push is not None:
        publication = _publication(path, plan, arguments)
        said += f"\n\n{text.publication(publication)}"
        document["push"] = documents.publication(publication)
    return Answer(said, document)


def _convert(path: str, arguments: Arguments) -> Answer:
    """Convert, and say what was done."""
    plan = _planned(path, arguments)
    if arguments.push is not None:
        return _push(path, plan, arguments)
    return _answer(_converted(path, plan, arguments))


def _answer(done: recast.Conversion) -> Answer:
    """Say what was done."""
    return Answer(text.conversion(done), documents.conversion(done))


def _converted(path: str, plan: recast.Plan, arguments: Arguments) -> recast.Conversion:
    """Convert."""
    with _naming_files_of(path), _progress(path, plan.size_before, arguments) as progress:
        return recast.convert(
            plan,
            out=arguments.out,
            in_place=arguments.in_place,
            workers=arguments.workers,
            progress=progress,
        )


def _publication(path: str, plan: recast.Plan, arguments: Arguments) -> recast.Publication:
    """Say what --push would do."""
    with _naming_files_of(path):
        return recast.plan_push(
            plan,
            arguments.push or None,
            public=arguments.public,
            pr=arguments.pr or None,
            revision=arguments.revision,
        )


def _push(path: str, plan: recast.Plan, arguments: Arguments) -> Answer:
    """Convert, publish the result, and say what was done. What others will see is said before."""
    shown = _publication(path, plan, arguments)
    if shown.is_grave or not arguments.quiet:
        click.echo(text.publication(shown), err=True)
    is_remote = not isinstance(plan.checkpoint.path, Path)
    source: recast.Plan | recast.Conversion = plan
    if not is_remote or arguments.out:
        source = _converted(path, plan, arguments)
    with _naming_files_of(path):
        pushed = recast.push(
            source,
            shown.destination.repo,
            public=arguments.public,
            pr=arguments.pr or None,
            revision=arguments.revision,
            parent=shown.destination.parent,
            workers=arguments.workers,
        )
    answer = Answer(
        f"{path}: published as it is", documents.plan_document(plan, plan.default_target)
    )
    if pushed.conversion is not None:
        answer = _answer(pushed.conversion)
    document = answer.document | {"push": documents.publication(pushed.publication, pushed)}
    return Answer(f"{answer.text}\n  pushed    {text.printable(pushed)}", document)


def _verify(path: str, arguments: Arguments) -> Answer:
    """Compare with the source, and say what differs."""
    source = _checkpoint(arguments.against)  # type: ignore[arg-type]  # _mode has checked it
    checkpoint = _checkpoint(path)
    with _progress(path, source.size, arguments) as progress:
        verdict = recast.verify(
            checkpoint, against=source, workers=arguments.workers, progress=progress
        )
    return Answer(text.verification(verdict), documents.verification(verdict), verdict.holds)


def _scan(path: str, arguments: Arguments) -> Answer:
    """Look at every value, and say what they are."""
    checkpoint = _checkpoint(path)
    size = sum(weights.data_size for weights in checkpoint.weights)
    with _progress(path, size, arguments) as progress:
        found = recast.scan(checkpoint, workers=arguments.workers, progress=progress)
    return Answer(text.scan(found), documents.scan(found))


@contextmanager
def _naming_files_of(checkpoint: str | Path) -> Iterator[None]:
    """Let errors name the files of *checkpoint* so that they can be told from another's."""
    path = Path(checkpoint)
    try:
        yield
    except (recast.CheckpointError, recast.RefusedError) as error:  # others name paths anyway
        subject = Path(error.subject)
        if subject == path or path in subject.parents:
            raise
        if not path.exists():  # on the Hub
            whole = str(checkpoint)
            if not whole.endswith(f"/{subject}"):
                whole += f"/{subject}"
        else:
            whole = str(path / subject if path.is_dir() else path)
        raise type(error)(whole, error.problem, error.remedy) from error


@contextmanager
def _progress(path: str, total: int, arguments: Arguments) -> Iterator[Progress | None]:
    """Yield what to call with the bytes done: a bar on a terminal, nothing elsewhere."""
    if arguments.quiet or sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm  # noqa: PLC0415 - takes a tenth of a second, and only terminals see it

    label = text.printable(Path(path).name)
    with tqdm(desc=label, total=total, unit="B", unit_scale=True, leave=False) as bar:

        def advance(done: int) -> None:
            bar.update(done)

        yield advance


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
