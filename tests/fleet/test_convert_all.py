"""Many checkpoints at once: the same on every executor."""

import errno
import os
import pickle
import shutil
import zlib
from collections.abc import Callable
from concurrent.futures import Executor, Future
from itertools import count
from pathlib import Path
from threading import Event, Thread

import pytest
import torch
from safetensors.torch import load_file

import recast
from recast import Fate, Outcome, TargetError, Watcher
from recast.execution import shard_job, target
from recast.execution.fleets import signs
from recast.execution.shard import Effort
from recast.execution.shard_job import carry_out
from recast.execution.storage import naming
from tests.checkpoints import random_tensors, save_shard, save_sharded
from tests.fleet import runs


class Notes(Watcher):
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.whole = 0
        self.done: dict[Path, int] = {}
        self.outcomes: list[Outcome] = []

    def begin(self, nbytes: int) -> None:
        """Remember how much there is to do."""
        self.whole = nbytes

    def advance(self, path: Path, nbytes: int) -> None:
        """Add up what is done."""
        assert nbytes >= 0
        self.done[path] = self.done.get(path, 0) + nbytes

    def finish(self, outcome: Outcome) -> None:
        """Remember what became of a checkpoint."""
        self.outcomes.append(outcome)


def found(root: Path) -> list[Path]:
    """Return all checkpoints below *root*."""
    return list(recast.discover(root))


def fates(outcomes: list[Outcome]) -> list[Fate]:
    """Return what became of each."""
    return [each.fate for each in outcomes]


@pytest.mark.parametrize("where", ["in place", "beside", "elsewhere"])
def test_a_fleet_is_repaired(
    executor: Executor | None, where: str, saved: Path, root: Path, tmp_path: Path
) -> None:
    """Every shard becomes what safetensors would have saved, on every executor, and stays so."""
    options = {
        "in place": {"in_place": True},
        "beside": {},
        "elsewhere": {"out": tmp_path / "out", "root": root},
    }[where]
    paths = found(root)
    done = recast.convert_all(paths, "bf16", executor, **options)
    assert fates(done) == [Fate.REPAIRED] * 6
    assert [each.path for each in done] == paths
    for outcome in done:
        below = outcome.path.relative_to(root)
        target = {
            "in place": outcome.path,
            "beside": outcome.path.with_name(f"{outcome.path.name}-bf16"),
            "elsewhere": tmp_path / "out" / below,
        }[where]
        assert outcome.target == target
        runs.check_repaired(saved / below, target)
        assert outcome.evidence.tensors == 3
        sizes = [sum(map(len, runs.contents(each).values())) for each in (saved / below, target)]
        assert [outcome.size_before, outcome.size_after] == sizes
        if where != "in place":
            assert runs.contents(outcome.path) == runs.contents(saved / below)
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert fates(recast.convert_all(paths, "bf16", executor, **options)) == [Fate.RIGHT] * 6
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == after


def test_one_failure_stops_no_other(executor: Executor | None, saved: Path, root: Path) -> None:
    """What is broken, quantized or gone is reported; what would overflow is not touched."""
    broken, loud, gone, *fine = found(root)
    shard = "model-00001-of-00002.safetensors"
    os.truncate(broken / shard, 500)
    save_shard(loud / shard, {"a.weight": torch.full((40, 8), 3.4e38)})
    runs.age(root)
    nowhere = gone.rename(gone.with_name("elsewhere"))
    before = runs.contents(loud)
    done = recast.convert_all([broken, loud, gone, *fine], "bf16", executor, in_place=True)
    assert fates(done) == [Fate.FAILED, Fate.FAILED, Fate.SKIPPED, *[Fate.REPAIRED] * 3]
    assert isinstance(done[0].error, recast.ShardError)
    assert "would become infinite" in done[1].error.problem
    assert "deleted meanwhile" in done[2].error.problem
    assert runs.contents(loud) == before
    assert nowhere.exists()
    for path in fine:
        runs.check_repaired(saved / path.relative_to(root), path)


def test_lossless_repairs_what_loses_nothing(executor: Executor | None, root: Path) -> None:
    """With lossless=True the others are skipped, with the tensor that would lose, and stay."""
    exact, *others = found(root)
    for path in exact.glob("*.safetensors"):
        tensors = recast_tensors(path)
        save_shard(path, {name: each.bfloat16().float() for name, each in tensors.items()})
    runs.age(root)
    before = [runs.contents(path) for path in others]
    done = recast.convert_all([exact, *others], "bf16", executor, in_place=True, lossless=True)
    assert fates(done) == [Fate.REPAIRED, *[Fate.SKIPPED] * 5]
    assert done[0].evidence.lossless == done[0].evidence.tensors == 3
    assert all("would lose values" in each.error.problem for each in done[1:])
    assert [runs.contents(path) for path in others] == before


def recast_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return what a weights file holds."""
    from safetensors.torch import load_file  # noqa: PLC0415 - only here

    return load_file(path)


def test_progress_comes_back(executor: Executor | None, root: Path) -> None:
    """What is told adds up to all weights, whatever each checkpoint's fate, and each is named."""
    paths = found(root)
    os.truncate(paths[0] / "model-00002-of-00002.safetensors", 100)
    runs.age(root)
    recast.convert_all(paths[1:2], "bf16", in_place=True)
    notes = Notes()
    done = recast.convert_all(paths, "bf16", executor, in_place=True, watcher=notes)
    weights = {p: sum(each.stat().st_size for each in p.glob("*.safetensors")) for p in paths[:1]}
    assert notes.done.keys() == set(paths)
    assert sum(notes.done.values()) == notes.whole
    assert notes.done[paths[0]] == weights[paths[0]]
    assert sorted(map(repr, notes.outcomes)) == sorted(map(repr, done))


@pytest.mark.parametrize("dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("where", ["in place", "beside"])
def test_progress_is_even(
    executor: Executor | None, tmp_path: Path, dtype: str, where: str
) -> None:
    """Nothing is left to be told at the end, though one shard stays as it is."""
    noise = random_tensors(a=(400, 400), b=(400, 400))
    shards = {
        "model-00001-of-00002.safetensors": {"a": noise["a"]},
        "model-00002-of-00002.safetensors": {"b": noise["b"].bfloat16()},
    }
    path = runs.age(save_sharded(tmp_path / "ckpt", shards))
    told: list[int] = []

    class Listener(Watcher):
        """Hears of progress."""

        def advance(self, path: Path, nbytes: int) -> None:  # noqa: ARG002 - as watchers have it
            """Remember it."""
            told.append(nbytes)

    recast.convert_all([path], dtype, executor, in_place=where == "in place", watcher=Listener())
    assert told[-1] < sum(told) / 100


def test_progress_comes_while_a_job_runs(
    root: Path, tmp_path: Path, threads: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a worker has done of a shard is told before the shard is done."""
    heard = Event()

    class Listener(recast.Watcher):
        """Hears of progress."""

        def advance(self, path: Path, nbytes: int) -> None:  # noqa: ARG002 - as watchers have it
            """Say that some was heard of."""
            if nbytes:
                heard.set()

    convert = shard_job.convert_shard
    waited = []

    def halfway(plan, source, target, scratch, effort):
        """Say that a part is done, and go on when that was heard."""
        effort.progress(plan.size_before // 2)
        waited.append(heard.wait(60))
        return convert(plan, source, target, scratch, Effort(1, evidence=True))

    monkeypatch.setattr(shard_job, "convert_shard", halfway)
    monkeypatch.setattr(shard_job, "_EVERY", -1.0)
    (path, *_) = found(root)
    done = recast.convert_all([path], "bf16", threads, out=tmp_path / "out", watcher=Listener())
    assert fates(done) == [Fate.REPAIRED]
    assert waited == [True, True]


def test_nested_checkpoints(executor: Executor | None, root: Path, tmp_path: Path) -> None:
    """A run's own model and the checkpoints in its folder are converted, in their order."""
    run = root / "run-0"
    save_sharded(run, {"model-00001-of-00001.safetensors": random_tensors(a=(4, 4))})
    runs.age(root)
    paths = found(root)
    assert paths[:3] == [run, run / "checkpoint-100", run / "checkpoint-200"]
    out = tmp_path / "out"
    for fate in (Fate.REPAIRED, Fate.RIGHT):
        done = recast.convert_all(reversed(paths), "bf16", executor, out=out, root=root)
        assert fates(done) == [fate] * 7
    assert found(out) == [out / path.relative_to(root) for path in paths]
    for path in paths[1:]:
        assert recast.verify(out / path.relative_to(root), against=path).holds


def test_what_lies_in_a_failure_waits(root: Path, tmp_path: Path) -> None:
    """No result is put where the failed result around it belongs; mended, all is done."""
    run = root / "run-0"
    save_sharded(run, {"model-00001-of-00001.safetensors": random_tensors(a=(4, 4))})
    config = run / "config.json"
    text = config.read_text()
    config.write_text("{")
    runs.age(root)
    out = tmp_path / "out"
    done = {each.path: each for each in recast.convert_all(found(root), "bf16", out=out, root=root)}
    assert done[run].fate is done[run / "checkpoint-100"].fate is Fate.FAILED
    assert f"lies in {run}" in done[run / "checkpoint-100"].error.problem
    assert done[root / "run-1" / "checkpoint-100"].fate is Fate.REPAIRED
    assert not (out / "run-0").exists()
    config.write_text(text)
    runs.age(root)
    done = recast.convert_all(found(root), "bf16", out=out, root=root)
    assert sorted(fates(done)) == [Fate.RIGHT] * 4 + [Fate.REPAIRED] * 3


def with_outer(root: Path) -> Path:
    """Save a model in the folder of the first run, and return that."""
    run = root / "run-0"
    save_sharded(run, {"model-00001-of-00001.safetensors": random_tensors(a=(4, 4))})
    runs.age(root)
    return run


def check_told(notes: Notes, done: list[Outcome]) -> None:
    """Check that a watcher was told of all bytes, and of each outcome, once."""
    assert sum(notes.done.values()) == notes.whole
    assert sorted(map(repr, notes.outcomes)) == sorted(map(repr, done))


def test_what_lacks_room_is_tried_again(
    executor: Executor | None, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When all else is done, with what lies in it; each is told once, and no byte twice."""
    run, out = with_outer(root), tmp_path / "out"
    short = {out / "run-0", out / "run-0" / "checkpoint-100", out / "run-2" / "checkpoint-200"}

    def free(place: Path) -> int:
        if place in short:
            short.remove(place)
            return 0
        return 10**9

    monkeypatch.setattr(target, "free_space", free)
    notes = Notes()
    done = recast.convert_all(found(root), "bf16", executor, out=out, root=root, watcher=notes)
    assert not short
    assert [each.error for each in done] == [None] * 7
    assert found(out) == [out / path.relative_to(root) for path in found(root)]
    assert recast.verify(out / "run-0", against=run).holds
    check_told(notes, done)


def test_what_lacks_room_twice(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails, and what lies in it with it; each is told once, and no byte twice."""
    run, out = with_outer(root), tmp_path / "out"
    tried: list[Path] = []

    def free(place: Path) -> int:
        tried.append(place)
        return 0 if place == out / "run-0" else 10**9

    monkeypatch.setattr(target, "free_space", free)
    notes = Notes()
    paths = found(root)
    done = recast.convert_all(paths, "bf16", out=out, root=root, watcher=notes)
    assert fates(done) == [*[Fate.FAILED] * 3, *[Fate.REPAIRED] * 4]
    assert "are free there" in done[0].error.problem
    assert all(f"lies in {run}" in each.error.problem for each in done[1:3])
    assert tried[-1] == out / "run-0"
    assert tried.count(out / "run-0") == 2
    check_told(notes, done)
    recast.convert_all(paths[:1], "bf16", out=out, root=root)
    assert tried.count(out / "run-0") == 3  # alone, it would find no more room either


def test_what_is_repaired_in_place_makes_room(
    saved: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the model around it, too, which is tried again when all that lies in it is done."""
    run = with_outer(root)
    inner = run / "checkpoint-100" / "model-00001-of-00002.safetensors"
    before = inner.stat().st_size

    def free(place: Path) -> int:
        return 0 if place == run and inner.stat().st_size == before else 10**9

    monkeypatch.setattr(target, "free_space", free)
    notes = Notes()
    done = recast.convert_all(found(root), "bf16", in_place=True, watcher=notes)
    assert [each.error for each in done] == [None] * 7
    check_told(notes, done)
    for path in found(saved):
        runs.check_repaired(path, root / path.relative_to(saved))


def test_a_disk_that_is_full_for_a_moment(
    saved: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place, what the first try has replaced already does not pass for a trainer's work."""
    paths = found(root)[:2]
    convert = shard_job.convert_shard
    full = [True]

    def fill(plan, source, *rest):
        """Have no room for the second shard of the first checkpoint, once."""
        if full and source == paths[0] / "model-00002-of-00002.safetensors":
            full.pop()
            with naming(source):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return convert(plan, source, *rest)

    monkeypatch.setattr(shard_job, "convert_shard", fill)
    notes = Notes()
    done = recast.convert_all(paths, "bf16", in_place=True, watcher=notes)
    assert [each.error for each in done] == [None] * 2
    check_told(notes, done)
    for path in paths:
        runs.check_repaired(saved / path.relative_to(root), path)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (os.utime, "model-00002-of-00002.safetensors"),
        (os.unlink, "model-00002-of-00002.safetensors"),
        (os.unlink, "tokenizer.json"),
    ],
)
def test_what_is_written_while_it_is_converted(
    root: Path,
    tmp_path: Path,
    name: str,
    change: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A trainer that comes back then has its checkpoint skipped; nothing of it is written."""
    path = found(root)[0]
    convert = shard_job.convert_shard
    todo = [change]

    def write(*job):
        """Let the trainer write when the first shard is done."""
        done = convert(*job)
        if todo:
            todo.pop()(path / name)
        return done

    monkeypatch.setattr(shard_job, "convert_shard", write)
    monkeypatch.setattr(signs.time, "sleep", lambda _: None)
    (done,) = recast.convert_all([path], "bf16", out=tmp_path / "out", root=root)
    assert not todo
    assert done.fate is Fate.SKIPPED
    assert "is being written" in done.error.problem
    assert not (tmp_path / "out").exists()


class Twice(Executor):
    """Runs every job twice, at once, and gives back what the first or the last to end returns."""

    def __init__(self, *, first: bool = False) -> None:
        self.told = 1 if first else 2
        self.jobs: list[tuple[object, ...]] = []
        self.threads: list[Thread] = []
        self.done: list[object] = []

    def submit(  # type: ignore[override]
        self, call: Callable[..., object], /, *args: object, **kwargs: object
    ) -> Future[object]:
        """Run *call* in two threads."""
        assert call is carry_out
        self.jobs.append(args)
        future: Future[object] = Future()
        numbers = count(1)  # each is given once, whichever thread ends when

        def run() -> None:
            try:
                done = call(*args, **kwargs)
            except recast.RecastError as error:
                done = error
            if next(numbers) != self.told:
                return
            if isinstance(done, Exception):
                future.set_exception(done)
            else:
                self.done.append(done)
                future.set_result(done)

        for _ in range(2):
            self.threads.append(Thread(target=run))
            self.threads[-1].start()
        return future


@pytest.mark.parametrize("first", [True, False])
def test_a_job_that_runs_twice_at_once_does_no_harm(saved: Path, root: Path, first: bool) -> None:  # noqa: FBT001 - a case
    """What two runs of the same job leave is what one leaves, whichever of them is believed."""
    executor = Twice(first=first)
    done = recast.convert_all(found(root), "bf16", executor, in_place=True)
    for thread in executor.threads:
        thread.join()
    assert fates(done) == [Fate.REPAIRED] * 6
    for outcome in done:
        runs.check_repaired(saved / outcome.path.relative_to(root), outcome.path)


def test_a_job_that_comes_too_late_does_no_harm(saved: Path, root: Path) -> None:
    """A job that a lost worker does when all is over finds nothing to do, and leaves nothing."""
    executor = Twice()
    done = recast.convert_all(found(root), "bf16", executor, in_place=True)
    for thread in executor.threads:
        thread.join()
    after = runs.contents(root)
    for version, content in executor.jobs:
        with pytest.raises(recast.RecastError):
            carry_out(str(version), bytes(content), evidence=True)
    assert runs.contents(root) == after
    for outcome in done:
        runs.check_repaired(saved / outcome.path.relative_to(root), outcome.path)


def test_a_job_that_is_overtaken_leaves_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job whose workplace is removed when it has just begun takes away what it made after all."""
    executor = Twice()
    recast.convert_all(found(root), "bf16", executor, out=tmp_path / "out", root=root)
    for thread in executor.threads:
        thread.join()
    before = sorted(tmp_path.rglob("*"))
    begin = shard_job.convert_shard
    overtaken = []

    def late(plan, source, target, scratch, effort):
        """Convert a shard when all is over."""
        shutil.rmtree(scratch)
        done = begin(plan, source, target, scratch, effort)
        assert target.exists()
        overtaken.append(target)
        return done

    monkeypatch.setattr(shard_job, "convert_shard", late)
    for version, content in executor.jobs:
        scratch = pickle.loads(zlib.decompress(bytes(content))).scratch  # noqa: S301 - recast's own
        scratch.mkdir()
        (scratch / "lock").touch()
        carry_out(str(version), bytes(content), evidence=True)
    assert len(overtaken) == len(executor.jobs) == 12
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("count", [300, 10_000])
def test_jobs_are_small(count: int, tmp_path: Path) -> None:
    """A job takes some bytes for each tensor, however large they are; so does what comes back."""
    parts = [(f"{part}_proj.weight", (2 + len(part), 3)) for part in ("q", "k", "v", "gate", "up")]
    tensors = {
        f"model.layers.{number // 40}.mlp.experts.{number}.{name}": torch.ones(shape)
        for number in range(count // len(parts))
        for name, shape in parts
    }
    save_sharded(tmp_path / "many", {"model-00001-of-00001.safetensors": tensors})
    runs.age(tmp_path)
    jobs = Twice()
    recast.convert_all([tmp_path / "many"], "bf16", jobs)
    ((_, content),) = jobs.jobs
    assert len(pickle.dumps(content)) < 2_000 + 40 * count
    assert jobs.done
    assert all(len(pickle.dumps(each)) < 2_000 + 200 * count for each in jobs.done)


def test_a_fleet_of_nothing(executor: Executor | None) -> None:
    """No checkpoint, no outcome."""
    assert recast.convert_all([], "bf16", executor) == []


@pytest.mark.parametrize("kind", [str, Path])
def test_a_fleet_of_one(kind: Callable[[Path], str | Path], saved: Path, root: Path) -> None:
    """A path is one checkpoint, and not its letters; patterns may come from a generator."""
    path = root / "run-0" / "checkpoint-100"
    patterns = (each for each in ["a.*"])
    done = recast.convert_all(kind(path), "bf16", keep=patterns, in_place=True)
    assert [(each.path, each.error) for each in done] == [(path, None)]
    done = recast.convert_all([path], "bf16", in_place=True)
    assert fates(done) == [Fate.REPAIRED]
    runs.check_repaired(saved / "run-0" / "checkpoint-100", path)


def test_in_place_and_out_exclude_each_other(root: Path) -> None:
    """A result goes to one place."""
    with pytest.raises(TargetError, match="is given beside in_place"):
        recast.convert_all([root], "bf16", in_place=True, out=root / "out")
    with pytest.raises(recast.DtypeError):
        recast.convert_all([root], "int8")


@pytest.mark.parametrize("given", [None, ".", "absolute"])
def test_paths_however_they_are_written(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None
) -> None:
    """Relative, absolute and winding paths go together, and each result lies where it belongs."""
    run = root / "run-0"
    save_sharded(run, {"model-00001-of-00001.safetensors": random_tensors(a=(4, 4))})
    runs.age(root)
    monkeypatch.chdir(root)
    # Whatever lies in the run's folder waits for the run, which is named last.
    paths = [
        "run-0/checkpoint-100",
        run / "checkpoint-200",
        "run-1/../run-1/checkpoint-100",
        "run-0",
    ]
    out = tmp_path / "out"
    top = {"absolute": root}.get(str(given), given)
    done = recast.convert_all(paths, "bf16", out=out, root=top)
    assert [each.error for each in done] == [None] * 4
    assert [each.target for each in done] == [
        out / below
        for below in (
            "run-0/checkpoint-100",
            "run-0/checkpoint-200",
            "run-1/checkpoint-100",
            "run-0",
        )
    ]
    assert found(out) == sorted(each.target for each in done)
    beside = recast.convert_all(["run-2/checkpoint-100", root / "run-1" / "checkpoint-200"], "bf16")
    assert fates(beside) == [Fate.REPAIRED] * 2


def test_a_root_that_does_not_hold_the_paths(root: Path, tmp_path: Path) -> None:
    """Nothing is written, and the error names the path. Without *out*, there is no error."""
    paths = found(root)
    with pytest.raises(TargetError, match="does not lie below") as caught:
        recast.convert_all(paths, "bf16", out=tmp_path / "out", root=root / "run-0")
    assert caught.value.subject == str(root / "run-1" / "checkpoint-100")
    assert not (tmp_path / "out").exists()
    done = recast.convert_all(paths, "bf16", root=root / "run-0", in_place=True)
    assert fates(done) == [Fate.REPAIRED] * 6


def test_each_like_its_own_base(tmp_path: Path) -> None:
    """With like="auto", a checkpoint takes the dtypes of the folder that its config names."""
    base, tuned, other = (tmp_path / name for name in ("base", "runs/tuned", "runs/other"))
    noise = random_tensors(a=(4, 4), b=(4,))
    save_sharded(base, {"model.safetensors": {"a": noise["a"].bfloat16(), "b": noise["b"]}})
    for folder, name in ((tuned, str(base)), (other, "some/base-on-the-hub")):
        config = {"model_type": "llama", "torch_dtype": "float32", "_name_or_path": name}
        save_sharded(folder, {"model.safetensors": noise}, config)
    runs.age(tmp_path)
    done = recast.convert_all([tuned, other], "bf16", in_place=True, like="auto")
    assert [each.error for each in done] == [None, None]
    dtypes = {
        folder.name: {
            key: each.dtype for key, each in load_file(folder / "model.safetensors").items()
        }
        for folder in (tuned, other)
    }
    assert dtypes == {
        "tuned": {"a": torch.bfloat16, "b": torch.float32},
        "other": {"a": torch.bfloat16, "b": torch.bfloat16},
    }


def test_a_base_among_its_descendants_stays_what_they_are_compared_with(tmp_path: Path) -> None:
    """In place, whatever the order and however often: the base is left, and named."""
    base, tuned = tmp_path / "a-base", tmp_path / "tuned"
    noise = random_tensors(a=(4, 4), b=(4,))
    mixed = {"a": noise["a"].bfloat16(), "b": noise["b"]}
    save_sharded(base, {"model.safetensors": mixed}, {"model_type": "llama"})
    config = {"model_type": "llama", "_name_or_path": str(base)}
    save_sharded(tuned, {"model.safetensors": noise}, config)
    runs.age(tmp_path)
    for fate in (recast.Fate.REPAIRED, recast.Fate.RIGHT):
        spared, done = recast.convert_all([base, tuned], "bf16", in_place=True, like="auto")
        assert (spared.fate, done.fate) == (recast.Fate.SKIPPED, fate)
        assert "is the base of others" in str(spared.error)
        assert load_file(base / "model.safetensors")["b"].dtype is torch.float32
        assert load_file(tuned / "model.safetensors")["b"].dtype is torch.float32
    (alone,) = recast.convert_all([base], "bf16", in_place=True, like="auto")
    assert alone.fate is recast.Fate.REPAIRED
