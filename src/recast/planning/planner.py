"""plan(): what a policy makes of a checkpoint, down to the last byte, before anything is done."""

import posixpath
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path

from recast.dtypes import Dtype
from recast.errors import CheckpointError, RefusedError
from recast.formats import header
from recast.formats.checkpoint import Checkpoint, File, Shard, Weights, main_dtype, most_used
from recast.formats.findings import Finding, Severity, findings
from recast.formats.header import TensorInfo
from recast.formats.hub_path import HubPath
from recast.planning import keep_rules, likeness
from recast.planning.likeness import Likeness
from recast.planning.policy import AS_STORED, Decide, Policy, Reason, matching


@dataclass(frozen=True, slots=True)
class TensorPlan:
    """One tensor: as it is, and the dtype it gets, with the reason."""

    name: str
    source: TensorInfo
    dtype: Dtype
    reason: Reason

    @property
    def changes(self) -> bool:
        """Whether the stored bytes change."""
        return self.dtype is not self.source.dtype

    @property
    def narrows(self) -> bool:
        """Whether values may change: the new dtype cannot hold all of the old one's."""
        return not self.dtype.holds(self.source.dtype)

    @property
    def nbytes(self) -> int:
        """The bytes of the tensor's data once it is written."""
        if self.dtype is self.source.dtype:
            return self.source.nbytes
        return self.source.nbytes * self.dtype.bits // self.source.dtype.bits


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """One weights file, as it is and as it will be.

    Attributes:
        name: the name it has and keeps.
        source: the header it has.
        tensors: in the order in which they will be written.
        data_size: the bytes of all of them, once written.
        head: the bytes that will stand before their data; empty if the file is copied.
        modified: when the file was last modified, in ns since 1970.
    """

    name: str
    source: header.Header = field(repr=False)
    tensors: tuple[TensorPlan, ...] = field(repr=False)
    data_size: int
    head: bytes = field(repr=False)
    modified: int = 0

    @property
    def changes(self) -> bool:
        """Whether the file is written anew, rather than copied bit for bit."""
        return bool(self.head)

    @property
    def size_before(self) -> int:
        """The bytes of the file as it is."""
        return self.source.file_size

    @property
    def size(self) -> int:
        """The bytes of the file once written."""
        return len(self.head) + self.data_size if self.changes else self.size_before


@dataclass(frozen=True, slots=True)
class DocumentPlan:
    """One config or index that will be written anew, with its new content."""

    name: str
    size_before: int
    text: str = field(repr=False)

    @property
    def size(self) -> int:
        """The bytes of the file once written."""
        return len(self.text.encode())


class Action(StrEnum):
    """What is done to make one file of the output."""

    CONVERT = "convert"
    REWRITE = "rewrite"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class FilePlan:
    """One file of the output: what is done, and its bytes as it is and as it will be."""

    action: Action
    name: str
    size_before: int
    size: int


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a conversion will write.

    Attributes:
        checkpoint: what it starts from.
        policy: what the user wants.
        shards: every weights file, whether it changes or not.
        documents: the configs and indexes that change: configs first.
        copies: the other files, which stay as they are, byte for byte.
        like: what the base model says of the tensors; None without one.
        only_documents: whether configs and indexes are all that may be written.
    """

    checkpoint: Checkpoint
    policy: Policy
    shards: tuple[ShardPlan, ...]
    documents: tuple[DocumentPlan, ...]
    copies: tuple[File, ...]
    like: Likeness | None = None
    only_documents: bool = False

    @property
    def changes(self) -> bool:
        """Whether the output would differ from the source in any byte."""
        return bool(self.documents) or any(shard.changes for shard in self.shards)

    def source_of(self, name: str) -> Path:
        """Return where the file *name* of the checkpoint lies."""
        return self.checkpoint.place_of(name)

    @property
    def may_lose(self) -> bool:
        """Whether values may change, so that one has to look at them to know."""
        return any(tensor.narrows for shard in self.shards for tensor in shard.tensors)

    @property
    def fingerprint(self) -> str:
        """A digest that differs for plans that write anything else, or from anything else."""
        path = self.checkpoint.path
        place = path.resolve() if isinstance(path, Path) else (path.repo, path.folder, path.commit)
        wish = f"{self.policy.fingerprint} {self.only_documents}"
        digest = sha256(_bytes(f"{place} {wish}"))
        for shard in self.shards:
            digest.update(_bytes(f"{shard.name} {shard.size_before} {shard.modified}"))
            digest.update(shard.source.digest.encode() + shard.head)
        for document in self.documents:
            digest.update(_bytes(f"{document.name} {document.text}"))
        for file in self.copies:
            digest.update(_bytes(f"{file.name} {file.size}"))
        return digest.hexdigest()

    @property
    def default_target(self) -> Path:
        """Where the output goes unless the user says otherwise: beside the source.

        What comes from the Hub goes into the current folder.
        """
        path = self.checkpoint.path
        if isinstance(path, HubPath):
            path = Path(path.name)
        if path.name in ("", ".."):  # such as ".", which has no name of its own
            path = path.resolve()
        suffix = path.suffix if self.checkpoint.is_file else ""
        name = path.name.removesuffix(suffix)
        return path.with_name(f"{name}-{self.policy.target.short_name}{suffix}")

    @property
    def kept(self) -> Iterator[tuple[str, TensorPlan]]:
        """Each floating tensor that gets another dtype than the target, with its shard."""
        for shard in self.shards:
            for each in shard.tensors:
                if each.reason.keeps and each.dtype is not self.policy.target:
                    yield shard.name, each

    @property
    def files(self) -> Iterator[FilePlan]:
        """Every file of the output."""
        for shard in self.shards:
            action = Action.CONVERT if shard.changes else Action.COPY
            yield FilePlan(action, shard.name, shard.size_before, shard.size)
        for document in self.documents:
            yield FilePlan(Action.REWRITE, document.name, document.size_before, document.size)
        for file in self.copies:
            yield FilePlan(Action.COPY, file.name, file.size, file.size)

    @property
    def size_before(self) -> int:
        """The bytes, as they are now, of all files that the output will hold."""
        return sum(file.size_before for file in self.files)

    @property
    def size(self) -> int:
        """The bytes of all files of the output."""
        return sum(file.size for file in self.files)


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


def plan_documents(checkpoint: Checkpoint) -> Plan:
    """Decide what makes configs and indexes tell the truth; no weights file is touched.

    Pure: nothing is read or written. Raises RefusedError if the checkpoint is quantized,
    CheckpointError if anything else about it must be settled first.
    """
    refuse_blocked(findings(checkpoint))
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
    return _whole(Plan(checkpoint, policy, shards, (), (), only_documents=True))


def _bytes(text: str) -> bytes:
    """Return *text* as bytes; in the name of a file those that are no UTF-8, as they are."""
    return text.encode(errors="surrogateescape")


def _whole(plan: Plan) -> Plan:
    """Return *plan*, whose shards are known, with the files that follow from them."""
    documents = tuple(_plan_documents(plan.checkpoint, plan.shards))
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


def _plan_documents(checkpoint: Checkpoint, shards: Iterable[ShardPlan]) -> Iterable[DocumentPlan]:
    """Yield the configs and indexes whose text must change, configs first.

    Each says the dtype in which most of what it speaks of will be stored: what loaders take for
    the whole, so that a few tensors that are kept do not widen the others in memory.
    """
    planned = {shard.name: shard for shard in shards}
    texts = []
    for config in checkpoint.configs.values():
        main = _main_dtype(planned[shard.name] for shard in checkpoint.shards_of(config))
        texts.append((config.name, config.text, config.retold(main)))
    for weights in checkpoint.weights:
        if weights.index is not None:
            own = [planned[shard.name] for shard in weights.shards]
            total = sum(shard.data_size for shard in own)
            text = weights.index.retold(total, _main_dtype(own))
            texts.append((weights.name, weights.index.text, text))
    for name, before, after in texts:
        if before != after:
            yield DocumentPlan(name, len(before.encode()), after)


def _main_dtype(shards: Iterable[ShardPlan]) -> Dtype | None:
    """Return the floating dtype that most parameters of *shards* will have."""
    return most_used(
        (tensor.dtype, tensor.source.parameters) for shard in shards for tensor in shard.tensors
    )
