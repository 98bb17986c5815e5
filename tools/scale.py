"""What follows from the recorded table of fleets: the defaults of `Rates`, and docs/scale.md.

    python -m tools.scale    after `make bench ARGS="--fleet --record"`

The recorded rates become the defaults in planning/estimate.py, and each part of the page that
the model computes is written anew. Tests hold both.
"""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

from benchmarks.report import replace_between
from recast.planning import estimate as model
from recast.planning.estimate import Prices, Rates, Work, estimate
from recast.planning.rates import parse
from recast.reports.text.fleets import duration, takes

ROOT = Path(__file__).parent.parent
README, PAGE = ROOT / "benchmarks" / "README.md", ROOT / "docs" / "scale.md"
MODEL = ROOT / "src" / "recast" / "planning" / "estimate.py"

GB, TB = 10**9, 10**12
_CHECKPOINTS, _SHARDS, _OTHERS, _OTHER_SIZE = 20_000, 10, 5, 2 * 10**6

# Public pages of others, not price lists; what they said when this was written.
MACHINE = Prices("USD", worker_hour=0.0408)
BY_BYTES = replace(MACHINE, terabyte_read=30.0, terabyte_written=60.0)
BY_REQUESTS = replace(MACHINE, million_requests=5.0)
PRICED = {
    "worker hours alone": MACHINE,
    "and bytes": BY_BYTES,
    "and requests": BY_REQUESTS,
}
CLUSTERS = ((2, None), (64, None), (64, 20 * GB), (64, 100 * GB), (512, 100 * GB))


def main() -> None:
    """Write the defaults and the page anew."""
    readme = README.read_text(encoding="utf-8")
    rates = recorded(readme)
    if rates is not None:
        MODEL.write_text(with_defaults(MODEL.read_text(encoding="utf-8"), rates), encoding="utf-8")
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(renewed(page, rates or Rates(), readme), encoding="utf-8")


def recorded(readme: str) -> Rates | None:
    """Return the rates in the table of fleets; None if none was recorded yet."""
    found = re.search(r"```json\n(.*?)```", _part(readme, "fleet"), re.DOTALL)
    return parse(found[1], str(README)) if found else None


def with_defaults(source: str, rates: Rates) -> str:
    """Return the text of the model's module with *rates* as its defaults."""
    before, rest = source.split("class Rates:")
    body, after = rest.split("\n\n\n", 1)
    for each in fields(Rates):
        if each.name not in ("disk", "prices"):
            value = getattr(rates, each.name)
            body = re.sub(rf"(    {each.name}: float = )\S+", rf"\g<1>{_literal(value)}", body)
    return f"{before}class Rates:{body}\n\n\n{after}"


def _literal(value: float) -> str:
    """Return a float as people write it: 1.3e9."""
    short = f"{value:g}".replace("e+0", "e").replace("e+", "e")
    if "e" not in short and "." not in short:
        short += ".0"
    return short if float(short) == value else repr(value)


def renewed(page: str, rates: Rates | None = None, readme: str | None = None) -> str:
    """Return *page* with all that the model computes."""
    rates = rates or Rates()
    readme = README.read_text(encoding="utf-8") if readme is None else readme
    parts = {
        "example": _example(rates),
        "rates": _rates(rates),
        "quality": _quality(_part(readme, "fleet")),
        "requests": _requests(),
        "time": _time(rates),
        "money": _money(rates),
        "file": _file(rates),
    }
    for name, content in parts.items():
        page = replace_between(page, name, content)
    return page


def _part(page: str, name: str) -> str:
    """Return what stands between the comments that mark a place."""
    _, _, rest = page.partition(f"<!-- {name} -->\n")
    return rest.partition(f"\n<!-- end of {name} -->")[0]


def petabyte(*, in_place: bool) -> Work:
    """Return a petabyte of fp32, to be bf16: 20,000 checkpoints of 10 shards of 5 GB."""
    size, others = 10**15, _CHECKPOINTS * _OTHERS
    return Work(
        checkpoints=_CHECKPOINTS,
        weights_files=_CHECKPOINTS * _SHARDS,
        other_files=others,
        changing=_CHECKPOINTS,
        shards=_CHECKPOINTS * _SHARDS,
        companions=others,
        bytes_cast=size,
        bytes_written=size // 2,
        bytes_copied=0 if in_place else others * _OTHER_SIZE,
        bytes_scanned=size if in_place else 0,
        in_place=in_place,
    )


def _example(rates: Rates) -> str:
    """Return what the command says of a petabyte."""
    known = replace(rates, disk=20 * GB, prices=BY_BYTES)
    said = "\n".join(takes(estimate(petabyte(in_place=True), 64, known)))
    return f"```\n{said}\n```"


def _rates(rates: Rates) -> str:
    """Return the table of rates."""
    rows = [
        ("start", f"{rates.start:.3g} s", "until anything is done: Python, numpy"),
        ("look", f"{rates.look * 1e3:.3g} ms", "a checkpoint is found and its texts are read"),
        ("header", f"{rates.header * 1e3:.3g} ms", "the header of a weights file is read"),
        ("checkpoint", f"{rates.checkpoint * 1e3:.3g} ms", "lock, journal, config, index"),
        ("shard", f"{rates.shard * 1e3:.3g} ms", "a shard, besides its bytes: open, check, rename"),
        ("cast", f"{rates.cast / GB:.3g} GB/s", "one worker reads, casts and writes this much"),
        ("scan", f"{rates.scan / GB:.3g} GB/s", "one worker reads and looks at this much"),
        ("disk", "not known", "all workers together read and write this much"),
    ]
    return _table(("rate", "default", "what it is"), [(f"`{a}`", b, c) for a, b, c in rows])


def _quality(recorded: str) -> str:
    """Return how well the model predicts the rows of the recorded table."""
    rows = [line.strip("| ").split(" | ") for line in recorded.splitlines() if line.startswith("|")]
    found = sorted(float(row[-1]) for row in rows[2:])
    if not found:
        return "No table of a quiet machine is recorded yet, so the defaults are round numbers."
    near = sum(0.8 <= each <= 1.25 for each in found) / len(found)
    return (
        f"Of the {len(found)} rows it was fitted to, it predicts {near:.0%} within a fifth; the "
        f"least is {found[0]:.2f} of what was measured, the most {found[-1]:.2f}."
    )


def _requests() -> str:
    """Return the table of what was counted."""
    kinds = [
        ("any checkpoint, already right or not", model.LOOK),
        ("besides, one that changes, in place", model.IN_PLACE),
        ("besides, one that changes, into a new folder", model.ANEW),
    ]
    head = ("", "the checkpoint", "each weights file", "each other file", "each 2 MiB")
    rows = [
        (
            name,
            *(
                f"{count or ''}"
                for count in (each.checkpoint, each.weights_file, each.other_file, each.per_piece)
            ),
        )
        for name, each in kinds
    ]
    return _table(head, rows)


def _time(rates: Rates) -> str:
    """Return what a petabyte takes."""
    rows = []
    for in_place in (True, False):
        for workers, disk in CLUSTERS:
            found = estimate(petabyte(in_place=in_place), workers, replace(rates, disk=disk))
            rows.append(
                (
                    "in place" if in_place else "new folder",
                    str(workers),
                    f"{disk // GB} GB/s" if disk else "not known",
                    ("" if disk else "at least ") + duration(found.seconds),
                    found.limit.value,
                    f"{found.worker_hours:,.0f}",
                    f"{found.enough_workers:,}" if found.enough_workers else "",
                )
            )
    head = ("where to", "workers", "disk", "time", "decided by", "worker hours", "enough workers")
    return _table(head, rows)


def _money(rates: Rates) -> str:
    """Return what a petabyte costs, by example."""
    rows = []
    for in_place in (True, False):
        work, known = petabyte(in_place=in_place), replace(rates, disk=100 * GB)
        enough = estimate(work, 1, known).enough_workers or 1
        found = estimate(work, enough, known)
        costs = [
            estimate(work, enough, replace(known, prices=prices)).cost for prices in PRICED.values()
        ]
        rows.append(
            (
                "in place" if in_place else "new folder",
                f"{found.bytes_read / TB:,.0f} TB",
                f"{found.bytes_written / TB:,.0f} TB",
                f"{found.requests / 1e6:,.0f} million",
                *(f"{cost:,.0f} USD" for cost in costs),
            )
        )
    return _table(("where to", "read", "written", "requests", *PRICED), rows)


def _file(rates: Rates) -> str:
    """Return an example of a file of rates."""
    prices = {"currency": "USD", "worker_hour": BY_BYTES.worker_hour}
    prices |= {"terabyte_read": 30.0, "terabyte_written": 60.0}
    document = {"cast": rates.cast, "disk": 20e9, "prices": prices}
    return f"```json\n{json.dumps(document, indent=2)}\n```"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ("---",) * len(head), *rows))


if __name__ == "__main__":
    main()
