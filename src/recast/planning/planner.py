"""plan(): what a policy makes of a checkpoint, down to the last byte, before anything is done."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path, PurePosixPath

from recast.dtypes import Dtype
from recast.errors import CheckpointError, RefusedError
from recast.formats import header
from recast.formats.checkpoint import Checkpoint, File, Shard
from recast.formats.findings import Finding, Severity, findings
from recast.formats.header import TensorInfo
from recast.formats.hub_path import HubPath
from recast.planning import keep_rules
from recast.planning.policy import Decide, Policy, Reason


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
    """

    checkpoint: Checkpoint
    policy: Policy
    shards: tuple[ShardPlan, ...]
    documents: tuple[DocumentPlan, ...]
    copies: tuple[File, ...]

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
        digest = sha256(f"{place} {self.policy.fingerprint}".encode())
        for shard in self.shards:
            digest.update(f"{shard.name} {shard.size_before} {shard.modified}".encode())
            digest.update(shard.source.digest.encode() + shard.head)
        for document in self.documents:
            digest.update(f"{document.name} {document.text}".encode())
        for file in self.copies:
            digest.update(f"{file.name} {file.size}".encode())
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
        """Each tensor that somebody decided to leave in another dtype, with its shard."""
        for shard in self.shards:
            yield from ((shard.name, each) for each in shard.tensors if each.reason.keeps)

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

    Raises RefusedError if the checkpoint is quantized, CheckpointError if anything else
    about it must be settled first.
    """
    refuse_blocked(each for each in findings(checkpoint) if each.name not in policy.allow)
    _refuse_idle_patterns(checkpoint, policy)
    rules = _rules(checkpoint, policy.target)
    shards = tuple(
        _plan_shard(shard, policy.decider(rules[_home(shard)])) for shard in checkpoint.shards
    )
    documents = tuple(_plan_documents(checkpoint, policy.target, shards))
    planned = {shard.name for shard in shards} | {each.name for each in documents}
    copies = tuple(file for file in checkpoint.all_files if file.name not in planned)
    return Plan(checkpoint, policy, shards, documents, copies)


def refuse_blocked(found: Iterable[Finding]) -> None:
    """Raise the first of *found* that stops a conversion, as an error."""
    for finding in found:
        if finding.severity is Severity.ERROR:
            kind = RefusedError if finding.name == "quantized" else CheckpointError
            raise kind(finding.subject, finding.problem, finding.remedy)


def _home(shard: Shard) -> PurePosixPath:
    """Return the folder of a shard, relative to the checkpoint: there lies what goes with it."""
    return PurePosixPath(shard.name).parent


def _rules(checkpoint: Checkpoint, target: Dtype) -> dict[PurePosixPath, keep_rules.Rule]:
    """Return, by folder, what must stay fp32 there, going by its config and all its tensors."""
    homes: dict[PurePosixPath, list[Shard]] = {}
    for shard in checkpoint.shards:
        homes.setdefault(_home(shard), []).append(shard)
    return {home: _rule(checkpoint, shards, target) for home, shards in homes.items()}


def _rule(checkpoint: Checkpoint, shards: list[Shard], target: Dtype) -> keep_rules.Rule:
    """Return what must stay fp32 in *shards*, which lie in one folder."""
    config = checkpoint.config_of(shards[0].name)
    model_type, parts = (None, ()) if config is None else (config.model_type, config.parts)
    beside = [shard.header.tensors for shard in shards]
    return keep_rules.rule(
        model_type, target, parts, lambda name: any(name in tensors for tensors in beside)
    )


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


def _refuse_idle_patterns(checkpoint: Checkpoint, policy: Policy) -> None:
    """Refuse a pattern to keep that keeps nothing: what it was meant for would be rounded."""
    for pattern in policy.keep:
        names = (name for shard in checkpoint.shards for name in shard.header.tensors)
        if not any(fnmatchcase(name, pattern) for name in names):
            raise RefusedError(
                str(checkpoint.path),
                f"no tensor matches --keep {pattern}",
                "mend the pattern: it must match a whole name, as in '*.norm.weight'",
            )


def _plan_documents(
    checkpoint: Checkpoint, target: Dtype, shards: Iterable[ShardPlan]
) -> Iterable[DocumentPlan]:
    """Yield the configs and indexes whose text must change, configs first."""
    sizes = {shard.name: shard.data_size for shard in shards}
    texts = [(each.name, each.text, each.retold(target)) for each in checkpoint.configs.values()]
    for weights in checkpoint.weights:
        if weights.index is not None:
            total = sum(sizes[shard.name] for shard in weights.shards)
            texts.append((weights.name, weights.index.text, weights.index.retold(total, target)))
    for name, before, after in texts:
        if before != after:
            yield DocumentPlan(name, len(before.encode()), after)
