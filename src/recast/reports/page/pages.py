"""What there is to show of each kind of result."""

from collections.abc import Mapping, Sequence

from recast.formats.checkpoint import Checkpoint
from recast.formats.findings import findings
from recast.planning.planner import TensorPlan
from recast.reports.conversion import Conversion
from recast.reports.evidence import Evidence, EvidenceTotal
from recast.reports.page.maps import dtype_map, error_map, mantissa_map, maps
from recast.reports.page.parts import Page, Table, Tile, bars, shares, table
from recast.reports.scan import Scan
from recast.reports.text import nbytes
from recast.reports.verification import Verification


def of_checkpoint(checkpoint: Checkpoint) -> Page:
    """Show what is stored."""
    tensors = [
        (shard.name, name, tensor)
        for shard in checkpoint.shards
        for name, tensor in shard.header.tensors.items()
    ]
    return Page(
        title=f"{checkpoint.path.name}: what is stored",
        sentence=f"{len(tensors):,} tensors in {len(checkpoint.shards):,} weights files.",
        tiles=(
            Tile("weights", nbytes(checkpoint.size)),
            Tile("tensors", f"{len(tensors):,}"),
            Tile("parameters", f"{sum(share.parameters for share in checkpoint.dtypes):,}"),
        ),
        bars=bars((("stored", checkpoint.dtypes),)),
        maps=maps(dtype_map((name, tensor.dtype) for _, name, tensor in tensors)),
        findings=findings(checkpoint),
        tables=(
            table(
                "Tensors",
                ("tensor", "dtype", "shape", "bytes", "file"),
                (
                    (name, tensor.dtype.torch_name, _shape(tensor.shape), tensor.nbytes, shard)
                    for shard, name, tensor in tensors
                ),
            ),
        ),
    )


def of_conversion(done: Conversion) -> Page:
    """Show what was written, and what rounding did."""
    made = done.plan
    target = made.policy.target.torch_name
    tensors = [(shard.name, tensor) for shard in made.shards for tensor in shard.tensors]
    evidence = {(shard.name, each.name): each for shard in done.shards for each in shard.evidence}
    before = made.checkpoint.dtypes
    return Page(
        title=f"{made.checkpoint.path.name}: converted to {target}",
        sentence=_said_of(done.total) if evidence else "Nothing had to be cast.",
        tiles=(
            Tile("before", nbytes(made.size_before)),
            Tile("after", nbytes(made.size)),
            Tile("tensors cast", f"{done.total.tensors:,} of {len(tensors):,}"),
            Tile("lossless", f"{done.total.lossless:,}"),
            Tile("values changed", f"{done.total.changed:,}"),
            Tile("became infinite", f"{done.total.overflowed:,}"),
            Tile("became zero", f"{done.total.underflowed:,}"),
            Tile("NaN", f"{done.total.nan:,}"),
        ),
        bars=bars((("before", before), ("after", shares(tensor for _, tensor in tensors)))),
        maps=maps(
            dtype_map((tensor.name, tensor.dtype) for _, tensor in tensors),
            error_map(evidence.values()),
        ),
        findings=(*findings(made.checkpoint), *done.findings),
        tables=(_evidence_table(tensors, evidence),),
    )


def of_scan(found: Scan) -> Page:
    """Show what the values are."""
    narrow = sum(each.fits_bf16 for each in found.tensors)
    return Page(
        title=f"{found.path.name}: what its values need",
        sentence=f"bf16 holds all values of {narrow:,} of {len(found.tensors):,} floating tensors.",
        tiles=(
            Tile("looked at", nbytes(found.nbytes)),
            Tile("NaN", f"{sum(each.nan for each in found.tensors):,}"),
            Tile("infinite", f"{sum(each.infinite for each in found.tensors):,}"),
            Tile("all zero", f"{sum(each.is_zero for each in found.tensors):,}"),
        ),
        maps=maps(mantissa_map(found.tensors)),
        findings=tuple(found.findings),
        tables=(
            table(
                "Tensors",
                ("tensor", "dtype", "mantissa bits", "largest", "NaN", "infinite", "file"),
                (
                    (
                        each.name,
                        each.dtype.torch_name,
                        each.mantissa_bits,
                        each.magnitude,
                        each.nan,
                        each.infinite,
                        each.shard,
                    )
                    for each in found.tensors
                ),
            ),
        ),
    )


def of_verification(verdict: Verification) -> Page:
    """Show whether everything is as it should be."""
    tensors = sum(shard.tensors for shard in verdict.shards)
    holds = "is" if verdict.holds else "is NOT"
    return Page(
        title=f"{verdict.path.name}: verified against {verdict.against.name}",
        sentence=f"It {holds} what {verdict.against} becomes.",
        tiles=(
            Tile("tensors compared", f"{tensors:,}"),
            Tile("other files", f"{verdict.files:,}"),
            Tile("differences", f"{len(verdict.differences):,}"),
        ),
        tables=(
            table(
                "Differences",
                ("file", "tensor", "what is the matter"),
                ((each.file, each.tensor, each.problem) for each in verdict.differences),
            ),
            table(
                "Weights files",
                ("file", "tensors", "differing"),
                ((each.name, each.tensors, each.differing) for each in verdict.shards),
            ),
        ),
    )


def _said_of(total: EvidenceTotal) -> str:
    """Return what rounding did, in a sentence."""
    if total.worst is None:
        return f"Lossless: no value of {total.tensors:,} cast tensors changed."
    lossy = total.tensors - total.lossless
    return (
        f"{lossy:,} of {total.tensors:,} cast tensors were rounded; the largest error of a value "
        f"is {total.worst.largest_error:.3g}, in {total.worst.name}."
    )


def _evidence_table(
    tensors: Sequence[tuple[str, TensorPlan]], evidence: Mapping[tuple[str, str], Evidence]
) -> Table:
    """Return what was decided of each tensor, and what rounding did to it: the worst first."""

    def row(shard: str, tensor: TensorPlan) -> tuple[object, ...]:
        found = evidence.get((shard, tensor.name))
        facts: tuple[object, ...] = ("", "", "", "", "")
        if found is not None:
            facts = (
                found.largest_error,
                found.changed,
                found.overflowed,
                found.underflowed,
                found.magnitude,
            )
        names = tensor.source.dtype.torch_name, tensor.dtype.torch_name
        return (tensor.name, *names, str(tensor.reason), *facts, tensor.source.parameters, shard)

    rows = sorted((row(*each) for each in tensors), key=lambda cells: -(_number(cells[4]) or 0))
    columns = ("tensor", "was", "is", "why", "largest error", "changed", "became infinite")
    return table("Tensors", (*columns, "became zero", "largest value", "parameters", "file"), rows)


def _number(cell: object) -> float | None:
    """Return a cell's number, if it holds one."""
    return float(cell) if isinstance(cell, (int, float)) else None


def _shape(shape: Sequence[int]) -> str:
    """Return a shape as people write it."""
    return " x ".join(map(str, shape)) or "scalar"
