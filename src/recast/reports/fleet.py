"""Fleets: what is stored in many checkpoints, and what was done to them, each in a few bytes."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from recast.dtypes import Dtype
from recast.errors import RecastError
from recast.formats.checkpoint import Checkpoint
from recast.formats.findings import Severity, findings
from recast.formats.names import Role
from recast.planning.estimate import Work
from recast.planning.plan import Action, Plan
from recast.reports.conversion import Conversion
from recast.reports.evidence import EvidenceTotal


@dataclass(frozen=True, slots=True)
class Survey:
    """What is stored in one checkpoint of a fleet, and what converting it would save.

    Attributes:
        path: the checkpoint.
        dtypes: each stored dtype with its bytes, the most first.
        size: the bytes of all weights files.
        size_after: the same once converted; *size* if that would be refused.
        weights_files: how many weights files it has.
        other_files: how many other files, besides configs and indexes, lie with them.
        shards: the weights files that converting would write anew.
        cast: the bytes of these files.
        companions: how many files would stay as they are; 0 if nothing would change.
        companions_size: the bytes of these.
        findings: the names of its findings, what blocks a conversion first.
        trainer_state: the bytes of trainer state that lies with it.
        error: why nothing is known of it, or why it would not be converted.
        base: the model whose dtypes it would take; None without one.
    """

    path: Path
    dtypes: tuple[tuple[Dtype, int], ...] = ()
    size: int = 0
    size_after: int = 0
    weights_files: int = 0
    other_files: int = 0
    shards: int = 0
    cast: int = 0
    companions: int = 0
    companions_size: int = 0
    findings: tuple[str, ...] = ()
    trainer_state: int = 0
    error: RecastError | None = None
    base: Path | None = None

    @property
    def saved(self) -> int:
        """The bytes that converting would save; negative if it would take more."""
        return self.size - self.size_after

    @property
    def is_oversized(self) -> bool:
        """Whether converting would make it smaller."""
        return self.saved > 0


def survey(checkpoint: Checkpoint, planned: Plan | RecastError) -> Survey:
    """Return what is stored in *checkpoint*, and what its plan, if there is one, makes of it."""
    found = findings(checkpoint)
    made = None if isinstance(planned, RecastError) else planned
    shards = made.shards if made else ()
    changing = [shard for shard in shards if shard.changes]
    stays = [each for each in made.files if each.action is Action.COPY] if made and changing else []
    return Survey(
        checkpoint.local_path,
        tuple((share.dtype, share.nbytes) for share in checkpoint.dtypes),
        checkpoint.size,
        sum(shard.size for shard in shards) if shards else checkpoint.size,
        len(checkpoint.shards),
        len(checkpoint.files) + len(checkpoint.left_out),
        len(changing),
        sum(shard.size_before for shard in changing),
        len(stays),
        sum(each.size for each in stays),
        tuple(dict.fromkeys(each.name for each in found if each.severity is not Severity.NOTE)),
        sum(file.size for file in checkpoint.left_out if file.role is Role.TRAINER_STATE),
        planned if isinstance(planned, RecastError) else None,
        None if isinstance(planned, RecastError) else _base(planned),
    )


def work(surveys: Iterable[Survey], *, in_place: bool, scans: bool) -> Work:
    """Return what is to be done in a fleet.

    Args:
        surveys: of all its checkpoints.
        in_place: whether the sources are replaced.
        scans: whether all values are looked at before that.
    """
    every = [each for each in surveys if each.weights_files]
    changing = [each for each in every if each.shards]
    cast = sum(each.cast for each in changing)
    return Work(
        checkpoints=len(every),
        weights_files=sum(each.weights_files for each in every),
        other_files=sum(each.other_files for each in every),
        changing=len(changing),
        shards=sum(each.shards for each in changing),
        companions=sum(each.companions for each in changing),
        bytes_cast=cast,
        bytes_written=cast - sum(each.saved for each in changing),
        bytes_copied=0 if in_place else sum(each.companions_size for each in changing),
        bytes_scanned=cast if scans else 0,
        in_place=in_place,
    )


def _base(plan: Plan) -> Path | None:
    """Return the folder of the model whose dtypes *plan* takes, if any."""
    return plan.policy.base.local_path if plan.policy.base else None


@dataclass(frozen=True, slots=True)
class SurveyTotal:
    """The sum of many surveys.

    Attributes:
        checkpoints: how many there are.
        dtypes: each stored dtype with its bytes, the most first.
        size: the bytes of all weights files.
        saved: the bytes that converting would save.
        oversized: how many checkpoints would become smaller.
        trainer_state: the bytes of trainer state.
        errors: how many could not be read, or would not be converted.
    """

    checkpoints: int
    dtypes: tuple[tuple[Dtype, int], ...]
    size: int
    saved: int
    oversized: int
    trainer_state: int
    errors: int


def total_survey(surveys: Iterable[Survey]) -> SurveyTotal:
    """Return the sum of *surveys*."""
    every = list(surveys)
    dtypes: Counter[Dtype] = Counter()
    for each in every:
        dtypes.update(dict(each.dtypes))
    return SurveyTotal(
        len(every),
        tuple(dtypes.most_common()),
        sum(each.size for each in every),
        sum(each.saved for each in every),
        sum(each.is_oversized for each in every),
        sum(each.trainer_state for each in every),
        sum(each.error is not None for each in every),
    )


@dataclass(frozen=True, slots=True)
class TrainerState:
    """The trainer state that lies with one checkpoint.

    Attributes:
        path: the checkpoint.
        files: the files, relative to it, with "/".
        size: their bytes.
        error: why they are left alone, or could not be deleted.
    """

    path: Path
    files: tuple[str, ...] = ()
    size: int = 0
    error: RecastError | None = None


class Fate(StrEnum):
    """What became of one checkpoint of a fleet."""

    REPAIRED = "repaired"
    RIGHT = "already right"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one checkpoint of a fleet.

    Attributes:
        path: the checkpoint.
        fate: what became of it.
        target: where the result lies; None if nothing was written.
        size_before: the bytes of all its files before; 0 if it failed or was skipped.
        size_after: the same afterwards.
        seconds: how long it took.
        evidence: what rounding did to its values; None if no tensor was cast.
        error: why it failed or was skipped.
        base: the model whose dtypes it has taken; None without one.
    """

    path: Path
    fate: Fate
    target: Path | None = None
    size_before: int = 0
    size_after: int = 0
    seconds: float = 0.0
    evidence: EvidenceTotal | None = None
    error: RecastError | None = None
    base: Path | None = None

    @property
    def saved(self) -> int:
        """The bytes by which the result is smaller than the source."""
        return self.size_before - self.size_after


def repaired(done: Conversion) -> Outcome:
    """Return what became of a checkpoint that was converted."""
    path, before, after = done.plan.checkpoint.local_path, done.plan.size_before, done.plan.size
    target = None if done.target is None else Path(str(done.target))  # fleets lie on disks
    if target is None or done.found:
        there = after if done.found else before
        return Outcome(path, Fate.RIGHT, target, before, there, done.seconds, base=_base(done.plan))
    return Outcome(
        path,
        Fate.REPAIRED,
        target,
        before,
        after,
        done.seconds,
        done.total if done.shards else None,
        base=_base(done.plan),
    )


@dataclass(frozen=True, slots=True)
class OutcomeTotal:
    """The sum of many outcomes.

    Attributes:
        fates: how many checkpoints met which fate.
        size_before: the bytes of those that were repaired, before.
        size_after: the same afterwards.
    """

    fates: tuple[tuple[Fate, int], ...]
    size_before: int
    size_after: int

    @property
    def saved(self) -> int:
        """The bytes by which the results are smaller than the sources."""
        return self.size_before - self.size_after


def total_outcome(outcomes: Iterable[Outcome]) -> OutcomeTotal:
    """Return the sum of *outcomes*."""
    every = list(outcomes)
    counts = Counter(each.fate for each in every)
    done = [each for each in every if each.fate is Fate.REPAIRED]
    return OutcomeTotal(
        tuple((fate, counts[fate]) for fate in Fate),
        sum(each.size_before for each in done),
        sum(each.size_after for each in done),
    )
