"""Where a conversion is prepared: a folder, locked while it runs, found again if it is killed."""

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

from recast.dtypes import Dtype
from recast.errors import TargetError
from recast.execution.publish import write_file
from recast.execution.storage import naming, sync_folder
from recast.planning.planner import Plan
from recast.reports.conversion import ShardConversion
from recast.reports.evidence import Evidence

_JOURNAL = "journal.json"


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
        stale = bool(self.left) and self.left.get("plan") != plan.fingerprint
        if stale:
            self._clear()
        with naming(self.folder):
            self.result.mkdir(exist_ok=True)
            for partial in self.folder.glob("*.partial"):
                partial.unlink()
        entry = {
            "plan": plan.fingerprint,
            "wish": plan.policy.fingerprint,
            "dtype": plan.policy.target.torch_name,
            "process": os.getpid(),
            "host": socket.gethostname(),
        }
        # Into the very file that is locked: a new one would be nobody's.
        with naming(self.folder), (self.folder / _JOURNAL).open("r+", encoding="utf-8") as journal:
            journal.truncate(0)
            json.dump(entry, journal)
            journal.flush()
            os.fsync(journal.fileno())
        sync_folder(self.folder)
        return stale

    def remember(self, number: int, shard: ShardConversion) -> None:
        """Write down that shard *number* of the plan is done, with its evidence."""
        rows = [astuple(each) for each in shard.evidence]
        write_file(self._record(number), json.dumps(rows).encode(), 0o600, self.folder)

    def recall(self, number: int, name: str, size: int) -> ShardConversion | None:
        """Return what `remember` wrote down; None if it did not."""
        try:
            rows = json.loads(self._record(number).read_text(encoding="utf-8"))
            evidence = (
                Evidence(tensor, Dtype.of_tag(source), Dtype.of_tag(dtype), *values)
                for tensor, source, dtype, *values in rows
            )
            return ShardConversion(name, size, tuple(evidence))
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def staged_bytes(self) -> int:
        """Return the bytes of what has been gathered."""
        return sum(file.lstat().st_size for file in self.result.rglob("*") if file.is_file())

    def _record(self, number: int) -> Path:
        """Return where it is written that shard *number* is done."""
        return self.folder / f"shard-{number}.json"

    def _clear(self) -> None:
        """Remove everything but the journal, which is locked."""
        for entry in self.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif entry.name != _JOURNAL:
                entry.unlink()


def tidy(folder: Path, subject: Path) -> None:
    """Remove the workplace *folder* of a run that was killed when its work was done already."""
    if folder.is_dir():
        with workplace(folder, subject) as work:
            work.remove()


@contextmanager
def workplace(folder: Path, subject: Path) -> Iterator[Workplace]:
    """Make *folder*, or find it as a dead run has left it, and hold it locked.

    Nothing is removed at the end: that is for who knows whether it is needed again.

    Raises TargetError, about *subject*, while another process holds it.
    """
    with naming(subject):
        folder.mkdir(exist_ok=True)
    with naming(folder), (folder / _JOURNAL).open("a+", encoding="utf-8") as journal:
        try:
            fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            journal.seek(0)
            holder = _whom(_parsed(journal.read()))
            raise TargetError(
                str(subject), f"is being written by {holder}", "wait until it is done"
            ) from None
        if not os.fstat(journal.fileno()).st_nlink:  # opened before, locked after it was done
            raise TargetError(
                str(subject), "has just been written by another process", "look at it"
            )
        journal.seek(0)
        yield Workplace(folder, _parsed(journal.read()))


def _parsed(journal: str) -> Mapping[str, Any]:
    """Return what a journal says; nothing if it was never finished."""
    try:
        entry = json.loads(journal)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def _whom(entry: Mapping[str, Any]) -> str:
    """Return who wrote a journal, in words."""
    if "process" not in entry:
        return "another process"
    return f"process {entry['process']} on {entry.get('host', 'another machine')}"
