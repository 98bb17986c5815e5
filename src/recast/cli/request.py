"""What the command line asks of a fleet, as a value."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recast import dtypes
from recast.dtypes import Dtype
from recast.execution.fleets.survey import AUTO


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks of one PATH.

    Attributes:
        root: the folder of runs, or the one checkpoint.
        recursive: whether to search it.
        to: the dtype to convert to, if any.
        out: the folder that the results go to, if any.
        in_place: whether to replace the sources.
        deletes: whether to delete trainer state.
        dry_run: whether to show only what would be done.
        include: patterns of the checkpoints to take.
        exclude: patterns of what to leave out.
        wishes: the options of `recast.plan`.
        workers: how many to use, if it matters.
        rates: the file of rates and prices to estimate by, if any.
        scheduler: the address of a Dask scheduler, if any.
        scheduler_file: the file that names one, if any.
        lines: whether to print each checkpoint as a line of JSON when it is known.
        as_json: whether one document is printed in the end.
        quiet: whether to print nothing but errors.
    """

    root: Path
    recursive: bool
    to: str | None
    out: Path | None
    in_place: bool
    deletes: bool
    dry_run: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    wishes: dict[str, Any] = field(repr=False)
    workers: int | None
    rates: Path | None
    scheduler: str | None
    scheduler_file: Path | None
    lines: bool
    as_json: bool
    quiet: bool

    @property
    def target(self) -> Dtype:
        """The dtype to convert to, or to speak of."""
        return dtypes.target(self.to or "bf16")

    @property
    def writes_beside(self) -> bool:
        """Whether something is to be written, or deleted, where the sources lie."""
        return self.deletes or (self.to is not None and self.out is None)

    @property
    def takes_bases(self) -> bool:
        """Whether each checkpoint takes the dtypes of its own base."""
        return bool(self.wishes["like"] == AUTO)

    @property
    def speaks(self) -> bool:
        """Whether the answer will be a text, which names what went wrong."""
        return not (self.lines or self.as_json or self.quiet)
