"""Where a conversion is prepared: a folder, locked while it runs, found again if it is killed."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any

from recast.dtypes import Dtype
from recast.errors import RefusedError, StorageError
from recast.execution.lock import Lock
from recast.execution.publish import write_file
from recast.execution.storage import naming, sync_folder
from recast.planning.plan import Plan, ShardPlan
from recast.reports.conversion import ShardConversion
from recast.reports.evidence import Evidence

LOCK = "lock"
_JOURNAL = "journal.json"
# Evidence as a row of a record. dataclasses.astuple copies each field deeply: 40 times as slow.
_FIELDS = attrgetter(*(field.name for field in fields(Evidence)))


class Workplace:
    """A locked folder beside, or in, what is being written.

    Attributes:
        folder: the folder itself; temporary files go here.
        result: the folder in which the files of a new checkpoint are gathered.
        left: what the journal of a run that was killed says; empty if there was none.
    """

    def __init__(self, folder: Path, left: Mapping[str, Any]) -> None:
        """Take over *folder*, which is locked, with what its journal says."""
        self.folder = folder
        self.result = folder / "result"
        self.left = left

    def begin(self, plan: Plan) -> bool:
        """Make the journal say that *plan* is carried out; keep what belongs to it already.

        Returns whether anything else had been left here, and is gone now.
        """
        entry = {
            "plan": plan.fingerprint,
            "wish": plan.wish,
            "dtype": plan.policy.target.torch_name,
        }
        with naming(self.folder):
            if self.left != entry:
                self._clear()
            self.result.mkdir(exist_ok=True)
            for partial in self.folder.glob("*.partial"):
                partial.unlink()
        if self.left != entry:
            # In one step: at every instant it says what has been begun here.
            write_file(self.folder / _JOURNAL, json.dumps(entry).encode(), 0o600, self.folder)
        return bool(self.left) and self.left != entry

    def remember(self, number: int, shard: ShardConversion) -> None:
        """Write down that shard *number* of the plan is done, with its evidence."""
        rows = [_FIELDS(each) for each in shard.evidence]
        write_file(self._record(number), json.dumps(rows).encode(), 0o600, self.folder)

    def recall(self, number: int, shard: ShardPlan, *, evidence: bool) -> ShardConversion | None:
        """Return what `remember` wrote down of *shard*.

        None if it did not, or if *evidence* is wanted and was not gathered then.
        """
        try:
            rows = json.loads(self._record(number).read_text(encoding="utf-8"))
            found = tuple(
                Evidence(tensor, Dtype.of_tag(source), Dtype.of_tag(dtype), *values)
                for tensor, source, dtype, *values in rows
            )
        except (OSError, ValueError, TypeError, KeyError):
            return None
        if evidence and len(found) < sum(tensor.changes for tensor in shard.tensors):
            return None
        return ShardConversion(shard.name, shard.size, found)

    def remove(self) -> None:
        """Remove the folder with all that is in it, the lock last: until then nobody gets in."""
        with suppress(OSError):
            while self._clear():  # a late job may put something there meanwhile
                pass
            for name in (_JOURNAL, LOCK):
                (self.folder / name).unlink(missing_ok=True)
            self.folder.rmdir()

    def staged_bytes(self) -> int:
        """Return the bytes of what has been gathered."""
        return sum(file.lstat().st_size for file in self.result.rglob("*") if file.is_file())

    def _record(self, number: int) -> Path:
        """Return where it is written that shard *number* is done."""
        return self.folder / f"shard-{number}.json"

    def _clear(self) -> bool:
        """Remove everything but the lock and the journal, which is only ever replaced.

        Returns whether there was anything.
        """
        left = [each for each in self.folder.iterdir() if each.name not in {_JOURNAL, LOCK}]
        for entry in left:
            if entry.is_dir():
                shutil.rmtree(entry)
            else:
                entry.unlink(missing_ok=True)  # a late job removes its own
        return bool(left)


def tidy(folder: Path, subject: Path, in_place: Plan | None = None) -> None:
    """Remove the workplace *folder* of a run that was killed when its work was done already.

    Raises RefusedError if it wrote *in_place* and its work was not this one, which is done.
    """
    with naming(folder):
        left = folder.is_dir()
    if left:
        with workplace(folder, subject) as work:
            if in_place is not None:
                refuse_mixture(in_place, work)
            work.remove()


def refuse_mixture(plan: Plan, work: Workplace) -> None:
    """Refuse to go on where another conversion was begun: some tensors may be rounded already."""
    begun = work.left.get("wish")
    if begun and begun != plan.wish:
        raise RefusedError(
            str(plan.checkpoint.local_path),
            f"holds an unfinished conversion to {work.left.get('dtype', 'another dtype')}, "
            "made with other options",
            f"finish it with those, or delete {work.folder} to go on from what is there",
        )


@contextmanager
def workplace(folder: Path, subject: Path) -> Iterator[Workplace]:
    """Make *folder*, or find it as a dead run has left it, and hold it locked.

    Nothing is removed at the end: that is for who knows whether it is needed again.

    Raises TargetError, about *subject*, while another process holds it.
    """
    with naming(subject):
        made = not folder.is_dir()
        folder.mkdir(exist_ok=True)
    try:
        lock = Lock(folder / LOCK, subject)
    except StorageError:
        with suppress(OSError):  # unless somebody has left something in it
            folder.rmdir()
        raise
    with lock:
        left: Mapping[str, Any] | None = {} if made else None
        try:
            # Of a new folder, too: who was faster may have begun in it, and been killed.
            left = _left_in(folder)
            sync_folder(folder.parent)
        except StorageError:
            if left == {}:
                Workplace(folder, left).remove()
            raise
        yield Workplace(folder, left)
    with suppress(OSError):  # NFS keeps a name for a lock that is removed while it is held
        folder.rmdir()


def _left_in(folder: Path) -> Mapping[str, Any]:
    """Return what the journal in *folder* says; nothing if there is none."""
    journal = folder / _JOURNAL
    with naming(journal):
        try:
            entry = json.loads(journal.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
    return entry if isinstance(entry, dict) else {}
