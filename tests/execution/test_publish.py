"""Files and folders appear under their names when they are complete, and not before."""

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest

from recast import StorageError, TargetError
from recast.execution.publish import copy_file, is_copied, making, publish, replacing, write_file

LONG_AGO = 1_234_567_891_011_121_314  # in ns, as exact as file systems are


def names(folder: Path) -> list[str]:
    """Return what lies in *folder*."""
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("scratch", ["", "scratch"])
def test_a_file_appears_when_it_is_complete(tmp_path: Path, scratch: str) -> None:
    """Until the block is left, the name is free or holds the old file; then it holds the new."""
    place = tmp_path / scratch
    place.mkdir(exist_ok=True)
    path = tmp_path / "new/folder/file"
    for content, before in ((b"first", None), (b"second", b"first")):
        with replacing(path, len(content), 0o640, place if scratch else None) as output:
            output.write(content, 0)
            output.finish()
            assert (path.read_bytes() if path.exists() else None) == before
            assert output.path.parent == (place if scratch else path.parent)
        assert path.read_bytes() == content
        assert path.stat().st_mode & 0o7777 == 0o640
    assert names(path.parent) == ["file"]
    assert names(tmp_path) == sorted(["new", scratch] if scratch else ["new"])


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, StorageError])
def test_a_file_that_fails_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    """Whatever ends the block, what was written is removed, and the old file stays."""
    path = tmp_path / "file"
    path.write_text("old")
    failure = error("a", "b") if error is StorageError else error("a")

    def fail() -> None:
        with replacing(path, 9, 0o600) as output:
            output.write(b"some", 0)
            raise failure

    with pytest.raises(error) as caught:
        fail()
    assert caught.value is failure
    assert names(tmp_path) == ["file"]
    assert path.read_text() == "old"


def test_two_may_write_the_same_file(tmp_path: Path) -> None:
    """Two that write the same file at once do not disturb each other; the last one wins."""
    path = tmp_path / "file"
    with replacing(path, 1, 0o600) as first, replacing(path, 1, 0o600) as second:
        assert first.path != second.path
        first.write(b"1", 0)
        second.write(b"2", 0)
    assert path.read_bytes() == b"1"
    assert names(tmp_path) == ["file"]


def test_an_owner_that_may_be_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owner and group are kept as far as this user may set them; the rest is no error."""
    asked = []
    limits: set[int] = set()  # whose files may be given away

    def chown(_: object, owner: int, group: int) -> None:
        asked.append((owner, group))
        if owner not in limits:
            raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", chown)
    path = tmp_path / "file"
    path.touch()
    fields = list(path.stat())
    for owner, allowed, calls in (
        (0, {0}, [(0, 5)]),
        (7, {-1}, [(7, 5), (-1, 5)]),
        (7, set(), [(7, 5), (-1, 5)]),
    ):
        fields[stat.ST_UID], fields[stat.ST_GID] = owner, 5
        limits = allowed
        asked.clear()
        write_file(path, b"new", 0o640, owner=os.stat_result(fields))
        assert asked == calls
        assert path.read_bytes() == b"new"


@pytest.mark.parametrize("grain", [1, 100, 1_000, 10_000_000, 10**9, 2 * 10**9])
def test_times_as_exact_as_the_file_system_keeps_them(tmp_path: Path, grain: int) -> None:
    """A finished file is known on disks that keep no nanoseconds, too; an older one is not."""
    path = tmp_path / "file"
    path.touch()
    os.utime(path, ns=(0, LONG_AGO // grain * grain))
    assert is_copied(path, 0, LONG_AGO)
    for other in (LONG_AGO - 3 * 10**9, LONG_AGO + 3 * 10**9):
        assert not is_copied(path, 0, other)
    os.utime(path, ns=(0, LONG_AGO - 7))
    assert not is_copied(path, 0, LONG_AGO)


def test_durable_before_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is on the disk before it gets its name, and its folder is brought there after."""
    happened = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        fsync(descriptor)
        happened.append(("fsync", str(Path(f"/proc/self/fd/{descriptor}").readlink())))

    def note_replace(self: Path, target: Path) -> Path:
        happened.append(("rename", str(self)))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    (tmp_path / "source").write_text("content")
    for write in (
        lambda: write_file(tmp_path / "out", b"content", 0o600),
        lambda: copy_file(tmp_path / "source", tmp_path / "copy", tmp_path),
    ):
        happened.clear()
        write()
        (first, partial), (second, renamed), (third, folder) = happened
        assert (first, second, third) == ("fsync", "rename", "fsync")
        assert partial == renamed
        assert folder == str(tmp_path)


def test_a_copy_is_as_the_original(tmp_path: Path) -> None:
    """A copy has the bytes, the permission bits and the time of its source, even behind a link."""
    source, path = tmp_path / "source", tmp_path / "new/copy"
    source.write_bytes(os.urandom(100_000))
    source.chmod(0o750)
    os.utime(source, ns=(0, LONG_AGO))
    (tmp_path / "link").symlink_to("source")
    copy_file(tmp_path / "link", path, tmp_path)
    assert not path.is_symlink()
    assert path.read_bytes() == source.read_bytes()
    assert path.stat().st_mode == source.stat().st_mode
    assert path.stat().st_mtime_ns == LONG_AGO
    assert names(tmp_path) == ["link", "new", "source"]


def test_a_copy_that_is_there_is_left_alone(tmp_path: Path) -> None:
    """A copy of the same size and time is not made again; any other is replaced."""
    source, path = tmp_path / "source", tmp_path / "copy"
    source.write_text("content")
    copy_file(source, path, tmp_path)
    made = path.stat().st_ino
    copy_file(source, path, tmp_path)
    assert path.stat().st_ino == made
    path.write_text("CONTENT")
    copy_file(source, path, tmp_path)
    assert path.read_text() == "content"


def test_a_copy_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that fails half-way leaves nothing; the error names the copy, or a lost source."""
    source, path = tmp_path / "source", tmp_path / "copy"
    source.write_text("content")

    def fill_the_disk(_: Path, copy: Path) -> None:
        copy.write_text("con")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copy2", fill_the_disk)
    with pytest.raises(StorageError, match=f"^{path}: No space left on device; "):
        copy_file(source, path, tmp_path)
    assert names(tmp_path) == ["source"]
    source.unlink()
    with pytest.raises(StorageError, match=f"^{source}: No such file or directory; "):
        copy_file(source, path, tmp_path)


def test_what_counts_as_copied(tmp_path: Path) -> None:
    """Only a regular file of the same size and time counts as complete, and no link to one."""
    path = tmp_path / "file"
    path.write_text("content")
    os.utime(path, ns=(0, LONG_AGO))
    (tmp_path / "link").symlink_to("file")
    assert is_copied(path, 7, LONG_AGO)
    assert not is_copied(path, 7, LONG_AGO + 1)
    assert not is_copied(path, 8, LONG_AGO)
    assert not is_copied(tmp_path / "gone", 7, LONG_AGO)
    link = (tmp_path / "link").lstat()
    assert not is_copied(tmp_path / "link", link.st_size, link.st_mtime_ns)
    folder = tmp_path.stat()
    assert not is_copied(tmp_path, folder.st_size, folder.st_mtime_ns)


def test_folders_on_the_way(tmp_path: Path) -> None:
    """Folders that had to be made are removed again if they stay empty, and only those."""
    (tmp_path / "old").mkdir()
    with making(tmp_path / "old/new/deep"):
        assert (tmp_path / "old/new/deep").is_dir()
    assert names(tmp_path / "old") == []
    with making(tmp_path / "old/new/deep"):
        (tmp_path / "old/new/file").write_text("")
    assert names(tmp_path / "old") == ["new"]
    assert names(tmp_path / "old/new") == ["file"]
    with pytest.raises(ZeroDivisionError), making(tmp_path / "more/and/more"):
        raise ZeroDivisionError
    assert names(tmp_path) == ["old"]


def test_a_folder_is_published(tmp_path: Path) -> None:
    """A folder, or the file in it that is named so, takes its name; an empty folder makes way."""
    for is_file in (False, True):
        result, target = tmp_path / f"result-{is_file}", tmp_path / f"target-{is_file}"
        result.mkdir()
        (result / target.name).write_text("content")
        if not is_file:
            target.mkdir()
        publish(result, target, is_file=is_file)
        path = target if is_file else target / target.name
        assert path.read_text() == "content"


def test_nothing_is_published_over_something(tmp_path: Path) -> None:
    """A folder in which something has appeared meanwhile is not replaced."""
    result, target = tmp_path / "result", tmp_path / "target"
    for folder in (result, target):
        folder.mkdir()
        (folder / "file").write_text(folder.name)
    with pytest.raises(StorageError, match=f"^{target}: Directory not empty"):
        publish(result, target, is_file=False)
    assert (target / "file").read_text() == "target"


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    """What took the target's name while recast ran stays, and what recast made is still there."""
    result, target = tmp_path / "result", tmp_path / "target"
    result.mkdir()
    (result / "target").write_text("mine")
    target.write_text("theirs")
    with pytest.raises(TargetError, match=f"^{target}: appeared while recast ran"):
        publish(result, target, is_file=True)
    assert (target.read_text(), (result / "target").read_text()) == ("theirs", "mine")


def test_a_file_is_published_where_there_are_no_links(tmp_path: Path, monkeypatch) -> None:
    """On a file system without hard links, such as FAT, it is renamed."""

    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "x").write_text("content")
    publish(tmp_path / "target", tmp_path / "x", is_file=True)
    assert (tmp_path / "x").read_text() == "content"


def test_names_may_be_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    """A file of the longest name can be written, in characters of any length."""
    for name in ("x" * 255, "\N{SNOWMAN}" * 85):
        write_file(tmp_path / name, b"content", 0o600)
        assert (tmp_path / name).read_bytes() == b"content"
