"""What the command says of fleets, as JSON documents; docs/recast.schema.json describes them."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from recast.dtypes import Dtype
from recast.formats.forms import Unread
from recast.planning.estimate import Estimate
from recast.reports import documents
from recast.reports.documents import Document
from recast.reports.evidence import EvidenceTotal
from recast.reports.fleet import (
    Outcome,
    Survey,
    TrainerState,
    total_outcome,
    total_survey,
)


def fleet(
    root: Path, surveys: Sequence[Survey], target: Dtype, estimate: Estimate | None
) -> Document:
    """Return the totals of a fleet."""
    total = total_survey(surveys)
    return {
        "kind": "fleet",
        "path": str(root),
        "dtype": target.value,
        "totals": {
            "checkpoints": total.checkpoints,
            "oversized": total.oversized,
            "errors": total.errors,
            "dtypes": [{"dtype": dtype.value, "bytes": size} for dtype, size in total.dtypes],
            "bytes": total.size,
            "saved_bytes": total.saved,
            "trainer_state_bytes": total.trainer_state,
        },
        "estimate": None if estimate is None else asdict(estimate),
    }


def survey(each: Survey) -> Document:
    """Return what is stored in one checkpoint of a fleet."""
    return {
        "kind": "survey",
        "path": str(each.path),
        "dtypes": [{"dtype": dtype.value, "bytes": size} for dtype, size in each.dtypes],
        "bytes": each.size,
        "saved_bytes": each.saved,
        "findings": list(each.findings),
        "trainer_state_bytes": each.trainer_state,
        "base": None if each.base is None else str(each.base),
        "error": None if each.error is None else documents.error(str(each.path), each.error),
    }


def unread(found: Sequence[Unread]) -> list[Document]:
    """Return which folders have weights in a form that recast does not read."""
    return [
        {
            "path": str(each.path),
            "form": each.form.value,
            "name": each.name,
            "remedy": each.form.remedy,
        }
        for each in found
    ]


def outside(found: Sequence[Path]) -> list[Document]:
    """Return which checkpoints were left alone, since links lead to them."""
    return [{"path": str(each), "leads_to": str(each.resolve())} for each in found]


def repair(
    root: Path, outcomes: Sequence[Outcome], target: Dtype, seconds: float, *, in_place: bool
) -> Document:
    """Return what became of a fleet, in all."""
    total = total_outcome(outcomes)
    return {
        "kind": "repair",
        "path": str(root),
        "dtype": target.value,
        "in_place": in_place,
        "seconds": round(seconds, 3),
        "totals": {
            "checkpoints": len(outcomes),
            **{fate.name.lower(): count for fate, count in total.fates},
            "bytes_before": total.size_before,
            "bytes_after": total.size_after,
        },
    }


def outcome(each: Outcome) -> Document:
    """Return what became of one checkpoint."""
    return {
        "kind": "outcome",
        "path": str(each.path),
        "fate": each.fate.value,
        "target": None if each.target is None else str(each.target),
        "bytes_before": each.size_before,
        "bytes_after": each.size_after,
        "seconds": round(each.seconds, 3),
        "evidence": None if each.evidence is None else _evidence(each.evidence),
        "base": None if each.base is None else str(each.base),
        "error": None if each.error is None else documents.error(str(each.path), each.error),
    }


def _evidence(total: EvidenceTotal) -> Document:
    """Return what rounding did to a checkpoint."""
    return {
        "tensors": total.tensors,
        "lossless_tensors": total.lossless,
        "overflowed_values": total.overflowed,
        "underflowed_values": total.underflowed,
        "vanished_tensors": total.vanished,
        "largest_error": total.worst.largest_error if total.worst else 0.0,
        "worst_tensor": total.worst.name if total.worst else None,
    }


def trainer_state(each: TrainerState) -> Document:
    """Return the trainer state of one checkpoint."""
    return {
        "kind": "trainer state",
        "path": str(each.path),
        "files": list(each.files),
        "bytes": each.size,
        "error": None if each.error is None else documents.error(str(each.path), each.error),
    }


def deletion(root: Path, found: Sequence[TrainerState], *, dry_run: bool) -> Document:
    """Return how much trainer state was deleted, or would be."""
    done = [each for each in found if each.error is None and each.files]
    return {
        "kind": "trainer state deletion",
        "path": str(root),
        "deleted": not dry_run,
        "totals": {
            "checkpoints": len(done),
            "files": sum(len(each.files) for each in done),
            "bytes": sum(each.size for each in done),
            "errors": sum(each.error is not None for each in found),
        },
    }
