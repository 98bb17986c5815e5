"""What there is to show of each kind of result."""

import shlex
from collections.abc import Mapping, Sequence

from recast.dtypes import Dtype
from recast.errors import RecastError
from recast.formats.checkpoint import Checkpoint, DtypeShare
from recast.formats.findings import Finding, findings
from recast.planning.plan import TensorPlan
from recast.planning.planner import make_plan
from recast.planning.policy import Policy
from recast.reports.conversion import Conversion
from recast.reports.evidence import Evidence
from recast.reports.loaders import loadings
from recast.reports.page.maps import dtype_map, error_map, mantissa_map, maps
from recast.reports.page.parts import Page, Table, Tile, bars, shares, table
from recast.reports.scan import Scan
from recast.reports.text import counted, nbytes
from recast.reports.verification import Verification

_EVIDENCE = (
    *("largest error", "values changed", "became infinite", "became zero", "NaN"),
    *("mantissa bits", "largest value"),
)


def of_checkpoint(checkpoint: Checkpoint) -> Page:
    """Show what is stored."""
    tensors = [
        (shard.name, name, tensor)
        for shard in checkpoint.shards
        for name, tensor in shard.header.tensors.items()
    ]
    rows = (
        (name, tensor.dtype.torch_name, _shape(tensor.shape), tensor.nbytes, shard)
        for shard, name, tensor in tensors
    )
    return Page(
        title=f"{checkpoint.path.name}: what is stored",
        sentence=(
            f"{counted(len(tensors), 'tensor')} in "
            f"{counted(len(checkpoint.shards), 'weights file')}."
        ),
        about=f"What the headers of the files in {checkpoint.path} say. No value was read.",
        tiles=(
            Tile("weights", nbytes(checkpoint.size)),
            Tile("tensors", f"{len(tensors):,}"),
            Tile("parameters", f"{sum(share.parameters for share in checkpoint.dtypes):,}"),
        ),
        bars=bars((("stored", checkpoint.dtypes), *_in_bf16(checkpoint))),
        maps=maps(dtype_map((name, tensor.dtype) for _, name, tensor in tensors)),
        findings=_groups(("Findings", findings(checkpoint))),
        tables=(
            _loads_table(checkpoint),
            table("Tensors", ("tensor", "dtype", "shape", "bytes", "file"), rows),
        ),
    )


def of_conversion(done: Conversion) -> Page:
    """Show what was written, and what rounding did."""
    made, total = done.plan, done.total
    target = made.policy.target.torch_name
    tensors = [(shard.name, tensor) for shard in made.shards for tensor in shard.tensors]
    evidence = {(shard.name, each.name): each for shard in done.shards for each in shard.evidence}
    after = shares(tensor for _, tensor in tensors)
    measured = (
        Tile("tensors cast", f"{total.tensors:,} of {len(tensors):,}"),
        Tile("of them lossless", f"{total.lossless:,}"),
        Tile("values changed", f"{total.changed:,}"),
        Tile("became infinite", f"{total.overflowed:,}"),
        Tile("became zero", f"{total.underflowed:,}"),
        Tile("NaN", f"{total.nan:,}"),
    )
    return Page(
        title=f"{made.checkpoint.path.name}: converted to {target}",
        sentence=_said_of(done),
        about=(
            f"{made.checkpoint.path} was rewritten in {target}, into {done.target or 'nothing'}: "
            "each value became the nearest one that the new dtype has. Tensors that are known to "
            "need theirs were kept, and the table says why."
        ),
        tiles=(
            Tile("before", nbytes(made.size_before)),
            Tile("after", nbytes(made.size)),
            *(() if done.found else measured),
        ),
        bars=bars((("before", made.checkpoint.dtypes), ("after", after))),
        maps=maps(
            dtype_map((tensor.name, tensor.dtype) for _, tensor in tensors),
            error_map(evidence.values()),
        ),
        findings=_groups(
            ("Findings: the values", tuple(done.findings)),
            ("Findings: the source, as it was", findings(made.checkpoint)),
        ),
        tables=(_evidence_table(tensors, evidence),),
    )


def of_scan(found: Scan) -> Page:
    """Show what the values are."""
    narrow = sum(each.fits_bf16 for each in found.tensors)
    columns = ("tensor", "dtype", "mantissa bits", "largest value", "NaN", "infinite", "all zero")
    rows = (
        (
            *(each.name, each.dtype.torch_name, each.mantissa_bits, each.magnitude),
            *(each.nan, each.infinite, "yes" if each.is_zero else None, each.shard),
        )
        for each in found.tensors
    )
    return Page(
        title=f"{found.path.name}: what its values need",
        sentence=f"bf16 holds all values of {narrow:,} of {len(found.tensors):,} floating tensors.",
        about=(
            f"Every value in {found.path} was read. Behind its leading bit, a value uses at most "
            "23 bits of mantissa in fp32, 10 in fp16 and 7 in bf16: one that uses no more than "
            "7 loses nothing in bf16."
        ),
        tiles=(
            Tile("looked at", nbytes(found.nbytes)),
            Tile("NaN", f"{sum(each.nan for each in found.tensors):,}"),
            Tile("infinite", f"{sum(each.infinite for each in found.tensors):,}"),
            Tile("tensors all zero", f"{sum(each.is_zero for each in found.tensors):,}"),
        ),
        maps=maps(mantissa_map(found.tensors)),
        findings=_groups(("Findings", tuple(found.findings))),
        tables=(table("Tensors", (*columns, "file"), rows, falling="mantissa bits"),),
    )


def of_verification(verdict: Verification) -> Page:
    """Show whether everything is as it should be."""
    holds = "is" if verdict.holds else "is NOT"
    differences = ((each.file, each.tensor, each.problem) for each in verdict.differences)
    notes = ((each.file, each.tensor, each.problem) for each in verdict.notes)
    shards = (
        (each.name, "as it should be" if each.holds else "NOT", each.tensors, each.differing)
        for each in verdict.shards
    )
    return Page(
        title=f"{verdict.path.name}: verified against {verdict.against.name}",
        sentence=f"{verdict.path} {holds} what {verdict.against} becomes.",
        about=verdict.remedy
        or "The source was cast again, and every bit, name and file compared with the result.",
        tiles=(
            Tile("tensors compared", f"{verdict.tensors:,}"),
            *(Tile(f"cast to {dtype.torch_name}", f"{n:,}") for dtype, n in verdict.casts),
            Tile("other files", f"{verdict.files:,}"),
            Tile("differences", f"{len(verdict.differences):,}"),
        ),
        tables=(
            table("Differences", ("file", "tensor", "what is the matter"), differences),
            table("Notes", ("file", "tensor", "what the cast has done"), notes),
            table("Weights files", ("file", "verdict", "tensors", "of them differing"), shards),
        ),
    )


def _groups(
    *groups: tuple[str, tuple[Finding, ...]],
) -> tuple[tuple[str, tuple[Finding, ...]], ...]:
    """Return those groups of findings that have any."""
    return tuple((title, found) for title, found in groups if found)


def _in_bf16(checkpoint: Checkpoint) -> tuple[tuple[str, Sequence[DtypeShare]], ...]:
    """Return what a conversion to bf16 would store; nothing if it would be refused."""
    try:
        plan = make_plan(checkpoint, Policy(Dtype.BF16))
    except RecastError:
        return ()
    return (("as bf16", shares(each for shard in plan.shards for each in shard.tensors)),)


def _loads_table(checkpoint: Checkpoint) -> Table:
    """Return in which dtype programs would load it."""

    def said(dtype: Dtype | None) -> str:
        return dtype.torch_name if dtype else "fails"

    loads = loadings(checkpoint)
    converted = any(each.after for each in loads)
    rows = (
        (each.loader, each.option, said(each.before), said(each.after) if converted else None)
        for each in loads
    )
    return table("Loaded by", ("program", "told", "as it is", "as bf16"), rows)


def _said_of(done: Conversion) -> str:
    """Return what rounding did, in a sentence or two."""
    if done.found:
        command = shlex.join(
            ["recast", str(done.target), "--against", str(done.plan.checkpoint.path)]
        )
        return (
            f"{done.target} was there already: what rounding did was measured by the run that made "
            f"it. This compares every bit of it with the source: {command}"
        )
    total = done.total
    if not total.tensors:
        return "Nothing had to be cast."
    if total.lossless == total.tensors:
        return f"Lossless: no value of {total.tensors:,} cast tensors changed."
    said = f"{total.rounded:,} of {total.tensors:,} cast tensors were rounded"
    if total.worst is not None:
        error = f"{total.worst.largest_error:.3g}, in {done.name_of(total.worst)}"
        said += f"; the largest error of a value is {error}"
    said += "."
    if total.overflowed:
        said += f" {total.overflowed:,} finite values became infinite."
    if total.vanished:
        said += f" Of {total.vanished:,}, every value that was not zero became zero."
    return said


def _evidence_table(
    tensors: Sequence[tuple[str, TensorPlan]], evidence: Mapping[tuple[str, str], Evidence]
) -> Table:
    """Return what was decided of each tensor, and what rounding did to it: the worst first."""

    def row(shard: str, tensor: TensorPlan) -> tuple[object, ...]:
        found = evidence.get((shard, tensor.name))
        facts: tuple[object, ...] = (None,) * len(_EVIDENCE)
        if found is not None:
            facts = (
                *(found.largest_error, found.changed, found.overflowed, found.underflowed),
                *(found.nan, found.mantissa_bits, found.magnitude),
            )
        names = tensor.source.dtype.torch_name, tensor.dtype.torch_name
        parameters = tensor.source.parameters
        return (tensor.name, *names, *facts, parameters, shard, str(tensor.reason))

    columns = ("tensor", "was", "is", *_EVIDENCE, "parameters", "file", "why")
    return table("Tensors", columns, (row(*each) for each in tensors), falling="largest error")


def _shape(shape: Sequence[int]) -> str:
    """Return a shape as people write it."""
    return " x ".join(map(str, shape)) or "scalar"
