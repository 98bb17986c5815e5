"""What the command says, as text for a terminal."""

import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from recast.formats.checkpoint import Checkpoint, DtypeShare, File, Weights
from recast.formats.findings import Finding, findings
from recast.planning.likeness import Likeness
from recast.planning.planner import Action, Plan
from recast.planning.policy import Kind
from recast.planning.publication import Publication
from recast.reports import documents
from recast.reports.conversion import Conversion
from recast.reports.evidence import EvidenceTotal
from recast.reports.loaders import Loading, loadings
from recast.reports.scan import Scan
from recast.reports.verification import Verification

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_KILO = 1000
_SHOWN = 20  # lines of one kind, before the rest is counted only
_LEAST_SHARE = 0.0005  # what "0.1%" is rounded from


def nbytes(count: float) -> str:
    """Return a number of bytes with a decimal unit, as the Hub's pages show it."""
    for unit in _UNITS:
        # Not 1000: what rounds to 1,000.00 reads better as 1.00 of the next unit.
        if round(abs(count), 0 if unit == "B" else 2) < _KILO or unit == _UNITS[-1]:
            break
        count /= _KILO
    return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.2f} {unit}"


def printable(text: str) -> str:
    """Return *text* on one line, with whatever a terminal would act on, or not show, escaped.

    Names of files and tensors come from strangers.
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )


def inspection(checkpoint: Checkpoint) -> str:
    """Return what is stored, claimed and wrong."""
    return _text(_inspection(checkpoint))


def _inspection(checkpoint: Checkpoint) -> Iterator[str]:
    yield str(checkpoint.path)
    yield from _labelled("stored", map(_stored, checkpoint.weights))
    yield ""
    yield from _dtypes(checkpoint.dtypes)
    said = [
        *_labelled("claimed", _claims(checkpoint)),
        *_labelled("to bf16", _savings(checkpoint)),
        *_labelled("base", _base(checkpoint)),
        *_left_out(checkpoint.left_out),
    ]
    loads = list(_loads(loadings(checkpoint)))
    for block in (said, loads, list(_findings(findings(checkpoint)))):
        if block:
            yield ""
            yield from block


def _stored(weights: Weights) -> str:
    """Return the files and bytes of one loadable set of tensors."""
    size = nbytes(sum(shard.size for shard in weights.shards))
    if weights.index is None:
        return f"{weights.name}: {size}"
    shards = _count(len(weights.index.shards), "shard")
    if weights.missing_shards:
        shards = f"{len(weights.shards):,} of {shards}"
    return f"{weights.name}: {shards}, {size}"


def _claims(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what config and index say, in the words of their files."""
    for config in checkpoint.configs.values():
        yield f"{config.name}: {', '.join(map(str, config.claims)) or 'no dtype'}"
    for weights in checkpoint.weights:
        if (index := weights.index) is not None:
            size, dtype = index.total_size, index.dtype
            said = "no total_size" if size is None else f"total_size = {size}"
            yield f"{index.name}: {said}" + (f", dtype = {dtype}" if dtype else "")


def _savings(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what a conversion to bf16 would save; nothing if it would be refused."""
    if (saved := documents.savings(checkpoint)) is None:
        return
    before, after = saved["bytes_before"], saved["bytes_after"]
    if after == before:
        yield "saves nothing"
    elif after > before:
        yield f"{nbytes(after)}, takes {nbytes(after - before)} more"
    else:
        yield f"{nbytes(after)}, saves {nbytes(before - after)} ({(before - after) / before:.0%})"


def _base(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield the command that gives the tensors the dtypes of the base model, if one is named."""
    if (command := documents.like_command(checkpoint)) is not None:
        yield f"{checkpoint.base}; its dtypes: {command}"


def _loads(loads: Sequence[Loading]) -> Iterator[str]:
    """Yield a table of who would load which dtype: a line for each program and what it is told."""
    if not loads:
        return
    whole = any(each.after for each in loads)
    alike: dict[tuple[str, ...], list[str]] = {}
    for each in loads:
        cells = [dtype.torch_name if dtype else "fails" for dtype in (each.before, each.after)]
        alike.setdefault((each.loader, *cells[: 1 + whole]), []).append(each.option)
    rows = [
        [f'{loader}, "auto"' if options == ["auto"] else loader, *cells]
        for (loader, *cells), options in alike.items()
    ]
    yield from table([["loaded by", "as it is", "as bf16"][: 2 + whole], *rows])


def _findings(found: Iterable[Finding]) -> Iterator[str]:
    """Yield each finding once, with the first of the files that it concerns, on two lines."""
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for each in found:
        remedy = f"{each.remedy}: {each.command}" if each.command else each.remedy
        key = (each.severity.value, each.name, each.problem, remedy)
        alike.setdefault(key, []).append(each.subject)
    entries = []
    for (severity, name, problem, remedy), (subject, *others) in alike.items():
        more = f" (and {len(others):,} more)" if others else ""
        entries.append((severity, f"{subject}{more}: {problem}", f"{remedy} [{name}]"))
    for severity, problem, remedy in entries[:_SHOWN]:
        yield from _labelled(severity, (problem, remedy))
    yield from _labelled("", _rest(len(entries)))


def _left_out(files: Sequence[File]) -> Iterator[str]:
    """Yield what is no part of the model, by the top of its path."""
    sizes: Counter[tuple[str, str]] = Counter()
    for file in files:
        top, slash, _ = file.name.partition("/")
        sizes[top + slash, file.role.value] += file.size
    lines = [f"{top} ({why}, {nbytes(size)})" for (top, why), size in sorted(sizes.items())]
    yield from _labelled("left out", _shortened(lines))


def _dtypes(shares: Sequence[DtypeShare]) -> Iterator[str]:
    """Yield a table of what each dtype amounts to."""
    if not shares:
        yield "  no tensors"
        return
    whole = sum(share.nbytes for share in shares)
    rows = [
        [
            share.dtype.torch_name,
            f"{share.tensors:,}",
            f"{share.parameters:,}",
            nbytes(share.nbytes),
            _percent(share.nbytes / whole if whole else 0),
        ]
        for share in shares
    ]
    yield from table([["dtype", "tensors", "parameters", "bytes", "share"], *rows])


def _percent(share: float) -> str:
    """Return a share in percent; something is never shown as nothing."""
    return "<0.1%" if 0 < share < _LEAST_SHARE else f"{share:.1%}"


def plan(made: Plan, target: Path, push: Publication | None = None) -> str:
    """Return every file that would be written, and published, and every tensor kept."""
    said = _text(_plan(made, target))
    return said if push is None else f"{said}\n\n{publication(push)}"


def _plan(made: Plan, target: Path) -> Iterator[str]:
    if not made.changes:
        yield _nothing_to_do(made)
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
            for file in files[:_SHOWN]
        ]
        if rest := files[_SHOWN:]:
            before, after = sum(file.size_before for file in rest), sum(file.size for file in rest)
            more = f"and {len(rest):,} more; --json lists them all"
            rows.append(["", more, nbytes(before), nbytes(after)])
        rows.append(["", "in all", nbytes(made.size_before), nbytes(made.size)])
        yield from table([["", "file", "before", "after"], *rows], left=2)
    kept = [
        f"{tensor.name}: {tensor.dtype.torch_name} ({tensor.reason})" for _, tensor in made.kept
    ]
    yield from _labelled("kept", _shortened(kept))
    yield from _cast(made)
    yield from _like(made.like)
    yield from _left_out(made.checkpoint.left_out)


def _cast(made: Plan) -> Iterator[str]:
    """Yield what is cast because the user said so."""
    reasons = Counter(
        tensor.reason.detail
        for shard in made.shards
        for tensor in shard.tensors
        if tensor.reason.kind is Kind.CAST and tensor.reason.detail
    )
    lines = [f"{_count(count, 'tensor')}: {reason}" for reason, count in reasons.items()]
    yield from _labelled("cast", _shortened(lines))


def _like(like: Likeness | None) -> Iterator[str]:
    """Yield how much a base model says, and what it lacks."""
    if like is None:
        return
    differ = f", whose names differ by {like.prefix}" if like.prefix else ""
    yield from _labelled("like", [f"{_count(like.matched, 'tensor')} as in {like.path}{differ}"])
    lacking = [posixpath.join(home, name) for home, name in like.lacking]
    yield from _labelled("not there", _shortened(lacking))


def publication(made: Publication) -> str:
    """Return where a push goes, and every file that it adds, replaces and deletes there."""
    return _text(_publication(made))


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
        yield from _labelled("as it is", [", ".join(made.unchanged)])
    yield from _labelled("theirs", [f"{name} stays as the repository has it" for name in made.kept])


def _nothing_to_do(made: Plan) -> str:
    """Return that a plan changes nothing."""
    if made.only_documents:
        return f"{made.checkpoint.path}: nothing to do, config and index are true"
    name = made.policy.target.torch_name
    return f"{made.checkpoint.path}: nothing to do, converting to {name} would change no byte"


def conversion(done: Conversion, url: str | None = None) -> str:
    """Return what was written, and where it was published, and what rounding did."""
    said = _text(_conversion(done))
    return said if url is None else f"{said}\n{_text(_labelled('pushed', [url]))}"


def _conversion(done: Conversion) -> Iterator[str]:
    made = done.plan
    if done.target is None:
        yield _nothing_to_do(made)
        return
    if done.found:
        yield f"{done.target}: there already, made from {made.checkpoint.path}; nothing to do"
        return
    if made.only_documents:
        names = ", ".join(document.name for document in made.documents)
        yield f"{done.target}: made true: {names}"
        return
    sizes = f"{nbytes(made.size_before)} to {nbytes(made.size)}"
    yield f"{done.target}: {made.policy.target.torch_name}, {sizes} in {done.seconds:.1f} s"
    if done.discarded:
        left = "what an unfinished conversion of another source, or with other options, had left"
        yield from _labelled("discarded", [left])
    if done.resumed:
        whole = _count(sum(shard.changes for shard in made.shards), "shard")
        yield from _labelled("resumed", [f"{done.resumed:,} of {whole} had been converted before"])
    kept = Counter(str(tensor.reason) for _, tensor in made.kept)
    lines = [f"{_count(count, 'tensor')}: {reason}" for reason, count in kept.items()]
    yield from _labelled("kept", _shortened(lines))
    yield from _cast(made)
    yield from _like(made.like)
    yield from _left_out(made.checkpoint.left_out)
    yield from _rounding(done.total)
    yield from _findings(done.findings)


def _rounding(total: EvidenceTotal) -> Iterator[str]:
    """Yield what the casts did to the values."""
    cast = _count(total.tensors, "tensor")
    if total.worst is not None:
        lossy = total.tensors - total.lossless
        error = f"largest error {total.worst.largest_error:.3g} in {total.worst.name}"
        yield from _labelled("rounded", [f"{lossy:,} of {cast}, {error}"])
    elif total.tensors:
        yield from _labelled("lossless", [f"no value changed in {cast}"])


def scan(found: Scan) -> str:
    """Return what the stored values are."""
    return _text(_scan(found))


def _scan(found: Scan) -> Iterator[str]:
    count = _count(len(found.tensors), "floating tensor")
    yield f"{found.path}: {count}, {nbytes(found.nbytes)} looked at in {found.seconds:.1f} s"
    for dtype in dict.fromkeys(each.dtype for each in found.tensors):
        of_it = [each for each in found.tensors if each.dtype is dtype]
        most = max(each.mantissa_bits for each in of_it)
        fit = sum(each.fits_bf16 for each in of_it)
        used = f"up to {most} mantissa bits in use"
        fits = "bf16 holds every value" if fit == len(of_it) else f"bf16 holds {fit:,} exactly"
        yield from _labelled(dtype.torch_name, [f"{_count(len(of_it), 'tensor')}, {used}; {fits}"])
    largest = max(found.tensors, key=lambda each: each.magnitude, default=None)
    if largest is not None:
        yield from _labelled("largest", [f"{largest.magnitude:.6g} in {largest.name}"])
    for label, named in (
        ("NaN", [f"{each.nan:,} in {each.name}" for each in found.tensors if each.nan]),
        (
            "infinite",
            [f"{each.infinite:,} in {each.name}" for each in found.tensors if each.infinite],
        ),
        ("all zero", [each.name for each in found.tensors if each.is_zero]),
    ):
        yield from _labelled(label, _shortened(named))
    if listed := list(_findings(found.findings)):
        yield ""
        yield from listed


def verification(verdict: Verification) -> str:
    """Return whether everything is as it should be, and what is not."""
    return _text(_verification(verdict))


def _verification(verdict: Verification) -> Iterator[str]:
    tensors = sum(shard.tensors for shard in verdict.shards)
    compared = f"{_count(tensors, 'tensor')} in {_count(len(verdict.shards), 'shard')}"
    if verdict.files:
        compared += f" and {_count(verdict.files, 'other file')}"
    if verdict.holds:
        yield f"{verdict.path}: verified, {compared} are what {verdict.against} becomes"
        return
    count = _count(len(verdict.differences), "difference")
    yield f"{verdict.path}: NOT what {verdict.against} becomes, {count}; compared {compared}"
    yield from (f"  {line}" for line in _shortened(list(map(str, verdict.differences))))
    bad = [shard for shard in verdict.shards if not shard.holds]
    if bad and len(verdict.shards) > 1:
        good = _count(len(verdict.shards) - len(bad), "shard")
        yield f"  {good} of {len(verdict.shards):,} as they should be; not so:"
        lines = [
            f"{each.name}, {_count(each.differing, 'tensor')} of {each.tensors:,}" for each in bad
        ]
        yield from (f"    {line}" for line in _shortened(lines))
    yield f"  {verdict.remedy}"


def _count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 shard", "6 shards"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _shortened(lines: Sequence[str]) -> Iterator[str]:
    """Yield the first *lines*, and how many more there are."""
    yield from lines[:_SHOWN]
    yield from _rest(len(lines))


def _rest(count: int) -> Iterator[str]:
    """Yield how many of *count* lines were not shown, if any."""
    if count > _SHOWN:
        yield f"and {count - _SHOWN:,} more; --json lists them all"


def _labelled(label: str, lines: Iterable[str]) -> Iterator[str]:
    """Yield *lines*, indented behind a label that stands before the first."""
    for line in lines:
        yield f"  {label:<10}{line}"
        label = ""


def _text(lines: Iterable[str]) -> str:
    """Return *lines* as one text, in which nothing but their ends breaks a line."""
    return "\n".join(map(printable, lines))


def table(rows: Sequence[Sequence[str]], left: int = 1) -> Iterator[str]:
    """Yield the lines of a table: the first *left* columns to the left, the others right."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"  {'  '.join(cells)}".rstrip()
