"""plan() and convert(): from a path, or what is known of it, to the finished checkpoint."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

from recast import dtypes
from recast.errors import DtypeError
from recast.execution.publish import (
    check_target,
    copy_file,
    staging,
    write_file,
)
from recast.execution.reader import inspect
from recast.execution.shard import Progress, convert_shard
from recast.execution.workers import default_workers
from recast.formats.checkpoint import Checkpoint
from recast.planning.planner import Plan, make_plan
from recast.planning.policy import Policy
from recast.reports.conversion import Conversion

AnyPath = str | os.PathLike[str]


def plan(
    source: AnyPath | Checkpoint,
    dtype: object,
    *,
    keep: Iterable[str] = (),
    keep_rules: bool = True,
) -> Plan:
    """Return all that converting *source* to *dtype* would write. Nothing is written.

    Args:
        source: a checkpoint's folder, a weights file, or what `inspect` returned for it.
        dtype: the target: "bfloat16", "bf16", "fp16", "half", torch.float32, …
        keep: patterns of tensor names to leave as they are: ``"*.norm.weight"``.
        keep_rules: whether tensors known to need fp32 for this model_type stay fp32.

    Raises:
        DtypeError: if *dtype* is none that recast converts to.
        CheckpointError: if something is wrong with the checkpoint that must be settled first.
        RefusedError: if it is quantized.

    Example:
        >>> recast.plan("./ckpt", "bfloat16").size  # bytes  # doctest: +SKIP
        13476851248
    """
    policy = Policy(dtypes.target(dtype), tuple(keep), keep_rules)
    checkpoint = source if isinstance(source, Checkpoint) else inspect(source)
    return make_plan(checkpoint, policy)


def convert(
    source: AnyPath | Checkpoint | Plan,
    dtype: object = None,
    *,
    out: AnyPath | None = None,
    keep: Iterable[str] = (),
    keep_rules: bool = True,
    workers: int | None = None,
    evidence: bool = True,
    progress: Progress | None = None,
) -> Conversion:
    """Write *source* anew in *dtype*. The source is never written to.

    The output appears under its name when all of it is complete and on the disk; after an
    error nothing is left. If there is nothing to change, nothing is written.

    Args:
        source: a checkpoint's folder, a weights file, or what `inspect` or `plan` returned.
        dtype: the target, as for `plan`; left out if *source* is a plan.
        out: where to write; beside the source, with the dtype in its name, if left out.
        keep: as for `plan`.
        keep_rules: as for `plan`.
        workers: the threads to use; by default the CPUs this process may use.
        evidence: whether to look at what rounding did to each tensor.
        progress: called now and then with the bytes of the source that were done since.

    Raises:
        RecastError: what `plan` raises; TargetError if *out* is taken or too small;
            StorageError if the disk fails.

    Example:
        >>> conversion = recast.convert("./ckpt", "bfloat16")  # doctest: +SKIP
        >>> conversion.target, conversion.total.lossless  # doctest: +SKIP
        (PosixPath('/models/ckpt-bf16'), 291)
    """
    if isinstance(source, Plan):
        if dtype is not None:
            raise DtypeError(str(dtype), "is given beside a plan", "make the plan with it")
        made = source
    else:
        made = plan(source, dtype, keep=keep, keep_rules=keep_rules)
    begun = time.monotonic()
    if not made.changes:
        return Conversion(made, None, (), time.monotonic() - begun)
    target = Path(out) if out else made.default_target
    check_target(made, target)
    with staging(target, is_file=made.checkpoint.is_file) as folder:
        shards = tuple(
            convert_shard(
                shard,
                _source_of(made, shard.name),
                folder / (target.name if made.checkpoint.is_file else shard.name),
                workers=workers or default_workers(),
                evidence=evidence,
                progress=progress,
            )
            for shard in made.shards
            if shard.changes
        )
        _copy(made, folder, progress)
    return Conversion(made, target, shards, time.monotonic() - begun)


def _source_of(made: Plan, name: str) -> Path:
    """Return where the file *name* of the checkpoint lies."""
    path = made.checkpoint.path
    return path if made.checkpoint.is_file else path / name


def _copy(made: Plan, folder: Path, progress: Progress | None) -> None:
    """Write all that holds no changed tensor: what is copied, then configs, then indexes."""
    unchanged = ((shard.name, shard.size) for shard in made.shards if not shard.changes)
    for name, size in (*unchanged, *((file.name, file.size) for file in made.copies)):
        copy_file(_source_of(made, name), folder / name)
        if progress is not None:
            progress(size)
    for document in made.documents:
        like = _source_of(made, document.name)
        write_file(folder / document.name, document.text.encode(), like)
        if progress is not None:
            progress(document.size_before)
