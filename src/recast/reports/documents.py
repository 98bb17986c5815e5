"""What the command says, as JSON documents; docs/recast.schema.json describes them.

In all of them a dtype is the tag that stands in safetensors headers ("BF16", "F32"), sizes
are in bytes, and files are named relative to the checkpoint, with "/".
"""

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from recast.dtypes import Dtype, named
from recast.errors import RecastError
from recast.formats.checkpoint import Checkpoint, DtypeShare, File, Weights, dtype_shares
from recast.formats.findings import Finding, findings
from recast.formats.hub_path import HubPath
from recast.planning.likeness import Likeness
from recast.planning.planner import Plan, make_plan
from recast.planning.policy import Kind, Policy
from recast.planning.publication import Publication
from recast.reports.conversion import Conversion
from recast.reports.evidence import Evidence
from recast.reports.loaders import loadings
from recast.reports.scan import Scan
from recast.reports.verification import Verification

Document = dict[str, Any]


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
        "findings": [_finding(each) for each in findings(checkpoint, base=base)],
        "other_files": [{"name": file.name, "bytes": file.size} for file in checkpoint.files],
        "left_out": _left_out(checkpoint.left_out),
        "base": checkpoint.base,
        "like_command": like_command(checkpoint),
    }


def like_command(checkpoint: Checkpoint) -> str | None:
    """Return the command that gives the tensors the dtypes of the base model, if one is named."""
    if checkpoint.base is None or any(each.name == "quantized" for each in findings(checkpoint)):
        return None
    return shlex.join(["recast", str(checkpoint.path), "--like", checkpoint.base])


def _finding(finding: Finding) -> Document:
    """Return one thing that is wrong or surprising."""
    return {
        "name": finding.name,
        "severity": finding.severity.value,
        "subject": finding.subject,
        "problem": finding.problem,
        "remedy": finding.remedy,
        "tensors": list(finding.tensors),
        "command": finding.command or None,
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
    return {"dtype": Dtype.BF16.value, "bytes_before": before, "bytes_after": after}


def plan_document(
    plan: Plan, target: Path | HubPath, push: Publication | None = None, url: str | None = None
) -> Document:
    """Return every file that would be written, and every tensor that would be kept."""
    return {
        "kind": "plan",
        "path": str(plan.checkpoint.path),
        "target": str(target) if plan.changes else None,
        "dtype": plan.policy.target.value,
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
        "cast": [
            {"file": shard.name, "tensor": tensor.name, "detail": tensor.reason.detail}
            for shard in plan.shards
            for tensor in shard.tensors
            if tensor.reason.kind is Kind.CAST and tensor.reason.detail
        ],
        "like": _like(plan.like),
        "only_documents": plan.only_documents,
        "left_out": _left_out(plan.checkpoint.left_out),
        "push": None if push is None else publication(push, url),
    }


def _like(like: Likeness | None) -> Document | None:
    """Return how much a base model says, and what it lacks."""
    if like is None:
        return None
    return {
        "base": like.path,
        "prefix": like.prefix,
        "tensors": like.matched,
        "lacking": [{"folder": home, "tensor": name} for home, name in like.lacking],
    }


def publication(made: Publication, url: str | None = None) -> Document:
    """Return what a commit to the Hub does, and where it is once it is made."""
    where = made.destination
    sets = {"added": made.added, "replaced": made.replaced, "deleted": made.deleted}
    return {
        "repository": where.repo,
        "exists": where.exists,
        "private": where.private,
        "owned": where.owned,
        "revision": where.revision,
        "pull_request": where.request,
        "parent": where.parent,
        **{
            name: [{"name": file, "bytes": size} for file, size in files.items()]
            for name, files in sets.items()
        },
        "unchanged": list(made.unchanged),
        "kept": list(made.kept),
        "url": url,
    }


def conversion(
    done: Conversion, push: Publication | None = None, url: str | None = None
) -> Document:
    """Return what was written, and the evidence of every tensor that was cast."""
    total = done.total
    cast = [(each, _evidence(shard.name, each)) for shard in done.shards for each in shard.evidence]
    return plan_document(done.plan, done.target or done.plan.default_target, push, url) | {
        "kind": "conversion",
        "found": done.found,
        "resumed_shards": done.resumed,
        "discarded": done.discarded,
        "seconds": round(done.seconds, 3),
        "evidence": {
            "tensors": total.tensors,
            "lossless_tensors": total.lossless,
            "changed_values": total.changed,
            "overflowed_values": total.overflowed,
            "underflowed_values": total.underflowed,
            "nan_values": total.nan,
            "worst": next((doc for each, doc in cast if each is total.worst), None),
            "most_overflowed": next(
                (doc for each, doc in cast if each is total.most_overflowed), None
            ),
        },
        "findings": [_finding(each) for each in done.findings],
        "tensors": [doc for _, doc in cast],
    }


def scan(found: Scan) -> Document:
    """Return what the stored values are, tensor by tensor."""
    return {
        "kind": "scan",
        "path": str(found.path),
        "bytes": found.nbytes,
        "seconds": round(found.seconds, 3),
        "findings": [_finding(each) for each in found.findings],
        "tensors": [
            {
                "file": each.shard,
                "tensor": each.name,
                "dtype": each.dtype.value,
                "parameters": each.parameters,
                "mantissa_bits": each.mantissa_bits,
                "fits_bf16": each.fits_bf16,
                "largest_magnitude": each.magnitude,
                "nan_values": each.nan,
                "infinite_values": each.infinite,
                "all_zero": each.is_zero,
            }
            for each in found.tensors
        ],
    }


def verification(verdict: Verification) -> Document:
    """Return whether everything is as it should be, and what is not."""
    return {
        "kind": "verification",
        "path": str(verdict.path),
        "against": str(verdict.against),
        "holds": verdict.holds,
        "shards": [
            {
                "name": shard.name,
                "holds": shard.holds,
                "tensors": shard.tensors,
                "differing_tensors": shard.differing,
            }
            for shard in verdict.shards
        ],
        "other_files": verdict.files,
        "remedy": verdict.remedy or None,
        "differences": [
            {"file": each.file, "tensor": each.tensor or None, "problem": each.problem}
            for each in verdict.differences
        ],
    }


def error(path: str, problem: RecastError) -> Document:
    """Return why nothing can be said of *path*."""
    return {
        "kind": "error",
        "path": path,
        "error": type(problem).__name__,
        "subject": problem.subject,
        "problem": problem.problem,
        "remedy": problem.remedy,
    }


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
            yield _claim(config.name, claim.path, claim.value)
    for weights in checkpoint.weights:
        if weights.index is not None and weights.index.dtype is not None:
            yield _claim(weights.index.name, ("metadata", "dtype"), weights.index.dtype)


def _claim(file: str, path: Iterable[str], value: str | None) -> Document:
    """Return one dtype key, and the dtype that its value names."""
    dtype = named(value)
    return {
        "file": file,
        "key": list(path),
        "value": value,
        "dtype": None if dtype is None else dtype.value,
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


def _left_out(files: Iterable[File]) -> list[Document]:
    """Return what lies in the folder and is no part of the model."""
    return [{"name": file.name, "bytes": file.size, "role": file.role.value} for file in files]


def _evidence(shard: str, evidence: Evidence) -> Document:
    """Return the evidence of one tensor."""
    return {
        "file": shard,
        "tensor": evidence.name,
        "from": evidence.source.value,
        "to": evidence.dtype.value,
        "lossless": evidence.lossless,
        "changed_values": evidence.changed,
        "largest_error": evidence.largest_error,
        "overflowed_values": evidence.overflowed,
        "largest_overflow": evidence.largest_overflow,
        "underflowed_values": evidence.underflowed,
        "nan_values": evidence.nan,
        "infinite_values": evidence.infinite,
        "largest_magnitude": evidence.magnitude,
        "mantissa_bits": evidence.mantissa_bits,
    }
