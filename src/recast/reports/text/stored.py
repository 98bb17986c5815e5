"""What lies in a checkpoint, as text."""

from collections.abc import Iterator, Sequence

from recast.formats.checkpoint import Checkpoint, DtypeShare, Weights
from recast.formats.findings import findings
from recast.reports import documents
from recast.reports.loaders import Loading, loadings
from recast.reports.text.lines import (
    counted,
    findings_lines,
    joined,
    labelled,
    left_out,
    nbytes,
    table,
)

_LEAST_SHARE = 0.0005  # what "0.1%" is rounded from


def inspection(checkpoint: Checkpoint, base: Checkpoint | None = None) -> str:
    """Return what is stored, claimed and wrong, beside the model it was made from if known."""
    return joined(_inspection(checkpoint, base))


def _inspection(checkpoint: Checkpoint, base: Checkpoint | None) -> Iterator[str]:
    yield str(checkpoint.path)
    yield from labelled("stored", map(_stored, checkpoint.weights))
    yield ""
    yield from _dtypes(checkpoint.dtypes)
    said = [
        *labelled("claimed", _claims(checkpoint)),
        *labelled("to bf16", _savings(checkpoint)),
        *labelled("base", _base(checkpoint)),
        *left_out(checkpoint.left_out),
    ]
    loads = list(_loads(loadings(checkpoint)))
    for block in (said, loads, list(findings_lines(findings(checkpoint, base=base)))):
        if block:
            yield ""
            yield from block


def _stored(weights: Weights) -> str:
    """Return the files and bytes of one loadable set of tensors."""
    size = nbytes(sum(shard.size for shard in weights.shards))
    if weights.index is None:
        return f"{weights.name}: {size}"
    shards = counted(len(weights.index.shards), "shard")
    if weights.missing_shards:
        shards = f"{len(weights.shards):,} of {shards}"
    return f"{weights.name}: {shards}, {size}"


def _claims(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield what config and index say, in the words of their files."""
    for config in checkpoint.configs.values():
        yield f"{config.name}: {', '.join(map(str, config.claims)) or 'no dtype'}"
    for weights in checkpoint.weights:
        if (index := weights.index) is not None:
            size, claim = index.total_size, index.claim
            said = "no total_size" if size is None else f"total_size = {size}"
            yield f"{index.name}: {said}" + (f", {claim}" if claim else "")


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
