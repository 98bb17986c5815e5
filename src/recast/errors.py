"""What can go wrong, each with its subject, the problem and the way out."""

from typing import Self

AGAIN = "run the same command again: it goes on where it was"


class RecastError(Exception):
    """The root of every error that recast raises on purpose.

    Attributes:
        subject: the file, folder, tensor or option that is concerned.
        problem: what is wrong with it.
        remedy: what the user can do about it; may be empty.

    ``args`` mirror the constructor, so that an error survives pickling on its way back
    from a worker process.
    """

    def __init__(self, subject: str, problem: str, remedy: str = "") -> None:
        super().__init__(subject, problem, remedy)
        self.subject = subject
        self.problem = problem
        self.remedy = remedy

    def bare(self) -> Self:
        """Return the same without what it refers to: frames, and in them all that is in memory."""
        return type(self)(self.subject, self.problem, self.remedy)

    def __str__(self) -> str:
        sentence = f"{self.subject}: {self.problem}" if self.subject else self.problem
        return f"{sentence}; {self.remedy}" if self.remedy else sentence


class CheckpointError(RecastError):
    """A folder, index or config that does not describe a checkpoint."""


class ShardError(CheckpointError):
    """A weights file that safetensors rejects, or that is not what its index says."""


class DtypeError(RecastError):
    """A dtype that does not exist, or that nothing can be converted to."""


class RefusedError(RecastError):
    """A sound request that recast declines, because it would do harm."""


class TargetError(RecastError):
    """A place that cannot take the output: taken, inside the source, too small."""


class BusyError(TargetError):
    """A place where another process is at work, or was a moment ago."""


class HubError(RecastError):
    """The Hub cannot be reached, does not know something, or does not let one do it."""


class StorageError(RecastError):
    """The operating system failed to read or write a file."""


class LossError(RefusedError):
    """A conversion that would lose values that its caller wants to keep."""


class WorkerError(RecastError):
    """A worker, or the cluster that it belongs to, that cannot do its part."""
