"""What a fleet takes in time, and in requests to its disk: a small model, fitted to measurements.

docs/scale.md explains it, and `make bench ARGS=--fleet` measures what is fitted.
"""

from dataclasses import dataclass

_PIECE = 1 << 20  # bytes that one read fetches, as execution cuts shards


@dataclass(frozen=True, slots=True)
class Work:
    """What is to be done in a fleet.

    Attributes:
        checkpoints: how many are looked at.
        changing: how many of them change.
        shards: the weights files that are written anew.
        bytes_read: the bytes of these, as often as they are read.
        bytes_written: the bytes that are written.
    """

    checkpoints: int
    changing: int
    shards: int
    bytes_read: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Rates:
    """What one worker does, and what all of them have to share.

    Attributes:
        worker: bytes that one worker reads, casts and writes in a second, counted as read.
        disk: bytes that all workers together can read and write in a second; None where the
            disk is faster than they are.
        shard: seconds that one worker needs for a shard, besides its bytes.
        checkpoint: seconds that a checkpoint that changes takes, besides its shards.
        look: seconds for reading the headers of any checkpoint.
    """

    worker: float = 1.3e9
    disk: float | None = None
    shard: float = 0.002
    checkpoint: float = 0.004
    look: float = 0.001


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a fleet will take, about.

    Attributes:
        seconds: from its beginning to its end.
        workers: how many take part.
        bytes_read: the bytes that are read.
        bytes_written: the bytes that are written.
        requests: the operations on files, as a disk across a network counts them.
    """

    seconds: float
    workers: int
    bytes_read: int
    bytes_written: int
    requests: int


# Opened, looked at, locked, made durable, renamed: counted with strace, see docs/scale.md.
_REQUESTS_OF_A_LOOK = 20
_REQUESTS_OF_A_CHECKPOINT = 60
_REQUESTS_OF_A_SHARD = 40


def estimate(work: Work, workers: int, rates: Rates) -> Estimate:
    """Return what *work* takes when *workers* share it.

    Headers, configs and renames are one process's, whatever the number of workers.
    """
    shared = work.bytes_read / rates.worker + work.shards * rates.shard
    alone = work.changing * rates.checkpoint + work.checkpoints * rates.look
    moved = work.bytes_read + work.bytes_written
    on_disk = moved / rates.disk if rates.disk else 0.0
    requests = (
        work.checkpoints * _REQUESTS_OF_A_LOOK
        + work.changing * _REQUESTS_OF_A_CHECKPOINT
        + work.shards * _REQUESTS_OF_A_SHARD
        + -(-moved // _PIECE)
    )
    seconds = max(shared / workers, on_disk) + alone
    return Estimate(seconds, workers, work.bytes_read, work.bytes_written, requests)
