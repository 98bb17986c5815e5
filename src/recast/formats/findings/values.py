"""Values that are no numbers, or no longer there: what only who reads them can find."""

from collections.abc import Iterable, Iterator

from recast.formats.findings.finding import Finding, Severity, listed


def non_finite(
    tensors: Iterable[tuple[str, str, int]],
    problem: str = "NaN or infinite values",
    remedy: str = "go back to an earlier checkpoint: the training diverged, or the save failed",
) -> Iterator[Finding]:
    """Find values that are no numbers, of *tensors*: the shard, the name, and how many they are."""
    broken = [each for each in tensors if each[2]]
    if broken:
        names = tuple(name for _, name, _ in broken)
        count = sum(each[2] for each in broken)
        text = f"{problem}: {count:,}, in {listed(names)}"
        yield Finding("non-finite-values", Severity.WARNING, broken[0][0], text, remedy, names)


def vanished(tensors: Iterable[tuple[str, str]], dtype: str) -> Iterator[Finding]:
    """Find tensors, each with its shard, of which a cast to *dtype* has left nothing but zeros."""
    emptied = list(tensors)
    if emptied:
        names = tuple(name for _, name in emptied)
        yield Finding(
            "vanished-values",
            Severity.WARNING,
            emptied[0][0],
            f"every value that was not zero became zero in {dtype}, in {listed(names)}",
            "convert again, and keep these tensors as they are",
            names,
        )
