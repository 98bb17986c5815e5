"""The same laws under atheris, which looks for bytes that reach new code.

``python -m tests.fuzz.guided -max_total_time=60``; it takes the options of libFuzzer. atheris is
no dependency of the tests: install it for this alone.
"""

import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["recast"]):
    from tests.fuzz import mutations
    from tests.fuzz.laws import Bench
    from tests.fuzz.mutations import ShardFile

_SEEDS = 300


def main() -> None:
    """Fuzz until told to stop, beginning from mutated files of every kind."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "bench").mkdir()
        (root / "corpus").mkdir()
        bench = Bench(root / "bench")
        _plant(root / "corpus")

        def try_one(content: bytes) -> None:
            kind, rest = content[:1], content[1:]
            match kind:
                case b"i":
                    bench.check_index(rest)
                case b"c":
                    bench.check_config(rest)
                case _:  # two bytes say how much data there is
                    size = len(rest[2:]) + int.from_bytes(rest[:2], "little")
                    bench.check_shard(ShardFile(rest[2:], size))

        atheris.Setup([*sys.argv, str(root / "corpus")], try_one)
        atheris.Fuzz()


def _plant(corpus: Path) -> None:
    """Write seeds into *corpus*."""
    chance = random.Random(0)  # noqa: S311 - no secret
    for number in range(_SEEDS):
        shard = mutations.shard(chance)
        data = min(max(shard.size - len(shard.content), 0), 2**16 - 1)
        (corpus / f"{number}.h").write_bytes(b"h" + data.to_bytes(2, "little") + shard.content)
        (corpus / f"{number}.i").write_bytes(b"i" + mutations.index(chance))
        (corpus / f"{number}.c").write_bytes(b"c" + mutations.config(chance))


if __name__ == "__main__":
    main()
