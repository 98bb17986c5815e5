"""recast, called from Python. Prints the seconds of the conversion alone."""

import argparse
import json
from pathlib import Path

import recast


def main() -> None:
    """Convert SOURCE to bf16, into the new folder OUT."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--no-evidence", action="store_true")
    arguments = parser.parse_args()
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
