"""What is published on the Hub, in words: the message of the commit."""

from collections import Counter

from recast.formats.checkpoint import Checkpoint, main_dtype
from recast.planning.publication import Publication
from recast.reports.conversion import Conversion
from recast.reports.evidence import EvidenceTotal
from recast.reports.text import nbytes, printable

TITLE = "recast: "  # by which a later run knows its own pull request


class Pushed(str):  # noqa: SLOT000 - a str may have no slots of its own
    """The URL of the commit, or of the pull request, which also knows what was done.

    Attributes:
        publication: what the commit did.
        conversion: the conversion that it published; None if it published files as they were.
    """

    publication: Publication
    conversion: Conversion | None

    @classmethod
    def of(cls, url: str, publication: Publication, conversion: Conversion | None) -> "Pushed":
        """Return *url* with what was done."""
        pushed = cls(url)
        pushed.publication = publication
        pushed.conversion = conversion
        return pushed


def commit_message(
    checkpoint: Checkpoint, conversion: Conversion | None, publication: Publication
) -> tuple[str, str]:
    """Return the title and the description of the commit that publishes a checkpoint.

    Args:
        checkpoint: what was converted; or what is published, if nothing was.
        conversion: what was done to it.
        publication: what the commit does.
    """
    deleted = [f"- deleted: {name}" for name in publication.deleted]
    before = main_dtype(checkpoint.shards)
    name = "no floating dtype" if before is None else before.torch_name
    if conversion is None or not conversion.plan.changes:
        return f"{TITLE}weights in {name}, {nbytes(checkpoint.size)}", _text(deleted)
    plan = conversion.plan
    sizes = f"{nbytes(plan.size_before)} to {nbytes(plan.size)}"
    title = f"{TITLE}{name} to {plan.policy.target.torch_name}, {sizes}"
    kept = Counter(str(tensor.reason) for _, tensor in plan.kept)
    lines = [
        *_rounding(conversion.total),
        *(f"- kept as stored: {count:,} tensors ({reason})" for reason, count in kept.items()),
        *deleted,
    ]
    return title, _text(lines)


def _rounding(total: EvidenceTotal) -> list[str]:
    """Return what the casts did to the values."""
    lines = []
    if total.worst is not None:
        worst = f"{total.worst.largest_error:.3g} in `{total.worst.name}`"
        rounded = f"{total.rounded:,} of {total.tensors:,} tensors"
        lines.append(f"- rounded: {rounded}, largest error {worst}")
    elif total.tensors and total.lossless == total.tensors:
        lines.append(f"- lossless: no value changed in {total.tensors:,} tensors")
    if total.overflowed:
        lines.append(f"- overflow: {total.overflowed:,} finite values became infinite")
    if total.underflowed:
        lines.append(f"- underflow: {total.underflowed:,} values became zero")
    return lines


def _text(lines: list[str]) -> str:
    """Return *lines* as one text."""
    return "\n".join(map(printable, lines))
