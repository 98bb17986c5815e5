"""Which options go together: a wrong command line is said before anything is done."""

from collections.abc import Iterator

import click

import recast
from recast import dtypes
from recast.cli.options import Arguments
from recast.formats.findings import BLOCKING
from recast.planning.policy import OVERFLOW


def check_usage(paths: tuple[str, ...], arguments: Arguments) -> None:
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
    _check_fleets(arguments)
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
    yield against and arguments.to, "--against verifies what --to has made: give one of them"
    yield (
        arguments.fix_config
        and (made or against or arguments.scan or arguments.out or arguments.is_about_fleets),
        "--fix-config changes no tensor: give it alone, or with -n",
    )
    yield (
        arguments.to is None and made and arguments.is_about_fleets,
        "many checkpoints are converted to one dtype: give --to too",
    )
    yield (
        arguments.scan and (made or against or arguments.is_about_fleets),
        "--scan looks at the values of one checkpoint: give it alone",
    )
    yield (
        arguments.report and (arguments.dry_run or arguments.is_about_fleets),
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
    if "quantized" in names:
        problem = "'quantized' stops a conversion, and cannot be allowed: codes cannot be cast"
        raise click.BadParameter(problem, param_hint="--allow")
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
        "--allow": arguments.allow and not arguments.fix_config,
        "--push": arguments.push is not None,
    }
    return next((option for option, value in needed.items() if value), None)


def _needs_no_dtype(option: str, arguments: Arguments) -> bool:
    """Whether *option* means something without --to after all."""
    has_base = arguments.like is not None and arguments.against is None
    return has_base or (option == "-n" and arguments.delete_trainer_state)


def _check_fleets(arguments: Arguments) -> None:
    """Raise UsageError for flags that need a mode for fleets, or do not go with one."""
    if arguments.is_about_fleets and (arguments.against is not None or arguments.scan):
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
    if arguments.jsonl and not arguments.is_about_fleets:
        raise click.UsageError("--jsonl goes with -r")
    if arguments.scheduler and arguments.scheduler_file:
        raise click.UsageError("--scheduler and --scheduler-file name the same: give one of them")
