"""A plan: all that a conversion will write, down to the last byte, as values."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from pathlib import Path

from recast.dtypes import Dtype
from recast.formats import header
from recast.formats.checkpoint import Checkpoint, File
from recast.formats.header import TensorInfo
from recast.formats.hub_path import HubPath
from recast.planning.likeness import Likeness
from recast.planning.policy import Policy, Reason


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
    def wish(self) -> str:
        """What tensors are rounded to, and which: it differs where another plan may differ.

        Empty if no tensor is touched, whatever happens.
        """
        return "" if self.only_documents else self.policy.fingerprint

    @property
    def fingerprint(self) -> str:
        """A digest that differs for plans that write anything else, or from anything else."""
        path = self.checkpoint.path
        place = path.resolve() if isinstance(path, Path) else (path.repo, path.folder, path.commit)
        digest = sha256(_bytes(f"{place} {self.wish}"))
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


def _bytes(text: str) -> bytes:
    """Return *text* as bytes; in the name of a file those that are no UTF-8, as they are."""
    return text.encode(errors="surrogateescape")
