"""The estimate of a fleet: laws that hold whatever the rates, and its page."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recast.errors import RefusedError
from recast.planning.estimate import Limit, Prices, Rates, Work, estimate
from recast.planning.rates import dump, parse
from tools import scale

ROOT = Path(__file__).parents[2]

counts = st.integers(0, 10**6)
works = st.builds(
    Work,
    checkpoints=counts,
    weights_files=counts,
    other_files=counts,
    changing=counts,
    shards=counts,
    companions=counts,
    bytes_cast=st.integers(1, 10**15),
    bytes_written=st.integers(0, 10**15),
    bytes_copied=st.integers(0, 10**12),
    bytes_scanned=st.integers(0, 10**15),
    in_place=st.booleans(),
)
seconds, speeds = st.floats(0, 10), st.floats(1e3, 1e12)
rates = st.builds(
    Rates,
    start=seconds,
    look=seconds,
    header=seconds,
    checkpoint=seconds,
    shard=seconds,
    cast=speeds,
    scan=speeds,
    disk=st.none() | speeds,
    prices=st.none() | st.builds(Prices, st.just("EUR"), seconds, seconds, seconds, seconds),
)


@given(works, rates, st.integers(1, 1000))
def test_more_workers_are_never_slower(work: Work, known: Rates, workers: int) -> None:
    """One worker more takes no longer, and no fewer requests or bytes."""
    few, more = estimate(work, workers, known), estimate(work, workers + 1, known)
    assert more.seconds <= few.seconds
    assert (more.requests, more.bytes_read, more.bytes_written) == (
        few.requests,
        few.bytes_read,
        few.bytes_written,
    )


@given(works, rates.filter(lambda each: each.disk is not None))
def test_enough_workers_are_enough(work: Work, known: Rates) -> None:
    """With as many as the disk can feed, a thousand more gain nothing; with one less, they do."""
    enough = estimate(work, 1, known).enough_workers
    assert enough is not None
    least = estimate(work, enough + 1000, known).seconds
    assert estimate(work, enough, known).seconds == pytest.approx(least)
    if enough > 1:
        assert estimate(work, enough - 1, known).seconds >= least


@given(works, rates, st.integers(1, 1000))
def test_without_a_disk_it_is_a_lower_bound(work: Work, known: Rates, workers: int) -> None:
    """A disk of whatever speed takes no time away, and it is said whether there is one."""
    unbound = estimate(work, workers, replace(known, disk=None))
    assert unbound.seconds <= estimate(work, workers, known).seconds
    assert not unbound.disk_is_known
    assert unbound.limit is not Limit.DISK
    assert unbound.enough_workers is None


@given(works, rates, st.integers(1, 1000))
def test_money_is_what_is_billed(work: Work, known: Rates, workers: int) -> None:
    """The cost is hours, requests and bytes by their prices; without prices there is none."""
    found = estimate(work, workers, known)
    assert found.worker_hours == pytest.approx(found.seconds * workers / 3600)
    if known.prices is None:
        assert found.cost is None
        return
    quantities = (
        found.worker_hours,
        found.requests / 1e6,
        found.bytes_read / 1e12,
        found.bytes_written / 1e12,
    )
    _, *prices = asdict(known.prices).values()
    assert found.cost == pytest.approx(sum(a * b for a, b in zip(quantities, prices, strict=True)))


@given(rates)
def test_rates_come_back_from_their_file(known: Rates) -> None:
    """What the benchmark writes is what `--rates` reads."""
    assert parse(dump(known), "rates.json") == known


def test_what_a_file_leaves_out_is_as_by_default() -> None:
    """A file may name a single rate."""
    assert parse('{"disk": 2e10}', "rates.json") == Rates(disk=2e10)
    assert parse('{"disk": null, "prices": null}', "rates.json") == Rates()


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists).map(json.dumps))
def test_what_holds_no_rates_is_refused(text: str) -> None:
    """Whatever else stands in the file, it is refused by its name."""
    with pytest.raises(RefusedError, match="my rates"):
        parse(text, "my rates")


def test_the_defaults_are_what_was_recorded() -> None:
    """Rates are the figures of the table of fleets, not guesses."""
    recorded = scale.recorded((ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8"))
    if recorded is None:
        pytest.skip("no fleet was measured on a quiet machine yet: benchmarks/README.md says so")
    assert Rates() == recorded


def test_the_page_says_what_the_model_says() -> None:
    """Every table of docs/scale.md is computed: `python -m tools.scale` writes them anew."""
    page = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")
    assert scale.renewed(page) == page
