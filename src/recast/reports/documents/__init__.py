"""What the command says, as JSON documents; docs/recast.schema.json describes them.

In all of them a dtype is the tag that stands in safetensors headers ("BF16", "F32"), sizes
are in bytes, and files are named relative to the checkpoint, with "/".
"""

from recast.reports.documents.found import conversion, error, scan, verification
from recast.reports.documents.parts import Document
from recast.reports.documents.planned import plan_document, publication
from recast.reports.documents.stored import inspection, like_command, savings

__all__ = [
    "Document",
    "conversion",
    "error",
    "inspection",
    "like_command",
    "plan_document",
    "publication",
    "savings",
    "scan",
    "verification",
]
