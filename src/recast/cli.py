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
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import click

import recast
from recast import dtypes
from recast.formats.findings import BLOCKING
from recast.planning.planner import plan_documents
from recast.planning.policy import OVERFLOW
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
recast ./ckpt --like ./base            take the dtypes of ./base
recast ./ckpt --fix-config             make config and index true
recast ./ckpt-bf16 --against ./ckpt    verify
recast ./ckpt --to bf16 --push         convert, and publish on the Hub
recast hf://org/name                   inspect what is on the Hub
recast ./runs -r                       a table of all checkpoints in a folder
recast ./runs -r --to bf16 --in-place  repair them all

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
    fix_config: bool
    like: str | None
    report: Path | None
    keep: tuple[str, ...]
    cast: tuple[str, ...]
    keep_rules: bool
    lossless: bool
    allow: tuple[str, ...]
    workers: int | None
    as_json: bool
    quiet: bool
    recursive: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    check: bool
    rates: Path | None
    scheduler: str | None
    scheduler_file: Path | None
    delete_trainer_state: bool
    jsonl: bool
    push: str | None
    public: bool
    pr: bool
    revision: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """What a mode has to say of one path, as text or as JSON, and whether all is well.

    Attributes:
        result: what it was made of, where there is a page to show it.
        text: returns it as text.
        document: returns it as JSON.
        well: whether all is well.
    """

    result: Any
    text: Callable[[], str]
    document: Callable[[], documents.Document]
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
@click.option("--fix-config", is_flag=True, help="Make config and index true; no tensor changes.")
@click.option("--like", metavar="BASE", help="Give tensors the dtypes of BASE's.")
@click.option(
    "--keep", multiple=True, metavar="GLOB", help="Leave these tensors as they are (repeatable)."
)
@click.option(
    "--cast", multiple=True, metavar="GLOB", help="Cast these, whatever rules and BASE say."
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
@click.option("-r", "--recursive", is_flag=True, help="PATH holds runs: take every checkpoint.")
@click.option(
    "--include", multiple=True, metavar="GLOB", help="With -r: only these, below PATH (repeatable)."
)
@click.option(
    "--exclude", multiple=True, metavar="GLOB", help="With -r: none of these (repeatable)."
)
@click.option("--check", is_flag=True, help="Exit 1 if a checkpoint is larger than it has to be.")
@click.option(
    "--rates", type=_PATH, metavar="FILE", help="With -r -n: estimate by these rates and prices."
)
@click.option("--scheduler", metavar="URL", help="With -r: convert on this Dask cluster.")
@click.option(
    "--scheduler-file", type=_PATH, metavar="FILE", help="The same, as named in this file."
)
@click.option(
    "--delete-trainer-state", is_flag=True, help="Delete optimizers and the like; -n shows which."
)
@click.option("--jsonl", is_flag=True, help="With -r: print JSON lines while running.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@click.option("--report", type=_PATH, metavar="FILE", help="Also write a page to look at: HTML.")
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
    failed = said = False
    results: list[documents.Document] = []
    for path in paths:
        try:
            answer = mode(path, arguments)
            if arguments.report is not None:
                recast.report(answer.result, arguments.report)
        except recast.RecastError as error:
            failed = said = True
            click.echo(f"recast: {text.printable(str(error))}", err=True)
            results.append(documents.error(path, error))
            if arguments.jsonl:
                click.echo(json.dumps(results[-1]))
            continue
        failed |= not answer.well
        if arguments.jsonl:
            click.echo(json.dumps(answer.document(), allow_nan=False))
        elif not (arguments.as_json or arguments.quiet):
            click.echo(f"\n{answer.text()}" if said else answer.text())
        said = True
        if arguments.as_json:
            results.append(answer.document())
    if arguments.as_json:
        document = {"recast": recast.__version__, "results": results}
        click.echo(json.dumps(document, indent=2, allow_nan=False))  # NaN is no JSON
    sys.exit(1 if failed else 0)


def _mode(paths: tuple[str, ...], arguments: Arguments) -> Callable[[str, Arguments], Answer]:
    """Return what to do with each path. Raises UsageError for flags that do not go together."""
    _check_usage(paths, arguments)
    if _is_about_fleets(arguments):
        return _fleet
    if arguments.against is not None:
        return _verify
    if arguments.scan:
        return _scan
    if arguments.fix_config:
        return _plan if arguments.dry_run else _convert
    if arguments.to is None and arguments.like is None:
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
    elif (given := _given(arguments)) and not _needs_no_dtype(given, arguments):
        raise click.UsageError(f"{given} goes with --to or --like")
    _check_allowed(arguments.allow)
    for wrong, problem in _contradictions(paths, arguments):
        if wrong:
            raise click.UsageError(problem)


def _contradictions(paths: tuple[str, ...], arguments: Arguments) -> Iterator[tuple[object, str]]:
    """Yield flags that do not go together: whether they are given, and what to do instead."""
    made = "--to" if arguments.to is not None else "--like" if arguments.like is not None else ""
    against = arguments.against is not None
    yield (
        arguments.in_place and arguments.out,
        "--in-place replaces PATH, -o writes elsewhere: give one of them",
    )
    yield against and made, f"--against verifies what {made} has made: give one of them"
    yield (
        arguments.fix_config
        and (made or against or arguments.scan or arguments.out or _is_about_fleets(arguments)),
        "--fix-config changes no tensor: give it alone, or with -n",
    )
    yield (
        arguments.to is None and made and _is_about_fleets(arguments),
        "many checkpoints are converted to one dtype: give --to too",
    )
    yield (
        arguments.scan and (made or against or _is_about_fleets(arguments)),
        "--scan looks at the values of one checkpoint: give it alone",
    )
    yield (
        arguments.report and (arguments.dry_run or _is_about_fleets(arguments)),
        "--report shows what was done to one checkpoint: leave out -n and -r",
    )
    yield (
        len(paths) > 1 and (arguments.out or arguments.against or arguments.report),
        "-o, --against and --report go with one PATH",
    )
    yield (
        arguments.push is None and (arguments.public or arguments.pr or arguments.revision),
        "--public, --pr and --revision go with --push",
    )
    yield (
        arguments.rates and not (arguments.recursive and arguments.dry_run and arguments.to),
        "--rates is for an estimate: it goes with -r, --to and -n",
    )
    yield (
        len(paths) > 1 and arguments.push,
        "--push ORG/NAME goes with one PATH; --push alone with many",
    )


def _check_allowed(names: tuple[str, ...]) -> None:
    """Raise UsageError for a name that could not have stopped a conversion."""
    known = (OVERFLOW, *(name for name in BLOCKING if name != "quantized"))
    if unknown := [name for name in names if name not in known]:
        problem = f"{unknown[0]!r} stops no conversion; what does: {', '.join(known)}"
        raise click.BadParameter(problem, param_hint="--allow")


def _given(arguments: Arguments) -> str | None:
    """Return the first option in *arguments* that means nothing without --to, if any."""
    needed = {
        "-o": arguments.out,
        "--in-place": arguments.in_place,
        "-n": arguments.dry_run and not arguments.fix_config,
        "--keep": arguments.keep,
        "--cast": arguments.cast,
        "--no-keep-rules": not arguments.keep_rules,
        "--lossless": arguments.lossless,
        "--allow": arguments.allow,
        "--push": arguments.push is not None,
    }
    return next((option for option, value in needed.items() if value), None)


def _needs_no_dtype(option: str, arguments: Arguments) -> bool:
    """Whether *option* means something without --to after all."""
    return arguments.like is not None or (option == "-n" and arguments.delete_trainer_state)


def _is_about_fleets(arguments: Arguments) -> bool:
    """Whether a mode for fleets is asked for. Raises UsageError for flags that need it, or not."""
    fleet = arguments.recursive or arguments.check or arguments.delete_trainer_state
    if fleet and (arguments.against is not None or arguments.scan):
        raise click.UsageError("--against and --scan look at one PATH: leave out -r and the like")
    if arguments.delete_trainer_state and (arguments.to or arguments.check):
        raise click.UsageError("--delete-trainer-state goes without --to and --check")
    if arguments.check and (arguments.dry_run or arguments.in_place or arguments.out):
        raise click.UsageError("--check writes nothing: leave out -n, -o and --in-place")
    if arguments.jsonl and arguments.as_json:
        raise click.UsageError("--json prints one document, --jsonl many: give one of them")
    searching: dict[str, object] = {
        "--include": arguments.include,
        "--exclude": arguments.exclude,
        "--scheduler": arguments.scheduler,
        "--scheduler-file": arguments.scheduler_file,
    }
    if given := next((option for option, value in searching.items() if value), None):
        if not arguments.recursive:
            raise click.UsageError(f"{given} goes with -r")
        if "scheduler" in given and (arguments.to is None or arguments.dry_run or arguments.check):
            raise click.UsageError(f"{given} goes with --to, and without -n and --check")
    if arguments.jsonl and not fleet:
        raise click.UsageError("--jsonl goes with -r")
    if arguments.scheduler and arguments.scheduler_file:
        raise click.UsageError("--scheduler and --scheduler-file name the same: give one of them")
    return fleet


def _fleet(path: str, arguments: Arguments) -> Answer:
    """Look at many checkpoints, or repair them."""
    from recast import cli_fleet  # noqa: PLC0415 - it loads numpy, which a look at one need not

    request = cli_fleet.Request(
        root=Path(path),
        recursive=arguments.recursive,
        to=arguments.to,
        out=arguments.out,
        in_place=arguments.in_place,
        dry_run=arguments.dry_run,
        include=arguments.include,
        exclude=arguments.exclude,
        wishes={
            "like": arguments.like,
            "keep": arguments.keep,
            "cast": arguments.cast,
            "keep_rules": arguments.keep_rules,
            "lossless": arguments.lossless,
            "allow": arguments.allow,
        },
        workers=arguments.workers,
        rates=arguments.rates,
        scheduler=arguments.scheduler,
        scheduler_file=arguments.scheduler_file,
        lines=arguments.jsonl,
        as_json=arguments.as_json,
        quiet=arguments.quiet,
    )
    if arguments.delete_trainer_state:
        mode = cli_fleet.delete
    elif arguments.check:
        mode = cli_fleet.check
    else:
        mode = cli_fleet.repair if arguments.to and not arguments.dry_run else cli_fleet.look
    said, document, well = mode(request)
    return Answer(None, lambda: said, lambda: document, well)


def _inspect(path: str, _arguments: Arguments) -> Answer:
    """Say what is stored, claimed and wrong."""
    checkpoint = _checkpoint(path)
    broken = any(each.severity is recast.Severity.ERROR for each in recast.findings(checkpoint))
    return Answer(
        checkpoint,
        partial(text.inspection, checkpoint),
        partial(documents.inspection, checkpoint),
        not broken,
    )


def _checkpoint(path: str | Path) -> recast.Checkpoint:
    """Read what lies at *path*."""
    with _naming_files_of(path):
        return recast.inspect(path)


def _planned(path: str, arguments: Arguments) -> recast.Plan:
    """Plan what the arguments ask for."""
    checkpoint = _checkpoint(path)
    base = None if arguments.like is None else _checkpoint(arguments.like)
    with _naming_files_of(path):
        if arguments.fix_config:
            return plan_documents(checkpoint)
        return recast.plan(
            checkpoint,
            arguments.to,
            like=base,
            keep=arguments.keep,
            cast=arguments.cast,
            keep_rules=arguments.keep_rules,
            lossless=arguments.lossless,
            allow=arguments.allow,
        )


def _plan(path: str, arguments: Arguments) -> Answer:
    """Say what converting would do."""
    plan = _planned(path, arguments)
    in_place = arguments.in_place or arguments.fix_config
    target = plan.checkpoint.local_path if in_place else arguments.out or plan.default_target
    push = None if arguments.push is None else _publication(path, plan, arguments)
    return Answer(
        plan,
        partial(text.plan, plan, target, push),
        partial(documents.plan_document, plan, target, push),
    )


def _convert(path: str, arguments: Arguments) -> Answer:
    """Convert, and say what was done."""
    plan = _planned(path, arguments)
    if arguments.push is not None:
        return _push(path, plan, arguments)
    done = _converted(path, plan, arguments)
    return Answer(done, partial(text.conversion, done), partial(documents.conversion, done))


def _converted(path: str, plan: recast.Plan, arguments: Arguments) -> recast.Conversion:
    """Convert."""
    with _naming_files_of(path), _progress(path, plan.size_before, arguments) as progress:
        return recast.convert(
            plan,
            out=arguments.out,
            in_place=arguments.in_place or arguments.fix_config,
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
    done = pushed.conversion or recast.Conversion(plan, None, (), 0.0)
    return Answer(
        done,
        partial(text.conversion, done, pushed),
        partial(documents.conversion, done, pushed.publication, pushed),
    )


def _verify(path: str, arguments: Arguments) -> Answer:
    """Compare with the source, and say what differs."""
    source = _checkpoint(arguments.against)  # type: ignore[arg-type]  # _mode has checked it
    checkpoint = _checkpoint(path)
    with _progress(path, source.size, arguments) as progress:
        verdict = recast.verify(
            checkpoint, against=source, workers=arguments.workers, progress=progress
        )
    return Answer(
        verdict,
        partial(text.verification, verdict),
        partial(documents.verification, verdict),
        verdict.holds,
    )


def _scan(path: str, arguments: Arguments) -> Answer:
    """Look at every value, and say what they are."""
    checkpoint = _checkpoint(path)
    size = sum(weights.data_size for weights in checkpoint.weights)
    with _progress(path, size, arguments) as progress:
        found = recast.scan(checkpoint, workers=arguments.workers, progress=progress)
    return Answer(found, partial(text.scan, found), partial(documents.scan, found))


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
