"""plan(): what a policy makes of a checkpoint, down to the last byte, before anything is done."""

import posixpath
from collections.abc import Collection, Iterable
from dataclasses import replace
from fnmatch import fnmatchcase

from recast.dtypes import Dtype
from recast.errors import CheckpointError, RefusedError
from recast.formats import header
from recast.formats.checkpoint import Checkpoint, Shard, Weights, main_dtype, most_used
from recast.formats.findings import Finding, Severity, findings
from recast.planning import keep_rules, likeness
from recast.planning.likeness import Likeness
from recast.planning.plan import DocumentPlan, Plan, ShardPlan, TensorPlan
from recast.planning.policy import AS_STORED, Decide, Policy, matching


def make_plan(checkpoint: Checkpoint, policy: Policy) -> Plan:
    """Decide what *policy* makes of *checkpoint*. Pure: nothing is read or written.

    Raises RefusedError if the checkpoint is quantized or is not of the architecture of the base
    model, CheckpointError if anything else about it must be settled first.
    """
    refuse_blocked(each for each in findings(checkpoint) if not _is_allowed(each, policy))
    _refuse_patterns(checkpoint, policy)
    like = None if policy.base is None else likeness.compare(checkpoint, policy.base)
    shards: dict[str, ShardPlan] = {}
    for weights in checkpoint.weights:
        decide = None
        for shard in weights.shards:
            if shard.name not in shards:
                decide = decide or _decider(checkpoint, policy, weights, like)
                shards[shard.name] = _plan_shard(shard, decide)
    return _whole(Plan(checkpoint, policy, tuple(shards.values()), (), (), like))


def plan_documents(checkpoint: Checkpoint, allow: Collection[str] = ()) -> Plan:
    """Decide what makes configs and indexes tell the truth; no weights file is touched.

    Of a quantized model only the sums are known: what it computes in is not what is stored.
    Pure: nothing is read or written. Raises CheckpointError if anything that *allow* does not
    hold must be settled first.
    """
    found = findings(checkpoint)
    refuse_blocked(each for each in found if each.name not in {"quantized", *allow})
    is_quantized = any(each.name == "quantized" for each in found)
    shards = tuple(
        ShardPlan(
            shard.name,
            shard.header,
            tuple(
                TensorPlan(name, tensor, tensor.dtype, AS_STORED)
                for name, tensor in shard.header.tensors.items()
            ),
            shard.header.data_size,
            b"",
            shard.modified,
        )
        for shard in checkpoint.shards
    )
    policy = Policy(main_dtype(checkpoint.shards) or Dtype.F32)
    plan = Plan(checkpoint, policy, shards, (), (), only_documents=True)
    return _whole(plan, tells_dtype=not is_quantized)


def _whole(plan: Plan, *, tells_dtype: bool = True) -> Plan:
    """Return *plan*, whose shards are known, with the files that follow from them."""
    documents = tuple(_plan_documents(plan.checkpoint, plan.shards, tells_dtype=tells_dtype))
    planned = {shard.name for shard in plan.shards} | {each.name for each in documents}
    copies = tuple(file for file in plan.checkpoint.all_files if file.name not in planned)
    return replace(plan, documents=documents, copies=copies)


def _is_allowed(finding: Finding, policy: Policy) -> bool:
    """Whether the user has chosen to go on; codes cannot be cast, whatever the user says."""
    return finding.name in policy.allow and finding.name != "quantized"


def refuse_blocked(found: Iterable[Finding]) -> None:
    """Raise the first of *found* that stops a conversion, as an error."""
    for finding in found:
        if finding.severity is Severity.ERROR:
            kind = RefusedError if finding.name == "quantized" else CheckpointError
            raise kind(finding.subject, finding.problem, finding.remedy)


def _decider(
    checkpoint: Checkpoint, policy: Policy, weights: Weights, like: Likeness | None
) -> Decide:
    """Return the function that decides for each tensor of *weights*."""
    home = posixpath.dirname(weights.name)
    config = checkpoint.config_of(weights.shards[0].name)
    model_type, parts = (None, ()) if config is None else (config.model_type, config.parts)
    # What one set of weights in a folder lacks, such as a neighbour, another may hold.
    beside = [
        shard.header.tensors
        for each in checkpoint.weights
        if posixpath.dirname(each.name) == home
        for shard in each.shards
    ]
    rule = keep_rules.rule(
        model_type, policy.target, parts, lambda name: any(name in tensors for tensors in beside)
    )
    return policy.decider(rule, None if like is None else like.dtypes.get(home))


def _plan_shard(shard: Shard, decide: Decide) -> ShardPlan:
    """Decide for each tensor of *shard*, and lay out what is written."""
    planned = (
        TensorPlan(name, tensor, *decide(name, tensor))
        for name, tensor in shard.header.tensors.items()
    )
    tensors = tuple(sorted(planned, key=lambda each: header.layout_key(each.name, each.dtype)))
    # transformers 4 does not load a file that fails to say which framework wrote it.
    metadata = {"format": "pt"} | dict(shard.header.metadata or {})
    head = b""
    if metadata != shard.header.metadata or any(tensor.changes for tensor in tensors):
        layout = ((each.name, each.dtype, each.source.shape, each.nbytes) for each in tensors)
        head = header.encode(layout, dict(sorted(metadata.items())))
    size = sum(each.nbytes for each in tensors)
    return ShardPlan(shard.name, shard.header, tensors, size, head, shard.modified)


def _refuse_patterns(checkpoint: Checkpoint, policy: Policy) -> None:
    """Refuse patterns that match nothing, which were meant for something, or contradict."""
    names = [name for shard in checkpoint.shards for name in shard.header.tensors]
    for option, patterns in (("--keep", policy.keep), ("--cast", policy.cast)):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise RefusedError(
                    str(checkpoint.path),
                    f"no tensor matches {option} {pattern}",
                    "mend the pattern: it must match a whole name, as in '*.norm.weight'",
                )
    if not policy.keep or not policy.cast:
        return
    for name in names:
        keep, cast = matching(name, policy.keep), matching(name, policy.cast)
        if keep is not None and cast is not None:
            raise RefusedError(
                str(checkpoint.path),
                f"tensor {name!r} matches both --keep {keep} and --cast {cast}",
                "mend one of the patterns",
            )


def _plan_documents(
    checkpoint: Checkpoint, shards: Iterable[ShardPlan], *, tells_dtype: bool
) -> Iterable[DocumentPlan]:
    """Yield the configs and indexes whose text must change, configs first.

    Each says the dtype in which most of what it speaks of will be stored: what loaders take for
    the whole, so that a few tensors that are kept do not widen the others in memory. Unless it
    *tells_dtype*, what each says of that stays.
    """
    planned = {shard.name: shard for shard in shards}
    texts = []
    for config in checkpoint.configs.values():
        speaks_of = [planned[shard.name] for shard in checkpoint.shards_of(config)]
        main = _main_dtype(speaks_of) if tells_dtype else None
        texts.append((config.name, config.text, config.retold(main)))
    for weights in checkpoint.weights:
        if weights.index is not None:
            own = [planned[shard.name] for shard in weights.shards]
            total = sum(shard.data_size for shard in own)
            text = weights.index.retold(total, _main_dtype(own) if tells_dtype else None)
            texts.append((weights.name, weights.index.text, text))
    for name, before, after in texts:
        if before != after:
            yield DocumentPlan(name, len(before.encode()), after)


def _main_dtype(shards: Iterable[ShardPlan]) -> Dtype | None:
    """Return the floating dtype that most parameters of *shards* will have."""
    return most_used(
        (tensor.dtype, tensor.source.parameters) for shard in shards for tensor in shard.tensors
    )
