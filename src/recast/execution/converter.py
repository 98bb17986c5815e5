"""plan() and convert(): from a path, or what is known of it, to the finished checkpoint."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from recast import dtypes
from recast.errors import DtypeError, RefusedError, TargetError
from recast.execution.anew import Written, workplace_beside, write_anew
from recast.execution.crew import Crew, Threads
from recast.execution.in_place import workplace_in, write_in_place
from recast.execution.reader import inspect
from recast.execution.shard import Effort, Progress
from recast.execution.target import check_target, is_finished
from recast.execution.workers import chosen_workers
from recast.execution.workplace import tidy
from recast.formats.checkpoint import Checkpoint
from recast.formats.hub_path import HubPath
from recast.planning.likeness import main_dtype_of
from recast.planning.plan import Plan
from recast.planning.planner import make_plan, plan_documents
from recast.planning.policy import Policy
from recast.reports.conversion import Conversion

AnyPath = str | os.PathLike[str]


def plan(
    source: AnyPath | Checkpoint,
    dtype: object = None,
    *,
    like: AnyPath | Checkpoint | None = None,
    keep: Iterable[str] = (),
    cast: Iterable[str] = (),
    keep_rules: bool = True,
    lossless: bool = False,
    allow: Iterable[str] = (),
) -> Plan:
    """Return all that converting *source* to *dtype* would write. Nothing is written.

    Args:
        source: a checkpoint's folder, a weights file, or what `inspect` returned for it.
        dtype: the target: "bfloat16", "bf16", "fp16", "half", torch.float32, …; with *like* it
            may be left out, and is then what most of the base model is stored in.
        like: the base model, or what `inspect` returned for it: each tensor gets the dtype that
            it has there. What it lacks gets the target, or what the rules say.
        keep: patterns of tensor names to leave as they are: ``"*.norm.weight"``.
        cast: patterns of tensor names to cast to the target, whatever *like* and the rules say.
        keep_rules: whether tensors known to need fp32 for this model_type stay fp32.
        lossless: whether to fail if any value would change.
        allow: what shall not stop a conversion: "overflow", or the name of a finding.

    Raises:
        DtypeError: if *dtype* is none that recast converts to.
        CheckpointError: if something is wrong with the checkpoint that must be settled first.
        RefusedError: if it is quantized, or of another architecture or shape than *like*.

    Example:
        >>> recast.plan("./ckpt", "bfloat16").size  # bytes  # doctest: +SKIP
        13476851248
    """
    if dtype is not None or like is None:
        dtypes.target(dtype)  # before anything is read: a misspelt dtype is told at once
    checkpoint = _read(source)
    base = None if like is None else _read(like)
    wanted = dtypes.target(dtype) if base is None or dtype is not None else main_dtype_of(base)
    policy = Policy(
        wanted,
        _listed(keep),
        keep_rules,
        lossless,
        frozenset(_listed(allow)),
        _listed(cast),
        base,
    )
    return make_plan(checkpoint, policy)


def _read(source: AnyPath | Checkpoint) -> Checkpoint:
    """Return the checkpoint at a path, or what is known of it already."""
    return source if isinstance(source, Checkpoint) else inspect(source)


def _listed(names: Iterable[str]) -> tuple[str, ...]:
    """Return *names* as a tuple; a string is one name, and not its letters."""
    return (names,) if isinstance(names, str) else tuple(names)


def convert(
    source: AnyPath | Checkpoint | Plan,
    dtype: object = None,
    *,
    out: AnyPath | None = None,
    in_place: bool = False,
    like: AnyPath | Checkpoint | None = None,
    keep: Iterable[str] = (),
    cast: Iterable[str] = (),
    keep_rules: bool = True,
    lossless: bool = False,
    allow: Iterable[str] = (),
    workers: int | None = None,
    evidence: bool = True,
    progress: Progress | None = None,
) -> Conversion:
    """Write *source* anew in *dtype*.

    The output appears under its name when all of it is complete and on the disk, and the
    source is never written to; after an error nothing is left. With *in_place*, each file of
    the source is replaced when its successor is complete and on the disk. If there is nothing
    to change, nothing is written. What was interrupted or killed is finished by calling again.

    Args:
        source: a checkpoint's folder, a weights file, or what `inspect` or `plan` returned.
        dtype: the target, as for `plan`; left out if *source* is a plan.
        out: where to write; beside the source, with the dtype in its name, if left out.
        in_place: whether to replace the source, file by file.
        like: as for `plan`.
        keep: as for `plan`.
        cast: as for `plan`.
        keep_rules: as for `plan`.
        lossless: as for `plan`.
        allow: as for `plan`.
        workers: the threads to use; by default the CPUs this process may use.
        evidence: whether to look at what rounding did to each tensor.
        progress: called now and then with the bytes of the source that were done since.

    Raises:
        RecastError: what `plan` raises; TargetError if *out* is taken or too small, or another
            process is writing to it; RefusedError if finite values would become infinite and
            *allow* does not hold "overflow", or any would change and *lossless* is set;
            StorageError if the disk fails, or the source changes meanwhile.

    Example:
        >>> conversion = recast.convert("./ckpt", "bfloat16")  # doctest: +SKIP
        >>> conversion.target, conversion.total.lossless  # doctest: +SKIP
        (PosixPath('/models/ckpt-bf16'), 291)
    """
    if not isinstance(source, Plan):
        source = plan(
            source,
            dtype,
            like=like,
            keep=keep,
            cast=cast,
            keep_rules=keep_rules,
            lossless=lossless,
            allow=allow,
        )
    elif dtype is not None:
        raise DtypeError(str(dtype), "is given beside a plan", "make the plan with it")
    elif like or _listed(keep) or _listed(cast) or not keep_rules or lossless or _listed(allow):
        raise RefusedError(
            str(source.checkpoint.path),
            "is planned already, and like, keep, cast, keep_rules, lossless and allow change it",
            "give them to recast.plan",
        )
    if in_place and out is not None:
        raise TargetError(str(out), "is given beside in_place", "choose one of them")
    if source.only_documents and not in_place:
        raise TargetError(
            str(source.checkpoint.path), "is put right where it lies", "give in_place"
        )
    if in_place:
        _refuse_remote(source.checkpoint)
    effort = Effort(chosen_workers(workers), evidence or source.policy.lossless, progress)
    return carry_out(source, Path(out) if out else None, Threads(effort), in_place=in_place)


def carry_out(plan: Plan, out: Path | None, crew: Crew, *, in_place: bool) -> Conversion:
    """Let *crew* do what *plan* says, in *out*, beside the source, or in its place."""
    begun = time.monotonic()
    target = out or plan.default_target
    if not plan.changes:
        if in_place:
            tidy(workplace_in(plan), plan.checkpoint.local_path, plan)
        return Conversion(plan, None, (), 0.0)
    if not in_place and is_finished(plan, target):
        tidy(workplace_beside(target), target)
        return Conversion(plan, target, (), 0.0, found=True)
    if in_place:
        target = plan.checkpoint.local_path
    written = _write(plan, target, crew, in_place=in_place)
    seconds = time.monotonic() - begun
    return Conversion(plan, target, written.shards, seconds, written.resumed, written.discarded)


def _write(plan: Plan, target: Path, crew: Crew, *, in_place: bool) -> Written:
    """Let *crew* carry out *plan*, whose source is here or on the Hub."""
    if in_place:
        return write_in_place(plan, crew)
    check_target(plan, target)
    if isinstance(plan.checkpoint.path, HubPath):
        from recast.remote.stream import to_folder  # noqa: PLC0415 - few need the Hub

        return to_folder(plan, target, crew.effort)
    return write_anew(plan, target, crew)


def _refuse_remote(checkpoint: Checkpoint) -> None:
    """Raise RefusedError for a checkpoint that has no files here to replace."""
    if isinstance(checkpoint.path, HubPath):
        raise RefusedError(
            str(checkpoint.path),
            "lies on the Hub, where nothing is replaced file by file",
            f"push to it instead, which is one commit: --push {checkpoint.path.repo}",
        )


def fix_config(source: AnyPath | Checkpoint, *, allow: Iterable[str] = ()) -> Conversion:
    """Make the configs and indexes of *source* tell the truth about what is stored in it.

    They are replaced one by one, each when its successor is complete and on the disk: the dtype
    keys say in what most of the tensors are stored, ``total_size`` how many bytes they take. No
    weights file is touched. Of a quantized model, whose dtype keys say what it computes in, only
    ``total_size`` is made true.

    Args:
        source: a checkpoint's folder, or what `inspect` returned for it.
        allow: the names of findings that shall not stop it.

    Raises:
        RecastError: if the checkpoint is incomplete, a config is a link, another
            process is writing here, or the disk fails.

    Example:
        >>> [each.name for each in recast.fix_config("./ckpt").plan.documents]  # doctest: +SKIP
        ['config.json', 'model.safetensors.index.json']
    """
    return convert(plan_documents(_read(source), _listed(allow)), in_place=True)
