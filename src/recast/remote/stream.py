"""A plan for a checkpoint on the Hub, carried out shard by shard: fetched, converted, handed on.

While one shard is uploaded, the next is fetched and converted, as far as there is room: what
lies on the disk at any time is never more than two shards, and small files.
"""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path

from recast.errors import AGAIN, RefusedError, StorageError, TargetError
from recast.execution.anew import Written, workplace_beside
from recast.execution.publish import is_copied, making, publish, write_file
from recast.execution.shard import Effort, convert_shard
from recast.execution.storage import naming
from recast.execution.target import check_space
from recast.execution.workplace import Workplace, workplace
from recast.hub import Hub, RejectedError, Sent
from recast.planning.plan import Plan, ShardPlan
from recast.remote.destination import holds
from recast.remote.lane import Lane, Room
from recast.remote.repository import Repository
from recast.reports.conversion import ShardConversion
from recast.reports.evidence import refuse_loss

_HEADERS = 100_000  # bytes: half a shard's data, with its header, is a little more than half
Send = Callable[[str, Path], Sent | None]


@dataclass(frozen=True, slots=True)
class _Item:
    """One file to be fetched: the *number*-th, and what it becomes if it is converted."""

    number: int
    name: str
    size: int
    shard: ShardPlan | None = None

    @property
    def size_after(self) -> int:
        """The bytes of the file that is made of it."""
        return self.shard.size if self.shard is not None else 0


@dataclass(slots=True)
class Outcome:
    """What was made of a plan.

    Attributes:
        sent: what the Hub has received, by name.
        small: what goes with the commit, and where it lies.
        discarded: whether a run that was killed had left anything of another plan.
        resumed: how many shards it had left complete.
        seconds: how long it took.
    """

    sent: dict[str, Sent] = field(default_factory=dict)
    small: dict[str, Path] = field(default_factory=dict)
    discarded: bool = False
    resumed: int = 0
    seconds: float = 0.0
    converted: dict[int, ShardConversion] = field(default_factory=dict)

    @property
    def shards(self) -> tuple[ShardConversion, ...]:
        """The weights files that were converted, in the plan's order."""
        return tuple(self.converted[number] for number in sorted(self.converted))


def to_folder(plan: Plan, target: Path, effort: Effort) -> Written:
    """Carry out *plan*, and give the result the name *target* when all of it is complete.

    What is complete stays for the next run of the same plan, unless values would be lost.
    """
    target = target.resolve()
    with making(target.parent), workplace(workplace_beside(target), target) as work:
        with naming(work.folder), _tidied(work):
            discarded = work.begin(plan)
            largest = max(shard.size_before for shard in plan.shards)
            check_space(plan.size - work.staged_bytes() + largest, target)
            stream = _Stream(plan, work, effort, None)
            outcome = stream.run(_items(plan, None))
            for document in plan.documents:
                write_file(work.result / document.name, document.text.encode(), 0o644, work.folder)
            publish(work.result, target, is_file=plan.checkpoint.is_file)
        work.remove()
    return Written(outcome.shards, outcome.resumed, discarded)


@contextmanager
def to_hub(
    plan: Plan, repo: str, wanted: frozenset[str], send: Send, effort: Effort
) -> Iterator[Outcome]:
    """Carry out *plan*, uploading each file with *send*, and yield what is to be committed.

    Args:
        plan: what to do.
        repo: where it goes.
        wanted: the files that are not there already.
        send: uploads one file.
        effort: how to go about it.

    What is uploaded is remembered until the block has ended well.
    """
    begun = time.monotonic()
    folder = _own_folder() / sha256(f"{plan.checkpoint.path} {repo}".encode()).hexdigest()[:16]
    with workplace(folder, folder) as work:
        with naming(work.folder), _tidied(work):
            discarded = work.begin(plan)
            stream = _Stream(plan, work, effort, send)
            items = _items(plan, wanted)
            check_space(_room(items), work.folder / "source")
            outcome = stream.run(items)
            outcome.discarded = discarded
            outcome.seconds = time.monotonic() - begun
            yield outcome
        work.remove()


@contextmanager
def _tidied(work: Workplace) -> Iterator[None]:
    """Let nothing stay of what would do harm, or has been rejected."""
    try:
        yield
    except (RefusedError, RejectedError):
        work.remove()
        raise


def _own_folder() -> Path:
    """Return a folder for this user's unfinished uploads, where temporary files go."""
    folder = Path(tempfile.gettempdir()) / f"recast-{os.getuid()}"
    with naming(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise TargetError(str(folder), "belongs to somebody else", "set TMPDIR to your own")
    return folder


def _items(plan: Plan, wanted: frozenset[str] | None) -> list[_Item]:
    """Return what has to be fetched for *plan*, the shards first."""
    shards = [
        _Item(number, shard.name, shard.size_before, shard if shard.changes else None)
        for number, shard in enumerate(plan.shards)
    ]
    others = [
        _Item(len(shards) + number, file.name, file.size) for number, file in enumerate(plan.copies)
    ]
    named = {item.name for item in shards}
    items = (*shards, *(item for item in others if item.name not in named))
    return [item for item in items if wanted is None or item.name in wanted]


def _room(items: list[_Item]) -> int:
    """Return the bytes that two of the largest files take, and a little for headers."""
    return 2 * max((max(item.size, item.size_after) for item in items), default=0) + _HEADERS


class _Stream:
    """The way of every file of a plan: fetched, converted if it changes, uploaded or kept."""

    def __init__(self, plan: Plan, work: Workplace, effort: Effort, send: Send | None) -> None:
        """Prepare. Without *send*, what is made stays in the workplace's result."""
        self.plan, self.work, self.effort, self.send = plan, work, effort, send
        self.hub = Hub()
        self.repository = Repository.of(self.hub, plan.checkpoint)
        self.outcome = Outcome()
        self.source = work.folder / "source"
        if self.source.exists():
            shutil.rmtree(self.source)  # of a run that was killed, perhaps incomplete

    def run(self, items: list[_Item]) -> Outcome:
        """Do all of *items*, and return what came of it."""
        todo = [item for item in items if not self._is_done(item)]
        room = Room(_room(todo))
        with Lane(room) as fetching, Lane(room) as sending:
            arrivals = [fetching.add(partial(self._fetch, item, room)) for item in todo]
            for item, arrival in zip(todo, arrivals, strict=True):
                made = self._make(item, arrival.result(), room)
                sending.add(partial(self._hand_on, item, made, room))
            sending.finish()
        return self.outcome

    def _is_done(self, item: _Item) -> bool:
        """Whether a run that was killed has done all of *item*; then take it over."""
        done = None
        if item.shard is not None:
            done = self.work.recall(item.number, item.shard, evidence=self.effort.evidence)
            if done is None:
                return False
        if self.send is None:
            modified = self.repository.modified
            if not is_copied(self._result(item), item.size_after or item.size, modified):
                return False
        elif (sent := self._recall(item)) is not None:
            self.outcome.sent[item.name] = sent
        else:
            return False
        if done is not None:
            self.outcome.converted[item.number] = done
            self.outcome.resumed += 1
        self.effort.advance(item.size)
        return True

    def _fetch(self, item: _Item, room: Room) -> Path:
        """Fetch a file once there is room for it and for what is made of it."""
        room.take(item.size + item.size_after)
        entry = self.repository.entries[item.name]
        path = self.hub.download(self.repository.path, entry.name, self.source)
        with naming(path):
            os.utime(path, ns=(self.repository.modified, self.repository.modified))
        if path.stat().st_size != entry.size or not holds(path, entry):
            path.unlink()
            raise StorageError(
                f"{self.repository.path}: {item.name}",
                "arrived damaged: its hash is not the one that the Hub states",
                AGAIN,
            )
        return path

    def _make(self, item: _Item, source: Path, room: Room) -> Path:
        """Convert a file that was fetched, or leave it as it is, and return where it lies."""
        made = self._result(item)
        made.parent.mkdir(parents=True, exist_ok=True)
        if item.shard is None:
            source.rename(made)
            self.effort.advance(item.size)
            return made
        done = convert_shard(item.shard, source, made, self.work.folder, self.effort)
        refuse_loss(item.name, done.evidence, self.plan.policy)
        source.unlink()
        room.give(item.size)
        self.work.remember(item.number, done)
        self.outcome.converted[item.number] = done
        return made

    def _hand_on(self, item: _Item, made: Path, room: Room) -> None:
        """Upload what was made, unless it stays."""
        sent = self.send(item.name, made) if self.send is not None else None
        if sent is not None:
            content = json.dumps(asdict(sent)).encode()
            write_file(self._record(item), content, 0o600, self.work.folder)
            self.outcome.sent[item.name] = sent
            made.unlink()
        else:
            self.outcome.small[item.name] = made
        room.give(item.size_after if item.shard is not None else item.size)

    def _result(self, item: _Item) -> Path:
        """Return where what is made of *item* lies."""
        name = self.work.folder.name if self.plan.checkpoint.is_file else item.name
        if self.plan.checkpoint.is_file and self.send is None:
            name = name.removeprefix(".").removesuffix(".recast")  # the target's own name
        return self.work.result / name

    def _record(self, item: _Item) -> Path:
        """Return where it is written that *item* was uploaded."""
        return self.work.folder / f"sent-{item.number}.json"

    def _recall(self, item: _Item) -> Sent | None:
        """Return what was uploaded of *item* before; None if it was not."""
        try:
            entry: Mapping[str, object] = json.loads(self._record(item).read_bytes())
            sent = Sent(str(entry["name"]), int(str(entry["size"])), str(entry["sha256"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return sent if sent.name == item.name else None
