"""What would be done, as a document."""

from pathlib import Path

from recast.formats.hub_path import HubPath
from recast.planning.likeness import Likeness
from recast.planning.plan import Plan
from recast.planning.policy import Kind
from recast.planning.publication import Publication
from recast.reports.documents.parts import Document, left_out


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
        "left_out": left_out(plan.checkpoint.left_out),
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
