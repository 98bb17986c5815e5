"""What would be done, as text."""

import posixpath
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from recast.planning.likeness import Likeness
from recast.planning.plan import Action, Plan
from recast.planning.policy import Kind
from recast.planning.publication import Publication
from recast.reports.text.lines import (
    SHOWN,
    counted,
    joined,
    labelled,
    left_out,
    nbytes,
    shortened,
    table,
)


def plan(made: Plan, target: Path, push: Publication | None = None) -> str:
    """Return every file that would be written, and published, and every tensor kept."""
    said = joined(_plan(made, target))
    return said if push is None else f"{said}\n\n{publication(push)}"


def _plan(made: Plan, target: Path) -> Iterator[str]:
    if not made.changes:
        yield nothing_to_do(made)
    else:
        in_place = target == made.checkpoint.path
        where = "in place" if in_place else f"into {target}"
        if made.only_documents:
            yield f"{made.checkpoint.path}: config and index made true, no tensor written, in place"
        else:
            yield f"{made.checkpoint.path} to {made.policy.target.torch_name}, {where}"
        files = list(made.files)
        actions = {each: each.value for each in Action} | (
            {Action.COPY: "leave"} if in_place else {}
        )
        rows = [
            [actions[file.action], file.name, nbytes(file.size_before), nbytes(file.size)]
            for file in files[:SHOWN]
        ]
        if rest := files[SHOWN:]:
            before, after = sum(file.size_before for file in rest), sum(file.size for file in rest)
            more = f"and {len(rest):,} more; --json lists them all"
            rows.append(["", more, nbytes(before), nbytes(after)])
        rows.append(["", "in all", nbytes(made.size_before), nbytes(made.size)])
        yield from table([["", "file", "before", "after"], *rows], left=2)
    kept = [
        f"{tensor.name}: {tensor.dtype.torch_name} ({tensor.reason})" for _, tensor in made.kept
    ]
    yield from labelled("kept", shortened(kept))
    yield from cast(made)
    yield from like(made.like)
    yield from left_out(made.checkpoint.left_out)


def publication(made: Publication) -> str:
    """Return where a push goes, and every file that it adds, replaces and deletes there."""
    return joined(_publication(made))


def _publication(made: Publication) -> Iterator[str]:
    where = made.destination
    seen = "private" if where.private else "PUBLIC"
    what = f"{seen}, there already" if where.exists else f"a new repository, {seen}"
    number = where.request_number
    if where.request:
        way = "a pull request" if number is None else f"pull request {number}, which is open"
    else:
        way = f"one commit on {where.revision}"
    yield f"push to {where.repo} ({what}), as {way}"
    if "/" not in where.repo:
        yield "  under your own name, which a token will tell"
    elif where.exists and where.owned is None and not where.request:
        yield "  if you may not write to it, as a pull request: there is no token to tell"
    if not made.changes:
        yield "  nothing to do: all of it is there already"
        return
    rows = [
        [action, name, nbytes(size)]
        for action, files in (
            ("add", made.added),
            ("replace", made.replaced),
            ("DELETE", made.deleted),
        )
        for name, size in files.items()
    ]
    yield from table(rows, left=2)
    if made.unchanged:
        yield from labelled("as it is", [", ".join(made.unchanged)])
    yield from labelled("theirs", [f"{name} stays as the repository has it" for name in made.kept])


def cast(made: Plan) -> Iterator[str]:
    """Yield what is cast because the user said so."""
    reasons = Counter(
        tensor.reason.detail
        for shard in made.shards
        for tensor in shard.tensors
        if tensor.reason.kind is Kind.CAST and tensor.reason.detail
    )
    lines = [f"{counted(count, 'tensor')}: {reason}" for reason, count in reasons.items()]
    yield from labelled("cast", shortened(lines))


def like(like: Likeness | None) -> Iterator[str]:
    """Yield how much a base model says, and what it lacks."""
    if like is None:
        return
    differ = f", whose names differ by {like.prefix}" if like.prefix else ""
    yield from labelled("like", [f"{counted(like.matched, 'tensor')} as in {like.path}{differ}"])
    lacking = [posixpath.join(home, name) for home, name in like.lacking]
    yield from labelled("not there", shortened(lacking))


def nothing_to_do(made: Plan) -> str:
    """Return that a plan changes nothing."""
    if made.only_documents:
        return f"{made.checkpoint.path}: nothing to do, config and index are true"
    name = made.policy.target.torch_name
    return f"{made.checkpoint.path}: nothing to do, converting to {name} would change no byte"
