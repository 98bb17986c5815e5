"""What lies in a checkpoint, as a document."""

import shlex
from collections.abc import Iterator

from recast.dtypes import Dtype
from recast.errors import RecastError
from recast.formats.checkpoint import Checkpoint, DtypeShare, Weights, dtype_shares
from recast.formats.config import DtypeClaim
from recast.formats.findings import findings
from recast.planning.planner import make_plan
from recast.planning.policy import Policy
from recast.reports.documents.parts import Document, finding, left_out
from recast.reports.loaders import loadings


def inspection(checkpoint: Checkpoint, base: Checkpoint | None = None) -> Document:
    """Return what is stored, claimed and wrong, beside the model it was made from if known."""
    return {
        "kind": "inspection",
        "path": str(checkpoint.path),
        "bytes": checkpoint.size,
        "dtypes": list(_shares(checkpoint.dtypes)),
        "weights": [_weights(each) for each in checkpoint.weights],
        "claims": list(_claims(checkpoint)),
        "savings": savings(checkpoint),
        "loads": [
            {
                "loader": each.loader,
                "option": each.option,
                "as_is": each.before.value if each.before else None,
                "converted": each.after.value if each.after else None,
            }
            for each in loadings(checkpoint)
        ],
        "findings": [finding(each) for each in findings(checkpoint, base=base)],
        "other_files": [{"name": file.name, "bytes": file.size} for file in checkpoint.files],
        "left_out": left_out(checkpoint.left_out),
        "base": checkpoint.base,
        "like_command": like_command(checkpoint),
    }


def like_command(checkpoint: Checkpoint) -> str | None:
    """Return the command that gives the tensors the dtypes of the base model, if one is named."""
    if checkpoint.base is None or any(each.name == "quantized" for each in findings(checkpoint)):
        return None
    return shlex.join(["recast", str(checkpoint.path), "--like", checkpoint.base])


def savings(checkpoint: Checkpoint) -> Document | None:
    """Return what converting to bf16 would save, in bytes; None if it would be refused."""
    try:
        plan = make_plan(checkpoint, Policy(Dtype.BF16))
    except RecastError:
        return None
    before, after = (
        sum(shard.size_before for shard in plan.shards),
        sum(shard.size for shard in plan.shards),
    )
    return {"dtype": Dtype.BF16.value, "bytes_before": before, "bytes_after": after}


def _weights(weights: Weights) -> Document:
    """Return one loadable set of tensors."""
    index = weights.index
    return {
        "name": weights.name,
        "bytes": sum(shard.size for shard in weights.shards),
        "tensor_bytes": weights.data_size,
        "total_size": None if index is None else _whole_number(index.total_size),
        "dtypes": list(_shares(dtype_shares(weights.shards))),
        "shards": [
            {"name": shard.name, "bytes": shard.size, "tensors": len(shard.header.tensors)}
            for shard in weights.shards
        ],
        "missing_shards": list(weights.missing_shards),
    }


def _whole_number(claim: object) -> int | None:
    """Return what an index claims as a number; None if it is none, or NaN, which is no JSON."""
    if isinstance(claim, float) and claim.is_integer():
        return int(claim)
    return claim if isinstance(claim, int) and not isinstance(claim, bool) else None


def _claims(checkpoint: Checkpoint) -> Iterator[Document]:
    """Yield every dtype key, of configs and of index metadata."""
    for config in checkpoint.configs.values():
        for claim in config.claims:
            yield _claim(config.name, claim)
    for weights in checkpoint.weights:
        if weights.index is not None and (said := weights.index.claim) is not None:
            yield _claim(weights.index.name, said)


def _claim(file: str, claim: DtypeClaim) -> Document:
    """Return one dtype key, and the dtype that its value names."""
    return {
        "file": file,
        "key": list(claim.path),
        "value": claim.value,
        "dtype": None if claim.dtype is None else claim.dtype.value,
    }


def _shares(shares: tuple[DtypeShare, ...]) -> Iterator[Document]:
    """Yield what each dtype amounts to."""
    whole = sum(share.nbytes for share in shares)
    for share in shares:
        yield {
            "dtype": share.dtype.value,
            "tensors": share.tensors,
            "parameters": share.parameters,
            "bytes": share.nbytes,
            "share": share.nbytes / whole if whole else 0.0,
        }
