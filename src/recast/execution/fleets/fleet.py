"""convert_all(): many checkpoints whose shards share the workers; no failure stops the others."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from pathlib import Path

from recast import dtypes
from recast.errors import TargetError
from recast.execution.fleets.crews import crews_for
from recast.execution.fleets.discovery import AnyPath, absolute
from recast.execution.fleets.engine import Fleet, Places
from recast.execution.fleets.meter import Watcher
from recast.execution.fleets.survey import AUTO, bases_of
from recast.execution.reader import inspect
from recast.formats.checkpoint import Checkpoint
from recast.reports.fleet import Outcome


def convert_all(
    paths: Iterable[AnyPath] | AnyPath,
    dtype: object,
    executor: Executor | None = None,
    *,
    out: AnyPath | None = None,
    root: AnyPath | None = None,
    in_place: bool = False,
    like: AnyPath | Checkpoint | None = None,
    keep: Iterable[str] = (),
    cast: Iterable[str] = (),
    keep_rules: bool = True,
    lossless: bool = False,
    allow: Iterable[str] = (),
    workers: int | None = None,
    evidence: bool = True,
    watcher: Watcher | None = None,
) -> list[Outcome]:
    """Write every checkpoint of *paths* anew in *dtype*, each as `convert` does it.

    One that fails stops no other, and one that is right already costs only its headers. What
    was interrupted or killed is finished by calling again. A checkpoint that somebody is
    writing, a trainer or another recast, is skipped; so is, with *lossless*, one that would
    lose values.

    Args:
        paths: the checkpoints, such as `discover` yields them, or one.
        dtype: the target, as for `plan`.
        executor: who converts the shards: any executor of `concurrent.futures`, such as a
            process pool or a Dask client's; the threads of this process if left out. Its
            workers need the same disk under the same paths, and the same version of recast.
        out: a folder in which each result gets the path that its source has below *root*; if
            left out, each lies beside its source, with the dtype in its name.
        root: the folder that holds all *paths*; by default the deepest one.
        in_place: whether to replace the sources, file by file.
        like: as for `plan`, for all of them; or "auto": for each, the base that its config.json
            or model card names, where that is a folder here, and else none. In place, a base of
            others is then skipped: they would be compared with what it has become.
        keep: as for `plan`.
        cast: as for `plan`.
        keep_rules: as for `plan`.
        lossless: whether to convert only what loses nothing.
        allow: as for `plan`.
        workers: the threads to use, by default the CPUs this process may use; with an
            executor, how many shards it is given at once.
        evidence: whether to look at what rounding did to each tensor.
        watcher: who is told how it comes along.

    Returns:
        What became of each checkpoint, in the order of *paths*.

    Raises:
        DtypeError: if *dtype* is none that recast converts to.
        TargetError: if *out* is given beside *in_place*, or *root* does not hold all *paths*.
        RefusedError: if *workers* is none.

    Example:
        >>> runs = recast.discover("./runs")  # doctest: +SKIP
        >>> done = recast.convert_all(runs, "bfloat16", in_place=True)  # doctest: +SKIP
        >>> sum(each.saved for each in done)  # bytes  # doctest: +SKIP
        1207959552000
    """
    dtypes.target(dtype)
    if in_place and out is not None:
        raise TargetError(str(out), "is given beside in_place", "choose one of them")
    listed = list(dict.fromkeys(map(Path, _listed(paths))))
    wishes = {
        "like": like if like in (None, AUTO) or isinstance(like, Checkpoint) else inspect(like),
        "keep": _listed(keep),
        "cast": _listed(cast),
        "keep_rules": keep_rules,
        "lossless": lossless,
        "allow": _listed(allow),
    }
    places = Places(
        Path(out) if out else None,
        _root(listed, root) if out else Path(),
        in_place=in_place,
        untouched=bases_of(listed) if in_place and like == AUTO else frozenset(),
    )
    fleet = Fleet(
        dtype,
        wishes,
        places,
        crews_for(executor, workers),
        watcher or Watcher(),
        evidence=evidence or lossless,
    )
    return fleet.convert(listed)


def _listed(given: Iterable[AnyPath] | AnyPath) -> tuple[AnyPath, ...]:
    """Return what was *given* as a tuple, to be read by each checkpoint; a name is one of them."""
    return (given,) if isinstance(given, str | os.PathLike) else tuple(given)


def _root(paths: Sequence[Path], root: AnyPath | None) -> Path:
    """Return the folder below which results get the paths of their sources.

    Raises TargetError if it does not hold all *paths*.
    """
    places = [absolute(path) for path in paths]
    if root is None:
        return Path(os.path.commonpath([each.parent for each in places])) if places else Path()
    top = absolute(Path(root))
    for path, place in zip(paths, places, strict=True):
        if not place.is_relative_to(top):
            raise TargetError(
                str(path),
                f"does not lie below {root}, so that its result has no place",
                "name a folder that holds all checkpoints, or none",
            )
    return top
