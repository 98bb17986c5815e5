"""What the command says of fleets, as text for a terminal."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from recast.dtypes import Dtype
from recast.errors import RecastError
from recast.formats.forms import Unread
from recast.planning.estimate import Estimate, Limit
from recast.reports import text
from recast.reports.fleet import (
    Fate,
    Outcome,
    Survey,
    SurveyTotal,
    TrainerState,
    total_outcome,
    total_survey,
)
from recast.reports.text import nbytes

_SHOWN = 200  # checkpoints in one table, before the rest is counted only
_NAMED = 5  # checkpoints in a line that is no table
_SHORT = 20  # columns that a path may take, however narrow the terminal is
_MINUTE, _HOUR = 60, 3600
_MANY_HOURS = 100
_FEW_HOURS = 0.1  # below which nobody reckons in them
_LIMITS = {
    Limit.WORKERS: "the workers decide",
    Limit.DISK: "the disk decides",
    Limit.COORDINATOR: "what one process does decides",
}


def survey(
    root: Path,
    surveys: Sequence[Survey],
    target: Dtype,
    estimate: Estimate | None = None,
    width: int | None = None,
) -> str:
    """Return the table of a fleet, those that save the most first, and its totals.

    *width* is that of the terminal, in columns; None if lines may have any length.
    """
    return "\n".join(map(text.printable, _survey(root, surveys, target, estimate, width)))


def _survey(
    root: Path,
    surveys: Sequence[Survey],
    target: Dtype,
    estimate: Estimate | None,
    width: int | None,
) -> Iterator[str]:
    if not surveys:
        yield f"{root}: no checkpoints"
        return
    total = total_survey(surveys)
    yield f"{root}: {_checkpoints(total.checkpoints)}"
    ordered = sorted(surveys, key=lambda each: (-each.saved, each.path))
    known = [each for each in ordered if each.dtypes or each.error is None]
    rows = [
        [
            _below(root, each.path),
            _dtypes(each.dtypes),
            ", ".join(each.findings),
            nbytes(each.size),
            nbytes(each.saved) if each.saved else "",
        ]
        for each in known[:_SHOWN]
    ]
    if more := known[_SHOWN:]:
        label = f"and {len(more):,} more; --json lists them all"
        sizes = [sum(each.size for each in more), sum(each.saved for each in more)]
        rows.append([label, "", "", *map(nbytes, sizes)])
    rows.append(["in all", _dtypes(total.dtypes), "", nbytes(total.size), nbytes(total.saved)])
    header = ["checkpoint", "stored", "findings", "bytes", f"{target.short_name} saves"]
    yield from _table([header, *rows], 3, width)
    problems = [(each.path, each.error) for each in ordered if each.error is not None]
    if problems:
        yield ""
        yield from _problems(root, "error", problems)
    yield ""
    yield from _gains(total, target)
    if estimate is not None:
        yield from takes(estimate)


def _table(rows: Sequence[Sequence[str]], left: int, width: int | None) -> Iterator[str]:
    """Yield a table; a path that leaves no room for the rest has a line of its own, above it."""
    if width is not None:
        beside = max(map(len, text.table([["", *row[1:]] for row in rows], left)))
        room = max(_SHORT, width - beside)
    else:
        room = max(len(text.printable(row[0])) for row in rows)
    alone = [len(text.printable(path)) > room for path, *_ in rows]
    kept = [["" if long else path, *rest] for long, (path, *rest) in zip(alone, rows, strict=True)]
    for long, (path, *_), line in zip(alone, rows, text.table(kept, left), strict=True):
        if long:
            yield f"  {path}"
        yield line


def _gains(total: SurveyTotal, target: Dtype) -> Iterator[str]:
    """Yield what there is to gain."""
    if total.oversized:
        share = f" ({total.saved / total.size:.0%})" if total.saved > 0 else ""
        yield (
            f"  to {target.short_name:<7}saves {nbytes(total.saved)}{share}: "
            f"{_checkpoints(total.oversized)} would become smaller"
        )
    else:
        yield f"  to {target.short_name:<7}saves nothing"
    if total.trainer_state:
        yield f"  beside    {nbytes(total.trainer_state)} of trainer state"


def takes(estimate: Estimate) -> Iterator[str]:
    """Yield what carrying it out would take."""
    workers = "1 worker" if estimate.workers == 1 else f"{estimate.workers:,} workers"
    known = "about" if estimate.disk_is_known else "at least"
    said = f"{known} {duration(estimate.seconds)} with {workers}"
    if estimate.worker_hours >= _FEW_HOURS:
        places = 0 if estimate.worker_hours >= _MANY_HOURS else 1
        said += f", {estimate.worker_hours:,.{places}f} worker hours"
    said += f"; {_LIMITS[estimate.limit]}"
    if not estimate.disk_is_known:
        said += ", if the disk keeps up"
    elif estimate.enough_workers is not None and estimate.limit is Limit.DISK:
        said += f", and {estimate.enough_workers:,} would be enough"
    yield f"  takes     {said}"
    yield (
        f"  moves     {nbytes(estimate.bytes_read)} read, {nbytes(estimate.bytes_written)} "
        f"written, in about {estimate.requests:,} operations on files"
    )
    if estimate.cost is not None:
        yield f"  costs     {estimate.cost:,.2f} {estimate.currency}"


def bases(root: Path, found: Sequence[Survey] | Sequence[Outcome]) -> str:
    """Return how many checkpoints take the dtypes of their own base, and which do not."""
    known = [each for each in found if each.error is None]
    without = [_below(root, each.path) for each in known if each.base is None]
    line = (
        f"  like      {len(known) - len(without):,} of {_checkpoints(len(known))} found their base"
    )
    if without:
        line += f"; no folder here is that of {_some(without)}"
    return text.printable(line)


def besides(root: Path, unread: Sequence[Unread], outside: Sequence[Path]) -> str:
    """Return which folders were found whose weights are not read, or left alone; "" if none.

    Each line begins with the end of the one before.
    """
    lines = []
    for form in dict.fromkeys(each.form for each in unread):
        folders = [_below(root, each.path) for each in unread if each.form is form]
        lines.append(f"  unread    {form.value} in {_some(folders)}: {form.remedy}")
    if outside:
        folders = [f"{_below(root, each)} (at {each.resolve()})" for each in outside]
        lines.append(
            f"  outside   left alone, since links lead out of {root} to {_some(folders)}: "
            "name that folder itself, or give -o"
        )
    return "".join(f"\n{text.printable(line)}" for line in lines)


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s"
    if seconds < 2 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:,.1f} h"


def repair(root: Path, outcomes: Sequence[Outcome], seconds: float, *, in_place: bool) -> str:
    """Return what became of a fleet."""
    lines = _repair(root, outcomes, seconds, in_place=in_place)
    return "\n".join(map(text.printable, lines))


def _repair(
    root: Path, outcomes: Sequence[Outcome], seconds: float, *, in_place: bool
) -> Iterator[str]:
    if not outcomes:
        yield f"{root}: no checkpoints"
        return
    total = total_outcome(outcomes)
    counts = ", ".join(f"{count:,} {fate.value}" for fate, count in total.fates if count)
    yield f"{root}: {counts} in {duration(seconds)}"
    if total.saved:
        what = "freed" if in_place else "saved"
        sizes = f"{nbytes(total.size_before)} to {nbytes(total.size_after)}"
        yield f"  {what:<10}{nbytes(total.saved)}: {sizes}"
    done = [each for each in outcomes if each.fate is Fate.REPAIRED]
    if lossless := [e for e in done if e.evidence and e.evidence.lossless == e.evidence.tensors]:
        yield f"  lossless  no value changed in {_checkpoints(len(lossless))}"
    worst = max(
        (
            (each.evidence.worst, each.path)
            for each in done
            if each.evidence and each.evidence.worst
        ),
        key=lambda each: each[0].largest_error,
        default=None,
    )
    if worst is not None:
        tensor, path = worst
        where = f"{tensor.name} of {_below(root, path)}"
        rounded = sum(1 for each in done if each.evidence and each.evidence.rounded)
        yield (
            f"  rounded   {_checkpoints(rounded)}, "
            f"largest error {tensor.largest_error:.3g} in {where}"
        )
    emptied = [(each.path, each.evidence.vanished) for each in done if each.evidence]
    for path, tensors in emptied:
        if tensors:
            count = f"{tensors:,} tensor{'s' if tensors > 1 else ''}"
            what = f"every value that was not zero became zero in {count} [vanished-values]"
            yield f"  {'warning':<10}{_below(root, path)}: {what}"
    for fate in (Fate.SKIPPED, Fate.FAILED):
        met = [(each.path, each.error) for each in outcomes if each.fate is fate]
        yield from _problems(root, fate.value, [(path, why) for path, why in met if why])


def trainer_state(
    found: Sequence[TrainerState], root: Path, *, dry_run: bool, width: int | None = None
) -> str:
    """Return which trainer state was deleted, or would be. *width* is as for `survey`."""
    lines = _trainer_state(found, root, width, dry_run=dry_run)
    return "\n".join(map(text.printable, lines))


def _trainer_state(
    found: Sequence[TrainerState], root: Path, width: int | None, *, dry_run: bool
) -> Iterator[str]:
    done = [each for each in found if each.files and each.error is None]
    size = sum(each.size for each in done)
    if not done and any(each.error for each in found):
        yield f"{root}: no trainer state {'to delete' if dry_run else 'deleted'}"
    elif not done:
        yield f"{root}: no trainer state"
    else:
        said = "would be deleted" if dry_run else "deleted"
        yield f"{root}: {nbytes(size)} of trainer state {said}, of {_checkpoints(len(done))}"
    rows = [[_below(root, each.path), _tops(each.files), nbytes(each.size)] for each in done]
    if rows:
        yield from _table([["checkpoint", "files", "bytes"], *rows[:_SHOWN]], 2, width)
    if len(rows) > _SHOWN:
        yield f"  and {len(rows) - _SHOWN:,} more; --json lists them all"
    yield from _problems(root, "left", [(e.path, e.error) for e in found if e.error is not None])


def _tops(files: Sequence[str]) -> str:
    """Return the files and folders that *files* are, or lie in."""
    return ", ".join(sorted({name.partition("/")[0] for name in files}))


def _problems(
    root: Path, label: str, problems: Iterable[tuple[Path, RecastError]]
) -> Iterator[str]:
    """Yield each checkpoint about which something has to be said, and what."""
    for path, error in problems:
        yield f"  {label:<10}{_below(root, path)}: {reason(path, error)}"


def reason(path: Path, error: RecastError) -> str:
    """Return an error about *path*, without that path."""
    if error.subject == str(path):
        return f"{error.problem}; {error.remedy}" if error.remedy else error.problem
    return str(error)


def _below(root: Path, path: Path) -> str:
    """Return *path* as it lies in *root*."""
    is_below = path != root and path.is_relative_to(root)
    return str(path.relative_to(root)) if is_below else str(path)


def _some(names: Sequence[str]) -> str:
    """Return *names*, or the first of them if they are many."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _dtypes(shares: Sequence[tuple[Dtype, int]]) -> str:
    """Return what is stored, in one cell: the main dtype, and how much of it there is."""
    whole = sum(count for _, count in shares)
    if not shares or not whole:
        return ""
    said = [shares[0][0].torch_name]
    if len(shares) > 1:
        said.append(f"{shares[0][1] / whole:.0%}")
    return " ".join(said)


def _checkpoints(count: int) -> str:
    """Return a number of checkpoints."""
    return f"{count:,} checkpoint" if count == 1 else f"{count:,} checkpoints"
