"""A page to look at: what a result says, as tables and maps, in one HTML file of its own.

The page needs no network and loads nothing: styles, charts and the script that sorts its tables
are in it. `Page` is what it shows, as values; Jinja2, which comes with ``recast[report]``,
renders it.
"""

from importlib import resources
from typing import Any

from recast.errors import TargetError
from recast.formats.checkpoint import Checkpoint
from recast.reports.conversion import Conversion
from recast.reports.page.pages import of_checkpoint, of_conversion, of_scan, of_verification
from recast.reports.page.parts import Page
from recast.reports.scan import Scan
from recast.reports.text import printable
from recast.reports.verification import Verification

Result = Checkpoint | Conversion | Scan | Verification
BEGINNING = b"<!doctype html>"  # of every page, by which one can be known

__all__ = ["BEGINNING", "Result", "html", "renderer"]


def _page(result: Result) -> Page:
    """Return what there is to show of what `inspect`, `convert`, `scan` or `verify` returned."""
    if isinstance(result, Conversion):
        return of_conversion(result)
    if isinstance(result, Scan):
        return of_scan(result)
    if isinstance(result, Verification):
        return of_verification(result)
    return of_checkpoint(result)


def html(result: Result) -> str:
    """Return the page of *result* as one HTML document. Raises TargetError without Jinja2."""
    template = resources.files(__package__).joinpath("page.html.jinja").read_text("utf-8")
    page: str = renderer().from_string(template).render(page=_page(result))
    return page


def renderer() -> Any:  # noqa: ANN401 - Jinja2's type is only known where Jinja2 is
    """Return what makes a page of the template. Raises TargetError without Jinja2."""
    try:
        import jinja2  # noqa: PLC0415 - only who wants a page needs it
    except ImportError:
        raise TargetError(
            "report", "needs Jinja2, which is not installed", "pip install 'recast[report]'"
        ) from None
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = _figure
    environment.filters["printable"] = printable
    return environment


def _figure(value: object) -> str:
    """Return a number as a table shows it, anything else as text."""
    if isinstance(value, float):
        return f"{value:.3g}" if value else "0"
    return f"{value:,}" if isinstance(value, int) else str(value)
