"""The command: parse, call the public API, render. The only module that prints."""

import gc
import json
import os
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


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line, parsed."""

    to: str | None
    out: Path | None
    dry_run: bool
    against: Path | None
    keep: tuple[str, ...]
    keep_rules: bool
    workers: int | None
    as_json: bool
    quiet: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """What a mode has to say of one path: the same as text and as JSON, and whether all is well."""

    text: str
    document: documents.Document
    well: bool = True


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@click.option("--to", metavar="DTYPE", help="Convert to bf16, fp16 or fp32 (or a torch name).")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), metavar="DIR", help="Write the result to DIR."
)
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan; write nothing.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="SRC",
    help="Verify that PATH is what SRC becomes.",
)
@click.option("--keep", multiple=True, metavar="GLOB", help="Leave these tensors as they are.")
@click.option("--no-keep-rules", is_flag=True, help="Cast even tensors known to need fp32.")
@click.option(
    "--workers", type=click.IntRange(min=1), metavar="N", help="Threads (default: usable CPUs)."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option("-q", "--quiet", is_flag=True, help="Print errors only.")
@click.version_option(recast.__version__, prog_name="recast")
def command(paths: tuple[str, ...], **options: object) -> None:
    r"""Say in which dtype a checkpoint is stored, and rewrite it in another.

    PATH is a checkpoint's folder or one .safetensors file. Without options: what is stored,
    what is claimed, what is wrong. With --to: convert PATH, into PATH-bf16 beside it or into
    DIR. PATH itself is never written to.

    \b
    recast ./ckpt                          inspect
    recast ./ckpt --to bf16 -n             show what converting would do
    recast ./ckpt --to bf16                convert into ./ckpt-bf16
    recast ./ckpt-bf16 --against ./ckpt    verify
    """
    options["keep_rules"] = not options.pop("no_keep_rules")
    arguments = Arguments(**options)  # type: ignore[arg-type]  # click has checked the types
    mode = _mode(paths, arguments)
    failed = False
    results = []
    for path in paths:
        try:
            answer = mode(path, arguments)
        except recast.RecastError as error:
            failed = True
            results.append(_report_error(path, error))
            continue
        failed |= not answer.well
        results.append(answer.document)
        if not (arguments.as_json or arguments.quiet):
            click.echo(answer.text)
    if arguments.as_json:
        document = {"recast": recast.__version__, "results": results}
        click.echo(json.dumps(document, indent=2, allow_nan=False))  # NaN is no JSON
    sys.exit(1 if failed else 0)


def _mode(paths: tuple[str, ...], arguments: Arguments) -> Callable[[str, Arguments], Answer]:
    """Return what to do with each path. Raises UsageError for flags that do not go together."""
    if arguments.to is not None:
        # Here, so that a misspelt dtype is a wrong command line and not one error a path.
        try:
            dtypes.target(arguments.to)
        except recast.DtypeError as error:
            raise click.BadParameter(str(error), param_hint="--to") from None
    elif arguments.out or arguments.dry_run or arguments.keep:
        raise click.UsageError("-o, -n and --keep go with --to")
    if arguments.against is not None and (arguments.to is not None):
        raise click.UsageError("--against verifies what --to has made: give one of them")
    if len(paths) > 1 and (arguments.out or arguments.against):
        raise click.UsageError("-o and --against go with one PATH")
    if arguments.against is not None:
        return _verify
    if arguments.to is None:
        return _inspect
    return _plan if arguments.dry_run else _convert


def _inspect(path: str, _arguments: Arguments) -> Answer:
    """Say what is stored, claimed and wrong."""
    checkpoint = recast.inspect(path)
    broken = any(each.severity is recast.Severity.ERROR for each in recast.findings(checkpoint))
    return Answer(text.inspection(checkpoint), documents.inspection(checkpoint), not broken)


def _planned(path: str, arguments: Arguments) -> recast.Plan:
    """Plan what the arguments ask for."""
    return recast.plan(path, arguments.to, keep=arguments.keep, keep_rules=arguments.keep_rules)


def _plan(path: str, arguments: Arguments) -> Answer:
    """Say what converting would do."""
    plan = _planned(path, arguments)
    target = arguments.out or plan.default_target
    return Answer(text.plan(plan, target), documents.plan_document(plan))


def _convert(path: str, arguments: Arguments) -> Answer:
    """Convert, and say what was done."""
    plan = _planned(path, arguments)
    with _progress(plan.size_before, arguments) as progress:
        done = recast.convert(plan, out=arguments.out, workers=arguments.workers, progress=progress)
    return Answer(text.conversion(done), documents.conversion(done))


def _verify(path: str, arguments: Arguments) -> Answer:
    """Compare with the source, and say what differs."""
    source = recast.inspect(arguments.against)  # type: ignore[arg-type]  # _mode has checked it
    with _progress(source.size, arguments) as progress:
        verdict = recast.verify(path, against=source, workers=arguments.workers, progress=progress)
    return Answer(text.verification(verdict), documents.verification(verdict), verdict.holds)


@contextmanager
def _progress(total: int, arguments: Arguments) -> Iterator[Progress | None]:
    """Yield what to call with the bytes done: a bar on a terminal, nothing elsewhere."""
    if arguments.quiet or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm  # noqa: PLC0415 - takes a tenth of a second, and only terminals see it

    with tqdm(total=total, unit="B", unit_scale=True, leave=False) as bar:

        def advance(done: int) -> None:
            bar.update(done)

        yield advance


def _report_error(path: str, error: recast.RecastError) -> documents.Document:
    """Print *error* as one line, and return it as a document."""
    click.echo(f"recast: {' '.join(str(error).split())}", err=True)
    return documents.error(path, error)


def main() -> NoReturn:
    """Run the command, and end the process."""
    gc.disable()  # a short life, and up to a million small values that stay until its end
    try:
        command.main()
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(1)
