"""What the command says, as text for a terminal."""

from recast.reports.text.found import conversion, scan, verification
from recast.reports.text.lines import counted, nbytes, printable, table
from recast.reports.text.planned import plan, publication
from recast.reports.text.stored import inspection

__all__ = [
    "conversion",
    "counted",
    "inspection",
    "nbytes",
    "plan",
    "printable",
    "publication",
    "scan",
    "table",
    "verification",
]
