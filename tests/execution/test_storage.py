"""Reading and writing files: what the kernel says becomes an error with a way out."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recast import StorageError
from recast.execution.storage import Output, Source, naming, sync_folder


def opened(path: Path) -> Source:
    """Open a file of which is known what the kernel says now."""
    return Source(path, path.stat().st_size, path.stat().st_mtime_ns)


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "write elsewhere"),
        (errno.EACCES, "permissions"),
        (errno.EPERM, "permissions"),
        (errno.EIO, "storage is failing"),
        (errno.ENOENT, "do not move files"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_what_the_kernel_says(number: int, remedy: str) -> None:
    """An OSError becomes a StorageError: the file, the kernel's words, what to do about it."""
    cause = OSError(number, os.strerror(number), "another")
    with pytest.raises(StorageError) as caught, naming(Path("here")):
        raise cause
    assert caught.value.subject == "here"
    assert caught.value.problem == os.strerror(number)
    assert remedy in caught.value.remedy
    assert caught.value.__cause__ is cause


def test_other_errors() -> None:
    """An OSError without a number says what it says; any other error passes as it is."""
    with pytest.raises(StorageError, match=r"^here: odd; look at the disk"), naming(Path("here")):
        raise OSError("odd")
    with pytest.raises(ZeroDivisionError), naming(Path("here")):
        raise ZeroDivisionError


@settings(max_examples=60)
@given(content=st.binary(max_size=300), data=st.data())
def test_reading_any_window(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, data: st.DataObject
) -> None:
    """A window holds the bytes of the file; one that reaches beyond its end is an error."""
    path = tmp_path_factory.mktemp("read") / "file"
    path.write_bytes(content)
    position = data.draw(st.integers(0, len(content)))
    size = data.draw(st.integers(0, 320))
    window = bytearray(size)
    with opened(path) as source:
        if position + size <= len(content):
            source.read(memoryview(window), position)
            assert window == content[position : position + size]
        else:
            with pytest.raises(StorageError, match=f"ends at byte {len(content)}") as caught:
                source.read(memoryview(window), position)
            assert caught.value.subject == str(path)
            assert caught.value.remedy


def test_the_kernel_may_give_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the kernel reads or writes in several steps arrives whole, and in its place."""
    path = tmp_path / "file"
    content = os.urandom(1000)
    preadv, pwrite = os.preadv, os.pwrite

    def read_some(descriptor: int, buffers: list[memoryview], position: int, *flags: int) -> int:
        return preadv(descriptor, [buffers[0][:7]], position, *flags)

    def write_some(descriptor: int, some: memoryview, position: int) -> int:
        return pwrite(descriptor, some[:7], position)

    monkeypatch.setattr(os, "preadv", read_some)
    monkeypatch.setattr(os, "pwrite", write_some)
    with Output(path, 1005, 0o600) as output:
        output.write(content, 5)
        output.finish()
    window = bytearray(1000)
    with opened(path) as source:
        source.read(memoryview(window), 5)
    assert window == content
    assert path.read_bytes() == bytes(5) + content


def test_a_disk_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Failures to read, write, or make durable are errors about that file."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = tmp_path / "file"
    for name in ("preadv", "pwrite", "fchmod", "fsync"):
        monkeypatch.setattr(os, name, fail)
    with Output(path, 9, 0o600) as output:
        with pytest.raises(StorageError, match=f"^{path}: Input/output error; .*another one$"):
            output.write(b"content", 0)
        with pytest.raises(StorageError, match=f"^{path}: Input/output error"):
            output.finish()
    with opened(path) as source, pytest.raises(StorageError, match=f"^{path}: Input/output"):
        source.read(memoryview(bytearray(9)), 0)
    with pytest.raises(StorageError, match=f"^{tmp_path}: Input/output error"):
        sync_folder(tmp_path)


def test_an_output_is_new(tmp_path: Path) -> None:
    """A file that is there already is not written to, nor is one behind a link."""
    path, link = tmp_path / "file", tmp_path / "link"
    path.write_text("content")
    link.symlink_to("elsewhere")
    for taken in (path, link):
        with pytest.raises(StorageError, match="File exists"):
            Output(taken, 3, 0o600)
    assert path.read_text() == "content"
    assert not (tmp_path / "elsewhere").exists()


def test_an_output_is_private_until_it_is_finished(tmp_path: Path) -> None:
    """A file has the size planned for it from the beginning, and its permission bits at the end."""
    path = tmp_path / "file"
    with Output(path, 123, 0o644) as output:
        assert path.stat().st_size == 123
        assert path.stat().st_mode & 0o7777 == 0o600
        output.finish()
    assert path.stat().st_mode & 0o7777 == 0o644
    with Output(tmp_path / "dated", 0, 0o600) as output:
        output.finish(modified=1_234_567_891_011_121_314)
    assert (tmp_path / "dated").stat().st_mtime_ns == 1_234_567_891_011_121_314


def open_descriptors() -> set[str]:
    """Return the numbers of this process's open files."""
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers, not paths


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    """Files are closed after use, and after a failure to make one as large as planned."""
    path = tmp_path / "file"
    before = open_descriptors()
    with Output(path, 3, 0o600), opened(path):
        assert len(open_descriptors()) == len(before) + 2
    sync_folder(tmp_path)
    with pytest.raises(StorageError, match="too large"):
        Output(tmp_path / "large", (1 << 63) - 1, 0o600)
    with pytest.raises(StorageError, match="was changed"):
        Source(path, 4, path.stat().st_mtime_ns)
    assert open_descriptors() == before


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """A source that was moved away is an error that names it."""
    path = tmp_path / "gone"
    with pytest.raises(StorageError, match=f"^{path}: No such file or directory; "):
        Source(path, 0, 0)
    with pytest.raises(StorageError, match=f"^{path}: No such file or directory; "):
        sync_folder(path)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o444, 0o4755])
def test_permission_bits(tmp_path: Path, mode: int) -> None:
    """A source's permission bits are those that the kernel holds."""
    path = tmp_path / "file"
    path.write_text("")
    path.chmod(mode)
    with opened(path) as source:
        assert source.mode == mode


def grow(path: Path) -> None:
    """Write more into a file."""
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    """Write something else of the same size into a file, later."""
    path.write_bytes(b"CONTENT")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def replace(path: Path) -> None:
    """Put another file, of the same size and time, in the place of one."""
    other = path.with_name("other")
    other.write_bytes(b"CONTENT")
    os.utime(other, ns=(0, path.stat().st_mtime_ns))
    other.replace(path)


@pytest.mark.parametrize("change", [grow, rewrite, replace])
def test_a_source_that_changes(tmp_path: Path, change: Callable[[Path], None]) -> None:
    """A file that is no longer the one whose header was read is an error that names it."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    status = path.stat()
    with Source(path, status.st_size, status.st_mtime_ns) as source:
        source.check_unchanged()
        change(path)
        with pytest.raises(StorageError, match="was changed while recast ran") as caught:
            source.check_unchanged()
    assert caught.value.subject == str(path)
    assert caught.value.remedy
    if change is not replace:
        with pytest.raises(StorageError, match="was changed while recast ran"):
            Source(path, status.st_size, status.st_mtime_ns)
