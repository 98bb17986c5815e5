"""What the command says, as text for a terminal."""

from collections import Counter
from collections.abc import Iterator, Sequence

from recast.formats.checkpoint import Checkpoint, DtypeShare, File
from recast.formats.findings import Finding, findings
from recast.planning.planner import Plan
from recast.reports import documents
from recast.reports.conversion import Conversion
from recast.reports.verification import Verification

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")
_KILO = 1000
_SHOWN = 20  # lines of one kind, before the rest is counted only


def nbytes(count: float) -> str:
    """Return a number of bytes with a decimal unit, as the Hub's pages show it."""
    for unit in _UNITS:
        if abs(count) < _KILO or unit == _UNITS[-1]:
            break
        count /= _KILO
    return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.2f} {unit}"


def inspection(checkpoint: Checkpoint) -> str:
    """Return what is stored, claimed and wrong."""
    return "\n".join(_inspection(checkpoint))


def _inspection(checkpoint: Checkpoint) -> Iterator[str]:
    shards = len(checkpoint.shards)
    kinds = ", ".join(weights.name for weights in checkpoint.weights)
    yield f"{checkpoint.path}"
    yield f"  stored    {kinds}: {_count(shards, 'shard')}, {nbytes(checkpoint.size)}"
    yield ""
    yield from _indented(_table(*_dtype_rows(checkpoint.dtypes)))
    yield ""
    yield from _claims(checkpoint)
    if saved := documents.savings(checkpoint):
        before, after = saved["bytes_before"], saved["bytes_after"]
        if before == after:
            yield "  to bf16   saves nothing"
        else:
            share = (before - after) / before
            verb = f"saves {nbytes(before - after)} ({share:.0%})"
            verb = verb if after < before else f"takes {nbytes(after - before)} more"
            yield f"  to bf16   {nbytes(after)}: {verb}"
    yield from _left_out(checkpoint.left_out)
    found = findings(checkpoint)
    if found:
        yield ""
        yield from _shortened([_finding(each) for each in found])


def _finding(finding: Finding) -> str:
    return f"  {finding.severity.value:<8}{finding.name}: {finding}"


def _claims(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what config and index say, in the words of their files."""
    claims = []
    for config in checkpoint.configs.values():
        said = ", ".join(map(str, config.claims)) or "no dtype"
        claims.append(f"{config.name}: {said}")
    for weights in checkpoint.weights:
        if weights.index is not None:
            dtype = f", dtype = {weights.index.dtype}" if weights.index.dtype else ""
            claims.append(f"{weights.name}: total_size = {weights.index.total_size}{dtype}")
    for label, claim in zip(("claimed", *[""] * len(claims)), claims, strict=False):
        yield f"  {label:<10}{claim}"


def _left_out(files: Sequence[File]) -> Iterator[str]:
    """Yield what is no part of the model, by the top of its path."""
    sizes: Counter[tuple[str, str]] = Counter()
    for file in files:
        top, slash, _ = file.name.partition("/")
        sizes[top + slash, file.role.value] += file.size
    for label, ((top, why), size) in zip(
        ("left out", *[""] * len(sizes)), sorted(sizes.items()), strict=False
    ):
        yield f"  {label:<10}{top} ({why}, {nbytes(size)})"


def _dtype_rows(shares: Sequence[DtypeShare]) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of dtypes."""
    whole = sum(share.nbytes for share in shares)
    rows = [
        [
            share.dtype.torch_name,
            f"{share.tensors:,}",
            f"{share.parameters:,}",
            nbytes(share.nbytes),
            f"{share.nbytes / whole if whole else 0:.1%}",
        ]
        for share in shares
    ]
    return ["dtype", "tensors", "parameters", "bytes", "share"], rows


def plan(made: Plan, target: object) -> str:
    """Return every file that would be written, and every tensor that would be kept."""
    return "\n".join(_plan(made, target))


def _plan(made: Plan, target: object) -> Iterator[str]:
    name = made.policy.target.torch_name
    if not made.changes:
        yield f"{made.checkpoint.path}: nothing to do, all is {name} already"
    else:
        yield f"{made.checkpoint.path} to {name}, into {target}"
        rows = [
            [file.action.value, file.name, f"{file.size_before:,}", f"{file.size:,}"]
            for file in made.files
        ]
        rows.append(["", "in all", f"{made.size_before:,}", f"{made.size:,}"])
        yield from _indented(_table(["", "file", "bytes before", "bytes after"], rows, left=2))
    kept = [
        f"  kept {tensor.dtype.torch_name}: {tensor.name} ({tensor.reason})"
        for _, tensor in made.kept
    ]
    yield from _shortened(kept)
    yield from _left_out(made.checkpoint.left_out)


def conversion(done: Conversion) -> str:
    """Return what was written, and what rounding did."""
    return "\n".join(_conversion(done))


def _conversion(done: Conversion) -> Iterator[str]:
    name = done.plan.policy.target.torch_name
    if done.target is None:
        yield f"{done.plan.checkpoint.path}: nothing to do, all is {name} already"
        return
    sizes = f"{nbytes(done.plan.size_before)} to {nbytes(done.plan.size)}"
    yield f"{done.target}: {name}, {sizes} in {done.seconds:.1f} s"
    kept = Counter(str(tensor.reason) for _, tensor in done.plan.kept)
    for reason, count in kept.items():
        yield f"  {_count(count, 'tensor')} kept: {reason}"
    yield from _left_out(done.plan.checkpoint.left_out)
    total = done.total
    if not total.tensors:
        return
    if total.worst is None:
        yield f"  lossless: all {_count(total.tensors, 'tensor')} hold the values they held"
        return
    yield (
        f"  rounded: {total.lossless} of {_count(total.tensors, 'tensor')} lossless, "
        f"largest error {total.worst.largest_error:.3g} in {total.worst.name}"
    )
    if total.overflowed:
        yield (
            f"  OVERFLOW: {total.overflowed:,} finite values became infinite, "
            f"most of them in {total.worst.name}"
        )


def verification(verdict: Verification) -> str:
    """Return whether everything is as it should be, and what is not."""
    tensors = sum(shard.tensors for shard in verdict.shards)
    compared = (
        f"{_count(tensors, 'tensor')} in {_count(len(verdict.shards), 'shard')} "
        f"and {_count(verdict.files, 'other file')}"
    )
    if verdict.holds:
        return f"{verdict.path}: verified, {compared} are what {verdict.against} becomes"
    count = _count(len(verdict.differences), "difference")
    return "\n".join(
        [
            f"{verdict.path}: NOT what {verdict.against} becomes: {count} in {compared}",
            *_shortened([f"  {each}" for each in verdict.differences]),
            "  convert it again, into a new folder",
        ]
    )


def _count(number: int, noun: str) -> str:
    """Return a number with its noun: "1 shard", "6 shards"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _shortened(lines: Sequence[str]) -> Iterator[str]:
    """Yield the first *lines*, and how many more there are."""
    yield from lines[:_SHOWN]
    if len(lines) > _SHOWN:
        yield f"  and {len(lines) - _SHOWN:,} more; --json lists them all"


def _indented(lines: Iterator[str]) -> Iterator[str]:
    yield from (f"  {line}".rstrip() for line in lines)


def _table(head: list[str], rows: list[list[str]], left: int = 1) -> Iterator[str]:
    """Yield the lines of a table: the first *left* columns to the left, the others right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for row in (head, *rows):
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells)
