"""A plan → a new checkpoint beside its source, which appears when all of it is complete."""

from dataclasses import dataclass
from pathlib import Path

from recast.errors import RecastError, StorageError
from recast.execution.publish import copy_file, is_copied, making, publish, write_file
from recast.execution.shard import Effort, convert_shard
from recast.execution.storage import Source, naming
from recast.execution.target import check_space
from recast.execution.workplace import Workplace, workplace
from recast.planning.planner import Plan, ShardPlan
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


def write_anew(plan: Plan, target: Path, effort: Effort) -> Written:
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
                written = _fill(plan, target, work, effort, discarded=discarded)
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


def _fill(plan: Plan, target: Path, work: Workplace, effort: Effort, *, discarded: bool) -> Written:
    """Gather every file of the output: shards, the files that stay, configs, indexes."""
    shards, resumed = [], 0
    for number, shard in enumerate(plan.shards):
        if not shard.changes:
            continue
        path = work.result / (target.name if plan.checkpoint.is_file else shard.name)
        done = _recalled(work, number, shard, path)
        if done is None:
            done = convert_shard(shard, plan.source_of(shard.name), path, work.folder, effort)
            refuse_loss(shard.name, done.evidence, plan.policy)
            work.remember(number, done)
        else:
            resumed += 1
            effort.advance(shard.size_before)
        shards.append(done)
    for shard in plan.shards:
        if not shard.changes:
            source = plan.source_of(shard.name)
            with Source(source, shard.size, shard.modified) as old:
                copy_file(source, work.result / shard.name, work.folder)
                old.check_unchanged()
            effort.advance(shard.size)
    for file in plan.copies:
        copy_file(plan.source_of(file.name), work.result / file.name, work.folder)
        effort.advance(file.size)
    write_documents(plan, work.result, work.folder, effort)
    return Written(tuple(shards), resumed, discarded)


def _recalled(work: Workplace, number: int, shard: ShardPlan, path: Path) -> ShardConversion | None:
    """Return what a run that was killed has done of *shard*; None if it is not complete."""
    if is_copied(path, shard.size, shard.modified):
        return work.recall(number, shard.name, shard.size)
    return None


def write_documents(plan: Plan, folder: Path, scratch: Path, effort: Effort) -> None:
    """Write the configs that change, then the indexes."""
    for document in plan.documents:
        place = plan.source_of(document.name)
        with naming(place):
            mode = place.stat().st_mode & 0o7777
            if place.read_bytes() != _text_before(plan, document.name).encode():
                raise StorageError(
                    str(place), "was changed while recast ran", "run the same command again"
                )
        write_file(folder / document.name, document.text.encode(), mode, scratch)
        effort.advance(document.size_before)


def _text_before(plan: Plan, name: str) -> str:
    """Return the text of the config or index *name* as it was when it was read."""
    if name in plan.checkpoint.configs:
        return plan.checkpoint.configs[name].text
    indexes = (weights.index for weights in plan.checkpoint.weights)
    return next(index.text for index in indexes if index is not None and index.name == name)
