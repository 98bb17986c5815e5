"""What was done, and what was found, as documents."""

from collections.abc import Sequence

from recast.errors import RecastError
from recast.planning.publication import Publication
from recast.reports.conversion import Conversion
from recast.reports.documents.parts import Document, finding
from recast.reports.documents.planned import plan_document
from recast.reports.evidence import Evidence, EvidenceTotal
from recast.reports.scan import Scan
from recast.reports.verification import Difference, Verification


def conversion(
    done: Conversion, push: Publication | None = None, url: str | None = None
) -> Document:
    """Return what was written, and the evidence of every tensor that was cast."""
    cast = [(each, _evidence(shard.name, each)) for shard in done.shards for each in shard.evidence]
    return plan_document(done.plan, done.target or done.plan.default_target, push, url) | {
        "kind": "conversion",
        "found": done.found,
        "resumed_shards": done.resumed,
        "discarded": done.discarded,
        "seconds": round(done.seconds, 3),
        "evidence": None if done.found else _total(done.total, cast),
        "findings": [finding(each) for each in done.findings],
        "tensors": [doc for _, doc in cast],
    }


def _total(total: EvidenceTotal, cast: Sequence[tuple[Evidence, Document]]) -> Document:
    """Return the evidence of all tensors together, of which *cast* has each one's."""
    return {
        "tensors": total.tensors,
        "lossless_tensors": total.lossless,
        "changed_values": total.changed,
        "overflowed_values": total.overflowed,
        "underflowed_values": total.underflowed,
        "vanished_tensors": total.vanished,
        "nan_values": total.nan,
        "infinite_values": total.infinite,
        "largest_magnitude": total.magnitude,
        "mantissa_bits": total.mantissa_bits,
        **{
            name: next((doc for each, doc in cast if each is found), None)
            for name, found in (
                ("worst", total.worst),
                ("most_overflowed", total.most_overflowed),
                ("most_underflowed", total.most_underflowed),
            )
        },
    }


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


def scan(found: Scan) -> Document:
    """Return what the stored values are, tensor by tensor."""
    return {
        "kind": "scan",
        "path": str(found.path),
        "bytes": found.nbytes,
        "seconds": round(found.seconds, 3),
        "findings": [finding(each) for each in found.findings],
        "skipped": [{"dtype": dtype.value, "tensors": count} for dtype, count in found.skipped],
        "tensors": [
            {
                "file": each.shard,
                "tensor": each.name,
                "dtype": each.dtype.value,
                "parameters": each.parameters,
                "mantissa_bits": each.mantissa_bits,
                "fits_bf16": each.fits_bf16,
                "fits_fp16": each.fits_fp16,
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
        "casts": [{"dtype": dtype.value, "tensors": count} for dtype, count in verdict.casts],
        "other_files": verdict.files,
        "remedy": verdict.remedy or None,
        "differences": [_difference(each) for each in verdict.differences],
        "notes": [_difference(each) for each in verdict.notes],
    }


def _difference(each: Difference) -> Document:
    """Return one thing that verifying has found."""
    return {"file": each.file, "tensor": each.tensor or None, "problem": each.problem}


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
