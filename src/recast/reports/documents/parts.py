"""Parts that several documents have."""

from collections.abc import Iterable
from typing import Any

from recast.formats.checkpoint import File
from recast.formats.findings import Finding

Document = dict[str, Any]


def finding(found: Finding) -> Document:
    """Return one thing that is wrong or surprising."""
    return {
        "name": found.name,
        "severity": found.severity.value,
        "subject": found.subject,
        "problem": found.problem,
        "remedy": found.remedy,
        "tensors": list(found.tensors),
        "command": found.command or None,
    }


def left_out(files: Iterable[File]) -> list[Document]:
    """Return what lies in the folder and is no part of the model."""
    return [{"name": file.name, "bytes": file.size, "role": file.role.value} for file in files]
