"""Whether a cluster has workers, as its scheduler says: what is new in it, and when to give up."""

from dataclasses import dataclass

PATIENCE = 600.0  # seconds without any worker, after which who waits for one gives up


@dataclass(frozen=True, slots=True)
class Attendance:
    """What was seen of a cluster's workers when somebody last looked.

    Attributes:
        workers: how many jobs they can do at once; None if the scheduler did not answer.
        at: when that was, in seconds of a clock that only ever goes forward.
        manned: when there was a worker for the last time, or else the beginning; likewise.
    """

    workers: int | None
    at: float
    manned: float

    def then(self, workers: int | None, now: float) -> "Attendance":
        """Return what somebody sees who looks *now*."""
        return Attendance(workers, now, now if workers else self.manned)

    @property
    def is_hopeless(self) -> bool:
        """Whether nobody should wait any longer."""
        return self.at - self.manned >= PATIENCE

    @property
    def _kind(self) -> bool | None:
        """Whether there is a worker; None if nobody knows."""
        return None if self.workers is None else self.workers > 0


def news(before: Attendance | None, now: Attendance) -> str | None:
    """Return what changed for those who wait, if anything; at the beginning *before* is None."""
    if before is not None and before._kind is now._kind:  # noqa: SLF001 - one idea, two places
        return None
    if now.workers is None:
        return "the scheduler does not answer; jobs wait for it"
    if now.workers:
        return "there are workers; jobs go on" if before else None
    return f"no workers{'' if before else ' yet'}; jobs wait for them"
