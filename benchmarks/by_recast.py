"""recast, called from Python. Prints the seconds of the work alone."""

import argparse
import json
from pathlib import Path

import recast


def main() -> None:
    """Convert SOURCE to bf16, into the new folder OUT; or look at every value of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--no-evidence", action="store_true")
    parser.add_argument("--scan", action="store_true")
    arguments = parser.parse_args()
    if arguments.scan:
        print(json.dumps({"seconds": recast.scan(arguments.source).seconds}))
        return
    conversion = recast.convert(
        arguments.source,
        "bfloat16",
        out=arguments.out,
        workers=arguments.workers,
        evidence=not arguments.no_evidence,
    )
    print(json.dumps({"seconds": conversion.seconds}))


if __name__ == "__main__":
    main()
