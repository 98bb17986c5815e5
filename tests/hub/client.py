"""Many pushes in one process, each in a thread of its own: starting the Hub's client takes long.

Reads jobs from stdin, one JSON document, and writes how each ended to stdout.
"""

import json
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

_AT_ONCE = 24  # most of the time they wait before they try again


@dataclass(frozen=True)
class Job:
    """A folder, or a path on the Hub, to be made bf16 and pushed to *repo*."""

    source: str
    repo: str


@dataclass(frozen=True)
class Outcome:
    """The URL that a push returned; or its error: the kind, and what it said."""

    url: str = ""
    error: str = ""
    said: str = ""


def run(jobs: Iterable[Job], environment: dict[str, str]) -> list[Outcome]:
    """Do all of *jobs* in one process, and return how they ended."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hub.client"],
        input=json.dumps([asdict(job) for job in jobs]),
        env=environment,
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=True,
    )
    return [Outcome(**each) for each in json.loads(done.stdout)]


def _push(job: Job) -> Outcome:
    """Do one job."""
    import recast  # noqa: PLC0415 - only in the process that does it

    try:
        source = recast.plan(job.source, "bf16") if job.source.startswith("hf://") else job.source
        return Outcome(url=str(recast.push(source, job.repo, workers=1)))
    except recast.RecastError as error:
        return Outcome(error=type(error).__name__, said=str(error))


if __name__ == "__main__":
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        outcomes = list(pool.map(_push, [Job(**each) for each in json.load(sys.stdin)]))
    json.dump([asdict(each) for each in outcomes], sys.stdout)
