"""What a fleet takes in time, in requests to its disk and in money: a small model.

docs/scale.md explains it and says how well it predicts. Its rates were measured by
`make bench ARGS=--fleet`, its requests are counted anew by a test.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import ceil

PIECE = 2 << 20  # bytes of a source that one read fetches, as execution cuts shards
_HOUR, _MILLION, _TERABYTE = 3600, 10**6, 10**12


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done in a fleet.

    Attributes:
        checkpoints: how many are looked at.
        weights_files: how many weights files these have.
        other_files: how many other files, besides configs and indexes, lie with them.
        changing: how many checkpoints change.
        shards: the weights files that are written anew.
        companions: the files that lie with these in their checkpoints, and stay as they are.
        bytes_cast: the bytes of the shards, as they are.
        bytes_written: the same, as they will be.
        bytes_copied: the bytes of the companions; 0 in place, where they are not touched.
        bytes_scanned: the bytes that are looked at before anything is replaced; 0 in a new folder.
        in_place: whether the sources are replaced.
    """

    checkpoints: int = 0
    weights_files: int = 0
    other_files: int = 0
    changing: int = 0
    shards: int = 0
    companions: int = 0
    bytes_cast: int = 0
    bytes_written: int = 0
    bytes_copied: int = 0
    bytes_scanned: int = 0
    in_place: bool = False


@dataclass(frozen=True, slots=True)
class Prices:
    """What is billed. All are 0 by default: what nobody bills costs nothing.

    Attributes:
        currency: the unit of all of them.
        worker_hour: for one worker, an hour.
        million_requests: for a million operations on files.
        terabyte_read: for 10^12 bytes that are read.
        terabyte_written: for 10^12 bytes that are written.
    """

    currency: str = "USD"
    worker_hour: float = 0.0
    million_requests: float = 0.0
    terabyte_read: float = 0.0
    terabyte_written: float = 0.0


@dataclass(frozen=True, slots=True)
class Rates:
    """What one worker does, what all have to share, and what is billed.

    The defaults are those in the table of fleets of benchmarks/README.md.

    Attributes:
        start: seconds until anything is done.
        look: seconds for finding a checkpoint and reading what its texts say.
        header: seconds for reading the header of a weights file.
        checkpoint: seconds that a checkpoint that changes takes, besides its shards.
        shard: seconds that a shard takes besides its bytes: opened, checked, renamed.
        cast: bytes of a source that one worker reads, casts and writes in a second.
        scan: bytes that one worker reads and looks at in a second.
        disk: bytes that all together can read and write in a second; None if it is not known.
        prices: what is billed; None for an estimate without money.
    """

    start: float = 0.202
    look: float = 0.000624
    header: float = 0.000213
    checkpoint: float = 0.00183
    shard: float = 0.000806
    cast: float = 2.39e9
    scan: float = 3.06e9
    disk: float | None = None
    prices: Prices | None = None


class Limit(StrEnum):
    """What decides how long a fleet takes."""

    WORKERS = "workers"
    DISK = "disk"
    COORDINATOR = "coordinator"  # the one process that finds, gives out work and publishes


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a fleet will take, about.

    Attributes:
        seconds: from its beginning to its end.
        workers: how many take part.
        worker_hours: the hours of all workers together, idle or not.
        limit: what decides.
        disk_is_known: whether the disk was reckoned with; if not, *seconds* is a lower bound.
        enough_workers: how many the disk can feed: more are no faster; None if it is not known.
        bytes_read: the bytes that are read.
        bytes_written: the bytes that are written.
        requests: the operations on files, which a disk across a network may see.
        cost: what all of it costs, in *currency*; None if nobody has said what is billed.
        currency: the unit of *cost*.
    """

    seconds: float
    workers: int
    worker_hours: float
    limit: Limit
    disk_is_known: bool
    enough_workers: int | None
    bytes_read: int
    bytes_written: int
    requests: int
    cost: float | None
    currency: str | None


@dataclass(frozen=True, slots=True)
class Requests:
    """System calls on files: for a checkpoint, and for each file of it."""

    checkpoint: int
    weights_file: int
    other_file: int
    per_piece: int = 0

    def of(self, checkpoints: int, weights_files: int, other_files: int, pieces: int = 0) -> int:
        """Return how many there are in all."""
        return (
            self.checkpoint * checkpoints
            + self.weights_file * weights_files
            + self.other_file * other_files
            + self.per_piece * pieces
        )


# Counted, not guessed: tests/fleet/test_requests.py counts them again.
LOOK = Requests(46, 14, 4)
IN_PLACE = Requests(131, 54, 2, per_piece=3)  # a piece is scanned, read and written
ANEW = Requests(159, 58, 37, per_piece=2)


def requests(work: Work) -> int:
    """Return how many operations on files *work* takes."""
    change = IN_PLACE if work.in_place else ANEW
    pieces = work.shards + work.bytes_cast // PIECE  # of each shard, one is smaller
    return LOOK.of(work.checkpoints, work.weights_files, work.other_files) + change.of(
        work.changing, work.shards, work.companions, pieces
    )


def by_workers(work: Work, rates: Rates) -> float:
    """Return the seconds that workers share."""
    cast = (work.bytes_cast + work.bytes_copied) / rates.cast
    return cast + work.bytes_scanned / rates.scan


def by_coordinator(work: Work, rates: Rates) -> float:
    """Return the seconds that one process needs, whatever the number of workers.

    A shard's own part is here, too: most of it is Python's, of which one thread runs at a time,
    and with an executor, giving the jobs out and publishing what they have made.
    """
    looks = work.checkpoints * rates.look + work.weights_files * rates.header
    changes = work.changing * rates.checkpoint + work.shards * rates.shard
    return rates.start + looks + changes


def estimate(work: Work, workers: int, rates: Rates) -> Estimate:
    """Return what *work* takes when *workers* share it."""
    shared, alone = by_workers(work, rates), by_coordinator(work, rates)
    read = work.bytes_cast + work.bytes_scanned + work.bytes_copied
    written = work.bytes_written + work.bytes_copied
    on_disk = (read + written) / rates.disk if rates.disk else 0.0
    seconds = max(shared / workers, on_disk) + alone
    hours, count = seconds * workers / _HOUR, requests(work)
    parts = {Limit.WORKERS: shared / workers, Limit.DISK: on_disk, Limit.COORDINATOR: alone}
    return Estimate(
        seconds=seconds,
        workers=workers,
        worker_hours=hours,
        limit=max(parts, key=lambda each: parts[each]),
        disk_is_known=rates.disk is not None,
        enough_workers=max(1, ceil(shared / on_disk)) if on_disk else None,
        bytes_read=read,
        bytes_written=written,
        requests=count,
        cost=_cost(rates.prices, hours, count, read, written) if rates.prices else None,
        currency=rates.prices.currency if rates.prices else None,
    )


def _cost(prices: Prices, hours: float, requests: int, read: int, written: int) -> float:
    """Return what is billed."""
    return (
        hours * prices.worker_hour
        + requests / _MILLION * prices.million_requests
        + read / _TERABYTE * prices.terabyte_read
        + written / _TERABYTE * prices.terabyte_written
    )
