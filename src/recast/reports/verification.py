"""Verification: whether a checkpoint is the cast of another, and where it is not."""

from dataclasses import dataclass, field
from pathlib import Path

from recast.dtypes import Dtype


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it should be.

    Attributes:
        file: the file in which it was found.
        tensor: the tensor concerned; "" if it is the file as a whole.
        problem: what is the matter.
    """

    file: str
    tensor: str
    problem: str

    def __str__(self) -> str:
        """Return the difference as one line."""
        subject = f"{self.file}: tensor {self.tensor!r}" if self.tensor else self.file
        return f"{subject}: {self.problem}"


@dataclass(frozen=True, slots=True)
class ShardVerdict:
    """Whether one shard is what it should be.

    Attributes:
        name: the shard.
        tensors: how many tensors of the source's were looked for in it, all if it is missing.
        differing: how many are missing, new, or not the cast of the source's.
        holds: whether all of it is as it should be, header metadata included.
    """

    name: str
    tensors: int
    differing: int
    holds: bool = True


@dataclass(frozen=True, slots=True)
class Verification:
    """What comparing a checkpoint with its source showed.

    Attributes:
        path: the checkpoint that was verified.
        against: the source it was compared with.
        shards: a verdict on each shard of the source's.
        files: how many other files were compared.
        differences: all that is not as it should be.
        casts: how many tensors were cast to which dtype; the others have the source's.
        notes: what is as the cast makes it, and may be no less of a surprise.
    """

    path: Path
    against: Path
    shards: tuple[ShardVerdict, ...] = field(repr=False)
    files: int
    differences: tuple[Difference, ...]
    casts: tuple[tuple[Dtype, int], ...] = ()
    notes: tuple[Difference, ...] = ()

    @property
    def tensors(self) -> int:
        """How many tensors of the source's were looked for."""
        return sum(shard.tensors for shard in self.shards)

    @property
    def holds(self) -> bool:
        """Whether everything is as it should be."""
        return not self.differences

    @property
    def remedy(self) -> str:
        """What to do about the differences; "" if there are none."""
        if self.holds:
            return ""
        broken = [shard.name for shard in self.shards if not shard.holds]
        if broken and {each.file for each in self.differences} <= set(broken):
            shards = "shard" if len(broken) == 1 else "shards"
            what = f"do not use {len(broken)} {shards} of {self.path}"
        else:
            what = f"do not use {self.path}"
        return f"{what}; convert {self.against} again, into a new folder"

    def __bool__(self) -> bool:
        """Whether everything is as it should be."""
        return self.holds

    def __repr__(self) -> str:
        """Return the verdict in brief: of the differences, of which there may be many, a count."""
        return (
            f"Verification(path={self.path!r}, against={self.against!r}, holds={self.holds}, "
            f"differences={len(self.differences)})"
        )
