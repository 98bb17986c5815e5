"""What was done, and what was found, as text."""

from collections import Counter
from collections.abc import Iterator

from recast.reports.conversion import Conversion
from recast.reports.scan import Scan
from recast.reports.text.lines import (
    counted,
    findings_lines,
    joined,
    labelled,
    left_out,
    nbytes,
    shortened,
)
from recast.reports.text.planned import cast, like, nothing_to_do
from recast.reports.verification import ShardVerdict, Verification


def conversion(done: Conversion, url: str | None = None) -> str:
    """Return what was written, and where it was published, and what rounding did."""
    said = joined(_conversion(done))
    return said if url is None else f"{said}\n{joined(labelled('pushed', [url]))}"


def _conversion(done: Conversion) -> Iterator[str]:
    made = done.plan
    if done.target is None:
        yield nothing_to_do(made)
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
        yield from labelled("discarded", [left])
    if done.resumed:
        whole = counted(sum(shard.changes for shard in made.shards), "shard")
        yield from labelled("resumed", [f"{done.resumed:,} of {whole} had been converted before"])
    kept = Counter(str(tensor.reason) for _, tensor in made.kept)
    lines = [f"{counted(count, 'tensor')}: {reason}" for reason, count in kept.items()]
    yield from labelled("kept", shortened(lines))
    yield from cast(made)
    yield from like(made.like)
    yield from left_out(made.checkpoint.left_out)
    yield from _rounding(done)
    yield from findings_lines(done.findings)


def _rounding(done: Conversion) -> Iterator[str]:
    """Yield what the casts did to the values."""
    total = done.total
    cast = counted(total.tensors, "tensor")
    if total.tensors and total.lossless == total.tensors:
        yield from labelled("lossless", [f"no value changed in {cast}"])
    if total.worst is not None:
        error = f"largest error {total.worst.largest_error:.3g} in {done.name_of(total.worst)}"
        yield from labelled("rounded", [f"{total.rounded:,} of {cast}, {error}"])
    for label, count, became, most in (
        ("overflow", total.overflowed, "infinite", total.most_overflowed),
        ("zeroed", total.underflowed, "zero", total.most_underflowed),
    ):
        if most is not None:
            what = f"{counted(count, 'value')} became {became}"
            yield from labelled(label, [f"{what}, most in {done.name_of(most)}"])


def scan(found: Scan) -> str:
    """Return what the stored values are."""
    return joined(_scan(found))


def _scan(found: Scan) -> Iterator[str]:
    count = counted(len(found.tensors), "floating tensor")
    yield f"{found.path}: {count}, {nbytes(found.nbytes)} looked at in {found.seconds:.1f} s"
    for dtype in dict.fromkeys(each.dtype for each in found.tensors):
        of_it = [each for each in found.tensors if each.dtype is dtype]
        most = max(each.mantissa_bits for each in of_it)
        fit = sum(each.fits_bf16 for each in of_it)
        used = f"up to {most} mantissa bits in use"
        fits = "bf16 holds every value" if fit == len(of_it) else f"bf16 holds {fit:,} exactly"
        yield from labelled(dtype.torch_name, [f"{counted(len(of_it), 'tensor')}, {used}; {fits}"])
    if found.skipped:
        count = counted(sum(count for _, count in found.skipped), "tensor")
        dtypes = ", ".join(dtype.torch_name for dtype, _ in found.skipped)
        yield from labelled("skipped", [f"{count} not looked at: {dtypes}"])
    largest = max(found.tensors, key=lambda each: each.magnitude, default=None)
    if largest is not None:
        yield from labelled("largest", [f"{largest.magnitude:.6g} in {largest.name}"])
    for label, named in (
        ("NaN", [f"{each.nan:,} in {each.name}" for each in found.tensors if each.nan]),
        (
            "infinite",
            [f"{each.infinite:,} in {each.name}" for each in found.tensors if each.infinite],
        ),
        ("all zero", [each.name for each in found.tensors if each.is_zero]),
    ):
        yield from labelled(label, shortened(named))
    if listed := list(findings_lines(found.findings)):
        yield ""
        yield from listed


def verification(verdict: Verification) -> str:
    """Return whether everything is as it should be, and what is not."""
    return joined(_verification(verdict))


def _verification(verdict: Verification) -> Iterator[str]:
    compared = f"{counted(verdict.tensors, 'tensor')} in {counted(len(verdict.shards), 'shard')}"
    if verdict.files:
        compared += f" and {counted(verdict.files, 'other file')}"
    if verdict.holds:
        yield f"{verdict.path}: verified, {compared} are what {verdict.against} becomes"
        yield from _casts(verdict)
        return
    count = counted(len(verdict.differences), "difference")
    yield f"{verdict.path}: NOT what {verdict.against} becomes, {count}; compared {compared}"
    yield from _casts(verdict)
    yield from (f"  {line}" for line in shortened(list(map(str, verdict.differences))))
    bad = [shard for shard in verdict.shards if not shard.holds]
    if bad and len(verdict.shards) > 1:
        good = counted(len(verdict.shards) - len(bad), "shard")
        yield f"  {good} of {len(verdict.shards):,} as they should be; not so:"
        yield from (f"    {line}" for line in shortened(list(map(_verdict, bad))))
    yield f"  {verdict.remedy}"


def _casts(verdict: Verification) -> Iterator[str]:
    """Yield how many tensors were cast to which dtype, and of which nothing is left by it."""
    if verdict.casts:
        said = [f"{count:,} to {dtype.torch_name}" for dtype, count in verdict.casts]
        yield from labelled("cast", [f"{', '.join(said)}, of {counted(verdict.tensors, 'tensor')}"])
    yield from labelled("note", shortened(list(map(str, verdict.notes))))


def _verdict(shard: ShardVerdict) -> str:
    """Return how much of a shard is not as it should be."""
    if not shard.differing:
        return f"{shard.name}, its header metadata alone"
    return f"{shard.name}, {counted(shard.differing, 'tensor')} of {shard.tensors:,}"
