"""What lies beside the weights of two checkpoints: whether one is what the other becomes."""

from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path

from recast.execution.storage import naming
from recast.formats.checkpoint import Checkpoint, Shard, main_dtype
from recast.reports.verification import Difference

_PIECE = 1 << 18  # bytes of other files compared at a time


def compare_texts(before: Checkpoint, after: Checkpoint) -> Iterator[Difference]:
    """Yield the configs and indexes that do not say what is stored, or anything else new."""
    expected = dict(_retold(before, after))
    found = {name: config.text for name, config in after.configs.items()}
    found |= {each.name: each.index.text for each in after.weights if each.index is not None}
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield Difference(name, "", "is missing")
        elif name not in expected:
            yield Difference(name, "", "is not in the source")
        elif expected[name] != found[name]:
            line = _first_difference(expected[name], found[name])
            yield Difference(name, "", f"does not say what it should: {line}")


def _retold(before: Checkpoint, after: Checkpoint) -> Iterator[tuple[str, str]]:
    """Yield *before*'s configs and indexes as they are when they speak of what *after* stores."""
    stored = {shard.name: shard for shard in after.shards}

    def counterparts(shards: Iterable[Shard]) -> list[Shard]:
        return [stored[shard.name] for shard in shards if shard.name in stored]

    for name, config in before.configs.items():
        yield name, config.retold(main_dtype(counterparts(before.shards_of(config))))
    for weights in before.weights:
        if weights.index is not None:
            shards = counterparts(weights.shards)
            total = sum(shard.header.data_size for shard in shards)
            yield weights.name, weights.index.retold(total, main_dtype(shards))


def _first_difference(expected: str, found: str) -> str:
    """Return the first line in which two texts differ, as it is and as it should be."""
    for should, line in zip(expected.splitlines(), found.splitlines(), strict=False):
        if should != line:
            return f"{line.strip()} instead of {should.strip()}"
    return "its end differs"


def compare_files(before: Checkpoint, after: Checkpoint) -> Iterator[Difference]:
    """Yield the other files that are missing, new, or not the same byte for byte."""
    old, new = ({file.name for file in each.files} for each in (before, after))
    for name in sorted(old - new):
        yield Difference(name, "", "is missing")
    for name in sorted(new - old):
        yield Difference(name, "", "is not in the source")
    for name in sorted(old & new):
        if not _is_same(before.place_of(name), after.place_of(name)):
            yield Difference(name, "", "differs from the source's")


def _is_same(one: Path, other: Path) -> bool:
    """Whether two files hold the same bytes; `filecmp` would trust what it once read."""
    pieces = zip_longest(_pieces(one), _pieces(other))
    return all(first == second for first, second in pieces)


def _pieces(path: Path) -> Iterator[bytes]:
    """Yield what a file holds. Raises StorageError, which names it."""
    with naming(path), path.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece
