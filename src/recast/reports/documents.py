"""What the command says, as JSON documents; docs/recast.schema.json describes them."""

import math
from collections.abc import Iterator
from typing import Any

from recast.dtypes import Dtype
from recast.errors import RecastError
from recast.formats.checkpoint import Checkpoint, DtypeShare, Weights, dtype_shares
from recast.formats.findings import findings
from recast.planning.planner import Plan, make_plan
from recast.planning.policy import Policy
from recast.reports.conversion import Conversion
from recast.reports.evidence import Evidence
from recast.reports.verification import Verification

Document = dict[str, Any]


def inspection(checkpoint: Checkpoint) -> Document:
    """Return what is stored, claimed and wrong."""
    return {
        "kind": "inspection",
        "path": str(checkpoint.path),
        "bytes": checkpoint.size,
        "dtypes": list(_shares(checkpoint.dtypes)),
        "weights": [_weights(each) for each in checkpoint.weights],
        "claims": {
            config.name: {".".join(claim.path): claim.value for claim in config.claims}
            for config in checkpoint.configs.values()
        },
        "savings": savings(checkpoint),
        "findings": [
            {
                "name": finding.name,
                "severity": finding.severity.value,
                "subject": finding.subject,
                "problem": finding.problem,
                "remedy": finding.remedy,
            }
            for finding in findings(checkpoint)
        ],
        "files": [{"name": file.name, "bytes": file.size} for file in checkpoint.files],
        "left_out": [
            {"name": file.name, "bytes": file.size, "role": file.role.value}
            for file in checkpoint.left_out
        ],
    }


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
    return {"dtype": Dtype.BF16.torch_name, "bytes_before": before, "bytes_after": after}


def plan_document(plan: Plan) -> Document:
    """Return every file that would be written, and every tensor that would be kept."""
    return {
        "kind": "plan",
        "path": str(plan.checkpoint.path),
        "dtype": plan.policy.target.torch_name,
        "changes": plan.changes,
        "bytes_before": plan.size_before,
        "bytes_after": plan.size,
        "files": [
            {
                "name": file.name,
                "action": file.action.value,
                "bytes_before": file.size_before,
                "bytes_after": file.size,
            }
            for file in plan.files
        ],
        "kept": [
            {
                "file": shard,
                "tensor": tensor.name,
                "dtype": tensor.dtype.value,
                "reason": tensor.reason.kind.value,
                "detail": tensor.reason.detail,
            }
            for shard, tensor in plan.kept
        ],
        "left_out": [file.name for file in plan.checkpoint.left_out],
    }


def conversion(done: Conversion) -> Document:
    """Return what was written, and the evidence of every tensor that was cast."""
    total = done.total
    return plan_document(done.plan) | {
        "kind": "conversion",
        "target": None if done.target is None else str(done.target),
        "seconds": round(done.seconds, 3),
        "evidence": {
            "tensors": total.tensors,
            "lossless": total.lossless,
            "overflowed": total.overflowed,
            "worst": None if total.worst is None else _evidence(total.worst),
        },
        "tensors": [_evidence(each) for each in done.evidence],
    }


def verification(verdict: Verification) -> Document:
    """Return whether everything is as it should be, and what is not."""
    return {
        "kind": "verification",
        "path": str(verdict.path),
        "against": str(verdict.against),
        "holds": verdict.holds,
        "shards": [
            {"name": shard.name, "tensors": shard.tensors, "differing": shard.differing}
            for shard in verdict.shards
        ],
        "files": verdict.files,
        "differences": [
            {"file": each.file, "tensor": each.tensor, "problem": each.problem}
            for each in verdict.differences
        ],
    }


def error(path: str, problem: RecastError) -> Document:
    """Return why nothing can be said of *path*."""
    return {
        "kind": "error",
        "path": path,
        "subject": problem.subject,
        "problem": problem.problem,
        "remedy": problem.remedy,
    }


def _weights(weights: Weights) -> Document:
    """Return one loadable set of tensors."""
    index = weights.index
    return {
        "name": weights.name,
        "total_size": None if index is None else index.total_size,
        "bytes": weights.data_size,
        "dtypes": list(_shares(dtype_shares(weights.shards))),
        "shards": [
            {"name": shard.name, "bytes": shard.size, "tensors": len(shard.header.tensors)}
            for shard in weights.shards
        ],
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


def _evidence(evidence: Evidence) -> Document:
    """Return the evidence of one tensor."""
    error = evidence.largest_error
    return {
        "name": evidence.name,
        "from": evidence.source.value,
        "to": evidence.dtype.value,
        "lossless": evidence.lossless,
        "largest_error": error if math.isfinite(error) else None,
        "overflowed": evidence.overflowed,
    }
