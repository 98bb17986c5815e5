"""A plan → its own source, whose files are replaced one by one, each when its successor is done.

At every instant the folder is a checkpoint that loads, whose tensors hold the old or the new
bits: the index says which shard holds a tensor, and not in which dtype.
"""

from itertools import accumulate
from pathlib import Path

from recast.errors import AGAIN, RecastError, RefusedError
from recast.execution.anew import Written, workplace_beside, write_documents
from recast.execution.crew import Crew
from recast.execution.publish import take_place
from recast.execution.shard_job import ShardJob
from recast.execution.storage import naming
from recast.execution.target import check_space, free_space
from recast.execution.workplace import Workplace, refuse_mixture, workplace
from recast.planning.plan import Plan
from recast.planning.policy import OVERFLOW
from recast.reports.conversion import ShardConversion
from recast.reports.evidence import refuse_loss

_WORKPLACE = ".recast"


def write_in_place(plan: Plan, crew: Crew) -> Written:
    """Carry out *plan* on its own source.

    Raises RefusedError if a file to be replaced is a link, if values would be lost, or if
    another conversion was begun here and not finished; nothing has been replaced then.
    """
    _refuse_links(plan)
    path = plan.checkpoint.local_path
    with workplace(workplace_in(plan), path) as work:
        try:
            refuse_mixture(plan, work)
            # One shard at a time lies here twice.
            check_space(
                max((shard.size for shard in plan.shards if shard.changes), default=0), path
            )
            _scan(plan, work, crew)
            work.begin(plan)
        except BaseException:
            if not work.left:
                work.remove()
            raise
        shards = _replace(plan, work, crew)
        work.remove()
    return Written(shards, 0, discarded=False)


def workplace_in(plan: Plan) -> Path:
    """Return where the successors of a checkpoint's files are prepared."""
    path = plan.checkpoint.local_path
    return workplace_beside(path) if plan.checkpoint.is_file else path / _WORKPLACE


def _replace(plan: Plan, work: Workplace, crew: Crew) -> tuple[ShardConversion, ...]:
    """Replace what changes: shards, then configs, then indexes."""
    changing = [(number, shard) for number, shard in enumerate(plan.shards) if shard.changes]
    done: dict[int, ShardConversion] = {}
    try:
        jobs = (
            ShardJob(number, shard, plan.source_of(shard.name), work.folder)
            for number, shard in changing
        )
        room = _at_once([shard.size for _, shard in changing], plan.checkpoint.local_path)
        for job, shard_done in crew.carry_out(jobs, room):
            shard = job.plan
            before = shard.size_before, shard.modified
            take_place(job.staged, job.source, shard.size, before)
            done[job.number] = shard_done
        write_documents(plan, plan.checkpoint.local_path, work.folder, crew.effort)
    except RecastError as error:
        if not done and not work.left:
            work.remove()
            raise
        # The journal stays: it says with which options to go on.
        rest = f"run the same command again: {len(done)} of {len(changing)} shards are done"
        first = error.remedy.removesuffix(AGAIN).removesuffix(", then ")
        remedy = f"{first}, then {rest}" if first else rest
        raise type(error)(error.subject, error.problem, remedy) from error
    return tuple(done[number] for number in sorted(done))


def _at_once(sizes: list[int], path: Path) -> int:
    """Return how many shards may lie here twice and leave half of the free space to others."""
    room = free_space(path) // 2
    largest = accumulate(sorted(sizes, reverse=True))
    return max(1, sum(taken <= room for taken in largest))


def _refuse_links(plan: Plan) -> None:
    """Refuse to replace links: what they lead to may serve others, as in the Hub's cache."""
    changing = [shard.name for shard in plan.shards if shard.changes]
    for name in (*changing, *(document.name for document in plan.documents)):
        place = plan.source_of(name)
        with naming(place):
            leads_to = place.readlink() if place.is_symlink() else None
        if leads_to is not None:
            raise RefusedError(
                str(place),
                f"is a link to {leads_to}, which is never written to",
                "convert into a new folder with -o",
            )


def _scan(plan: Plan, work: Workplace, crew: Crew) -> None:
    """Look at every value before the first is replaced. Raises RefusedError if any is lost."""
    if OVERFLOW in plan.policy.allow and not plan.policy.lossless:
        return
    jobs = (
        ShardJob(number, shard, plan.source_of(shard.name), work.folder, scans=True)
        for number, shard in enumerate(plan.shards)
        if any(tensor.narrows for tensor in shard.tensors)
    )
    for job, found in crew.carry_out(jobs):
        refuse_loss(job.plan.name, found.evidence, plan.policy)
