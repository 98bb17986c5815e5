"""Values that are no numbers: what only who reads them can find."""

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
