"""What the command line may say: every option, and the values they are parsed into."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import recast

HELP = """Say in which dtype a checkpoint is stored, and rewrite it in another.

PATH is a checkpoint's folder or one .safetensors file. Without options: what is stored, what
is claimed, what is wrong. With --to: convert PATH, into PATH-bf16 beside it or into DIR. PATH
itself is never written to, except with --in-place. What was interrupted goes on when the same
command is run again.

\b
recast ./ckpt                          inspect
recast ./ckpt --scan                   look at every value: what do they need?
recast ./ckpt --to bf16 -n             show what converting would do
recast ./ckpt --to bf16                convert into ./ckpt-bf16
recast ./ckpt --like ./base            take the dtypes of ./base
recast ./ckpt --fix-config             make config and index true
recast ./ckpt-bf16 --against ./ckpt    verify
recast ./ckpt --to bf16 --push         convert, and publish on the Hub
recast hf://org/name                   inspect what is on the Hub
recast ./runs -r                       a table of all checkpoints in a folder
recast ./runs -r --to bf16 --in-place  repair them all

Exit status: 0 all is well, 1 something is wrong with a PATH, 2 the command line is wrong.
"""


class _Path(click.Path):
    """A path that is not empty, as that of a variable is which nobody has set."""

    def convert(
        self,
        value: Any,  # noqa: ANN401 - as click has it
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Any:  # noqa: ANN401 - likewise
        """Return what was typed, as a path."""
        if value == "":
            self.fail("it is empty: write . for the current folder", param, ctx)
        return super().convert(value, param, ctx)


_PATH = _Path(path_type=Path, readable=False)  # whether it can be read is seen when it is


@dataclass(frozen=True, slots=True)
class Arguments:
    """The command line, parsed."""

    to: str | None
    out: Path | None
    in_place: bool
    dry_run: bool
    against: Path | None
    scan: bool
    fix_config: bool
    like: str | None
    report: Path | None
    keep: tuple[str, ...]
    cast: tuple[str, ...]
    keep_rules: bool
    lossless: bool
    allow: tuple[str, ...]
    workers: int | None
    as_json: bool
    quiet: bool
    recursive: bool
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    check: bool
    rates: Path | None
    scheduler: str | None
    scheduler_file: Path | None
    delete_trainer_state: bool
    jsonl: bool
    push: str | None
    public: bool
    pr: bool
    revision: str | None

    @property
    def is_about_fleets(self) -> bool:
        """Whether many checkpoints may be meant, or what only a fleet's modes do."""
        return self.recursive or self.check or self.delete_trainer_state


_OPTIONS = (
    click.argument("paths", nargs=-1, required=True, metavar="PATH..."),
    click.option("--to", metavar="DTYPE", help="Convert to bf16, fp16 or fp32."),
    click.option("-o", "--out", type=_PATH, metavar="DIR", help="Write the result to DIR."),
    click.option("--in-place", is_flag=True, help="Replace the files of PATH itself, one by one."),
    click.option("-n", "--dry-run", is_flag=True, help="Show the plan; write nothing."),
    click.option(
        "--against", type=_PATH, metavar="SRC", help="Verify that PATH is what SRC becomes."
    ),
    click.option("--scan", is_flag=True, help="Look at every value: what do they need?"),
    click.option(
        "--fix-config", is_flag=True, help="Make config and index true; no tensor changes."
    ),
    click.option("--like", metavar="BASE", help="Give tensors the dtypes of BASE's."),
    click.option(
        "--keep",
        multiple=True,
        metavar="GLOB",
        help="Leave these tensors as they are (repeatable).",
    ),
    click.option(
        "--cast", multiple=True, metavar="GLOB", help="Cast these, whatever rules and BASE say."
    ),
    click.option("--no-keep-rules", is_flag=True, help="Cast even tensors known to need fp32."),
    click.option("--lossless", is_flag=True, help="Fail if any value would change."),
    click.option(
        "--allow",
        multiple=True,
        metavar="NAME",
        help="Go on in spite of this: overflow, or a finding's name (repeatable).",
    ),
    click.option(
        "--workers", type=click.IntRange(min=1), metavar="N", help="Threads (default: usable CPUs)."
    ),
    click.option(
        "--push",
        is_flag=False,
        flag_value="",
        metavar="[ORG/NAME]",
        help="Publish the result on the Hub, in one commit.",
    ),
    click.option("--public", is_flag=True, help="A repository that --push makes is public."),
    click.option("--pr", is_flag=True, help="--push opens a pull request, or updates its own."),
    click.option("--revision", metavar="BRANCH", help="--push commits to BRANCH."),
    click.option("-r", "--recursive", is_flag=True, help="PATH holds runs: take every checkpoint."),
    click.option(
        "--include",
        multiple=True,
        metavar="GLOB",
        help="With -r: only these, below PATH (repeatable).",
    ),
    click.option(
        "--exclude", multiple=True, metavar="GLOB", help="With -r: none of these (repeatable)."
    ),
    click.option(
        "--check", is_flag=True, help="Exit 1 if a checkpoint is larger than it has to be."
    ),
    click.option(
        "--rates",
        type=_PATH,
        metavar="FILE",
        help="With -r -n: estimate by these rates and prices.",
    ),
    click.option("--scheduler", metavar="URL", help="With -r: convert on this Dask cluster."),
    click.option(
        "--scheduler-file", type=_PATH, metavar="FILE", help="The same, as named in this file."
    ),
    click.option(
        "--delete-trainer-state",
        is_flag=True,
        help="Delete optimizers and the like; -n shows which.",
    ),
    click.option("--jsonl", is_flag=True, help="With -r: print JSON lines while running."),
    click.option(
        "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
    ),
    click.option(
        "--report", type=_PATH, metavar="FILE", help="Also write a page to look at: HTML."
    ),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but errors."),
    click.version_option(recast.__version__, prog_name="recast"),
)


def options(function: Callable[..., None]) -> Callable[..., None]:
    """Give *function* all options of the command, as click's decorators do one by one."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
