"""A plan → a new checkpoint beside its source, which appears when all of it is complete."""

from dataclasses import dataclass
from pathlib import Path

from recast.errors import RecastError
from recast.execution.crew import Crew
from recast.execution.publish import (
    copy_file,
    is_copied,
    making,
    publish,
    take_over,
    write_file,
)
from recast.execution.shard import Effort
from recast.execution.shard_job import ShardJob
from recast.execution.storage import Source, changed, naming
from recast.execution.target import check_space
from recast.execution.workplace import Workplace, workplace
from recast.planning.plan import Plan
from recast.reports.conversion import ShardConversion
from recast.reports.evidence import refuse_loss


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        shards: the weights files that were converted.
        resumed: how many of them a run that was killed had left complete.
        discarded: whether it had left anything of another plan, which is gone now.
    """

    shards: tuple[ShardConversion, ...]
    resumed: int
    discarded: bool


def write_anew(plan: Plan, target: Path, crew: Crew) -> Written:
    """Carry out *plan* in a workplace beside *target*, and give the result that name.

    If this fails, all of it is removed; if the process is interrupted or killed, what is
    complete stays for the next run of the same plan.
    """
    target = target.resolve()  # of a link to an empty folder, that folder is filled
    with making(target.parent), workplace(workplace_beside(target), target) as work:
        try:
            with naming(work.folder):
                discarded = work.begin(plan)
                check_space(plan.size - work.staged_bytes(), target)
                written = _fill(plan, target, work, crew, discarded=discarded)
                publish(work.result, target, is_file=plan.checkpoint.is_file)
        except RecastError:
            work.remove()
            raise
        work.remove()
    return written


def workplace_beside(target: Path) -> Path:
    """Return where what will be *target* is prepared."""
    target = target.resolve()
    return target.with_name(f".{target.name}.recast")


def _fill(plan: Plan, target: Path, work: Workplace, crew: Crew, *, discarded: bool) -> Written:
    """Gather every file of the output: shards, the files that stay, configs, indexes."""
    places = {
        number: work.result / (target.name if plan.checkpoint.is_file else shard.name)
        for number, shard in enumerate(plan.shards)
    }
    done: dict[int, ShardConversion] = {}
    for number, shard in enumerate(plan.shards):
        if shard.changes:
            complete = is_copied(places[number], shard.size, shard.modified)
            before = work.recall(number, shard, evidence=crew.effort.evidence)
            if complete and before is not None:
                done[number] = before
                crew.effort.advance(shard.size_before)
    resumed = len(done)
    jobs = (
        ShardJob(number, shard, plan.source_of(shard.name), work.folder)
        for number, shard in enumerate(plan.shards)
        if shard.changes and number not in done
    )
    for job, shard_done in crew.carry_out(jobs):
        refuse_loss(job.plan.name, shard_done.evidence, plan.policy)
        take_over(job.staged, places[job.number], job.plan.size)
        work.remember(job.number, shard_done)
        done[job.number] = shard_done
    for number, shard in enumerate(plan.shards):
        if not shard.changes:
            source = plan.source_of(shard.name)
            with Source(source, shard.size, shard.modified) as old:
                copy_file(source, places[number], work.folder)
                old.check_unchanged()
            crew.effort.advance(shard.size)
    for file in plan.copies:
        copy_file(plan.source_of(file.name), work.result / file.name, work.folder)
        crew.effort.advance(file.size)
    write_documents(plan, work.result, work.folder, crew.effort)
    return Written(tuple(done[number] for number in sorted(done)), resumed, discarded)


def write_documents(plan: Plan, folder: Path, scratch: Path, effort: Effort) -> None:
    """Write the configs that change, then the indexes."""
    for document in plan.documents:
        place = plan.source_of(document.name)
        with naming(place):
            before = place.stat()
            if place.read_bytes() != _text_before(plan, document.name).encode():
                raise changed(place)
        path, mode = folder / document.name, before.st_mode & 0o7777
        owner = before if path == place else None  # what is new belongs to whoever makes it
        write_file(path, document.text.encode(), mode, scratch, owner)
        effort.advance(document.size_before)


def _text_before(plan: Plan, name: str) -> str:
    """Return the text of the config or index *name* as it was when it was read."""
    if name in plan.checkpoint.configs:
        return plan.checkpoint.configs[name].text
    indexes = (weights.index for weights in plan.checkpoint.weights)
    return next(index.text for index in indexes if index is not None and index.name == name)
