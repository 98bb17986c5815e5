"""The modes of the command, each a call or two of the public API for one PATH."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

import recast
from recast.cli.options import Arguments
from recast.planning.planner import plan_documents
from recast.reports import documents, text

Progress = Callable[[int], None]


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


Mode = Callable[[str, Arguments], Answer]


def mode(arguments: Arguments) -> Mode:
    """Return what to do with each path."""
    if arguments.is_about_fleets:
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


def _fleet(path: str, arguments: Arguments) -> Answer:
    """Look at many checkpoints, or repair them."""
    from recast.cli import fleets  # noqa: PLC0415 - it loads numpy, which a look at one need not
    from recast.cli.request import Request  # noqa: PLC0415 - likewise

    request = Request(
        root=Path(path),
        recursive=arguments.recursive,
        to=arguments.to,
        out=arguments.out,
        in_place=arguments.in_place,
        deletes=arguments.delete_trainer_state,
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
        work = fleets.delete
    elif arguments.check:
        work = fleets.check
    else:
        work = fleets.repair if arguments.to and not arguments.dry_run else fleets.look
    said, document, well = work(request)
    return Answer(None, lambda: said, lambda: document, well)


def _inspect(path: str, _arguments: Arguments) -> Answer:
    """Say what is stored, claimed and wrong."""
    from recast.execution.reader import inspect_base  # noqa: PLC0415 - it loads safetensors

    checkpoint = _checkpoint(path)
    base = inspect_base(checkpoint)
    broken = any(each.severity is recast.Severity.ERROR for each in recast.findings(checkpoint))
    return Answer(
        checkpoint,
        partial(text.inspection, checkpoint, base),
        partial(documents.inspection, checkpoint, base),
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
            return plan_documents(checkpoint, arguments.allow)
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
    source = _checkpoint(arguments.against)  # type: ignore[arg-type]  # mode has checked it
    checkpoint = _checkpoint(path)
    base = None if arguments.like is None else _checkpoint(arguments.like)
    with _progress(path, source.size, arguments) as progress:
        verdict = recast.verify(
            checkpoint, against=source, like=base, workers=arguments.workers, progress=progress
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
    broken = any(each.severity is recast.Severity.ERROR for each in found.findings)
    return Answer(found, partial(text.scan, found), partial(documents.scan, found), not broken)


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
