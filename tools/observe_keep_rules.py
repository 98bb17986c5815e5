"""Observe which tensors transformers keeps in fp32 when it narrows a model, by name on disk.

A model of each type is built tiny, saved in fp32, then loaded and saved again in bf16 and in
fp16. What is still F32 on disk was kept. The lists in transformers' code are no substitute:
they name modules, not tensors on disk, and miss what comes with a sub-model or is merely
declared float32.

    python -m tools.observe_keep_rules            observe all types, write the table
    python -m tools.observe_keep_rules --check    exit 1 if the table is no longer true

Needs torch and transformers; timm, torchvision and pillow as well for the types with a timm
backbone: without, a new table counts them as impossible to build, and a check passes them over.
An interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import multiprocessing
import os
import re
import struct
import sys
import tempfile
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import torch
import transformers
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto.configuration_auto import model_type_to_module_name

from tools import tiny_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

TABLE = Path(__file__).parents[1] / "src/recast/planning/keep_rules.json"
SOURCE = f"transformers {transformers.__version__}, observed by tools/observe_keep_rules.py"
NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}
TIMEOUT = 120
"""Seconds for one model type. Most take less than one."""
WIDTH = 100
"""Columns of the table's text."""

VARIANTS: dict[str, tiny_models.Settings] = {
    "blip-2": {"qformer_config": {"use_qformer_text_input": True}},
    "timesfm": {"use_positional_embedding": True},
}
"""By model type: settings, not the default ones, that bring more tensors that are kept."""

MISNAMED = {
    "kimi_k25": ("language_model.model.blocks.", "language_model.model.layers."),
}
"""By model type: a prefix that transformers writes, and the publisher's, which it reads too."""

Table: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Observation:
    """What happened to the tensors of one model type. All names are those on disk."""

    model_type: str
    names: tuple[str, ...]
    """Every tensor that was F32 to begin with."""
    kept_bf16: tuple[str, ...]
    kept_fp16: tuple[str, ...]

    def __or__(self, other: Self) -> Self:
        """Return both observations of one model type, made with two of its classes, as one."""
        return type(self)(
            self.model_type,
            tuple(sorted({*self.names, *other.names})),
            tuple(sorted({*self.kept_bf16, *other.kept_bf16})),
            tuple(sorted({*self.kept_fp16, *other.kept_fp16})),
        )

    def patterns(self) -> dict[str, list[str]]:
        """Return what is kept in bf16 and in fp16, as patterns; nothing if nothing is."""
        kept = {"bf16": self.kept_bf16, "fp16": self.kept_fp16}
        found = {narrow: generalise(names, self.names) for narrow, names in kept.items()}
        return found if any(found.values()) else {}


def observe(model_type: str) -> Observation:
    """Return what transformers keeps of *model_type*, over all classes that hold it.

    Classes differ in their prefixes: `model.layers.0` in one is `layers.0` in another. The
    classes after the first are only asked if the first keeps something.

    Raises CannotBuildError if the first class cannot be built.
    """
    first, *others = tiny_models.model_classes(model_type) or [None]
    observation = observe_class(model_type, first)
    if model_type in VARIANTS:
        observation |= observe_class(model_type, first, **VARIANTS[model_type])
    if not observation.kept_bf16 and not observation.kept_fp16:
        return observation
    for architecture in others:
        # Some heads need more of their config than its defaults say: those add nothing.
        with suppress(Exception):
            observation |= observe_class(model_type, architecture)
    return observation


def observe_class(
    model_type: str, architecture: type[PreTrainedModel] | None, **overrides: object
) -> Observation:
    """Return what transformers keeps of one class of *model_type*, in both formats it writes.

    Names differ between the format of the publisher and that of the model in memory.
    """
    model = tiny_models.build(model_type, architecture, **overrides)
    with tempfile.TemporaryDirectory() as scratch:
        wide = Path(scratch, "fp32")
        names = _saved(model, wide)
        if hasattr(model, "load_speakers"):
            torch.save({}, wide / "spk_dict.pt")  # Qwen2.5-Omni does not load without.
        kept = {}
        for narrow, dtype in NARROW.items():
            loaded = type(model).from_pretrained(wide, dtype=dtype)
            kept[narrow] = names & _saved(loaded, Path(scratch, narrow))
    return Observation(
        model_type, tuple(sorted(names)), tuple(sorted(kept["bf16"])), tuple(sorted(kept["fp16"]))
    )


def _saved(model: PreTrainedModel, folder: Path) -> set[str]:
    """Save *model* in *folder*; return its F32 tensors' names, in the folder and in memory."""
    model.save_pretrained(folder)
    held = {name for name, tensor in model.state_dict().items() if tensor.dtype is torch.float32}
    stored = float32_names(folder)
    theirs, published = MISNAMED.get(model.config.model_type, ("", ""))
    return held | stored | {name.replace(theirs, published, 1) for name in stored}


def float32_names(folder: Path) -> set[str]:
    """Return the names of the F32 tensors in the shards of *folder*, from their headers."""
    names = set()
    for shard in folder.glob("*.safetensors"):
        with shard.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        names |= {name for name, tensor in header.items() if tensor.get("dtype") == "F32"}
    return names


def generalise(kept: Iterable[str], names: Iterable[str]) -> list[str]:
    """Return patterns that match, of all *names*, exactly those *kept*; sorted.

    In a pattern `*` stands for one decimal number between dots. Where a pattern would match too
    much, because say only the first layer is kept, the names themselves are returned.
    """
    kept = set(kept)
    too_much = {_pattern(name) for name in names if name not in kept}
    return sorted({name if _pattern(name) in too_much else _pattern(name) for name in kept})


def _pattern(name: str) -> str:
    """Return *name* with `*` for every decimal number between dots."""
    return re.sub(r"(?<![^.])[0-9]+(?![^.])", "*", name)


def module_lists() -> dict[str, dict[str, list[str]]]:
    """Return transformers' own lists, by folder of the model's code, read from its sources.

    `keep_strict` holds for bf16 and fp16, `keep` for fp16 only. The entries are unanchored
    regular expressions on module names: a last resort for types that could not be observed.
    """
    lists: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    models = Path(transformers.utils.__file__).parents[1] / "models"
    keys = {"_keep_in_fp32_modules": "keep", "_keep_in_fp32_modules_strict": "keep_strict"}
    for path in models.glob("*/modeling_*.py"):
        code = path.read_text(encoding="utf-8")
        tree = ast.parse(code if any(key in code for key in keys) else "")  # Parsing is slow.
        for node in ast.walk(tree):
            for name, value in _assignments(node):
                if name in keys and isinstance(value, ast.List | ast.Set | ast.Tuple):
                    lists[path.parent.name][keys[name]] |= set(ast.literal_eval(value))
    return {
        folder: {key: sorted(entries) for key, entries in found.items() if entries}
        for folder, found in lists.items()
        if any(found.values())
    }


def _assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield the names that *node* assigns to, and what it assigns."""
    if isinstance(node, ast.Assign):
        yield from ((target.id, node.value) for target in node.targets if hasattr(target, "id"))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, node.value


def aliases(folders: Iterable[str]) -> dict[str, str]:
    """Return the folder of each model type that is named otherwise, if it is one of *folders*."""
    found = {kind: model_type_to_module_name(kind) for kind in CONFIG_MAPPING}
    return {kind: folder for kind, folder in found.items() if folder in folders and kind != folder}


Result: TypeAlias = "Observation | str"
"""An observation, or why there is none."""


class Worker:
    """A process that observes one model type after the other, replaced when it dies or hangs.

    Starting one takes seconds, most of them to import torch, so one serves many types.
    """

    def __init__(self) -> None:
        """Start the process."""
        self._process, self._connection = _started()

    def ask(self, model_type: str) -> Result:
        """Return the result for *model_type*, whatever happens to the process meanwhile."""
        try:
            self._connection.send(model_type)
            if self._connection.poll(TIMEOUT):
                result: Result = self._connection.recv()
                return result
        except (EOFError, OSError):
            reason = "the process died"
        else:
            reason = f"no result in {TIMEOUT} s"
        self.stop()
        self._process, self._connection = _started()
        return reason

    def stop(self) -> None:
        """End the process, by force if it does not listen."""
        with suppress(OSError):
            self._connection.send(None)
        self._process.join(timeout=1)
        self._process.kill()
        self._process.join()


def _started() -> tuple[SpawnProcess, Connection]:
    """Start a process that serves; return it, once it has imported torch, and the way to it."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    ours.recv()
    return process, ours


def _serve(connection: Connection) -> None:
    """Answer every model type that arrives until None does; the loop of a worker process."""
    torch.set_num_threads(1)
    # A default config may look for a backbone on the Hub; and what models print is no use here.
    os.environ["HF_HUB_OFFLINE"] = "1"
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())
    connection.send("ready")
    while (model_type := connection.recv()) is not None:
        connection.send(_attempt(model_type))


def _attempt(model_type: str) -> Result:
    """Observe *model_type*, or return one line about why that is impossible."""
    try:
        return observe(model_type)
    except tiny_models.CannotBuildError as error:
        reason = error.reason
    except Exception as error:  # noqa: BLE001  a foreign model may raise anything
        reason = f"cannot be loaded again: {type(error).__name__}: {error}"
    return re.sub(r"\s+", " ", reason).partition(" but it was not found")[0].strip()[:WIDTH]


def sweep(
    model_types: Iterable[str], progress: Path, say: Callable[[str], None]
) -> dict[str, Result]:
    """Return the result for each of *model_types*, taking up what *progress* already holds."""
    done = _resumed(progress)
    results: dict[str, Result] = {}
    worker = Worker()
    with progress.open("a", encoding="utf-8") as log:
        for model_type in model_types:
            result = done.get(model_type) or worker.ask(model_type)
            if isinstance(result, Observation) and model_type not in done:
                log.write(json.dumps(asdict(result)) + "\n")
                log.flush()
            results[model_type] = result
            say(_summary(model_type, result))
    worker.stop()
    return results


def tabulate(results: dict[str, Result]) -> Table:
    """Return the table that says what *results*, by model type, found."""
    observations = {
        model_type: result
        for model_type, result in sorted(results.items())
        if isinstance(result, Observation)
    }
    modules = module_lists()
    return {
        "source": SOURCE,
        "observed": {
            model_type: patterns
            for model_type, observation in observations.items()
            if (patterns := observation.patterns())
        },
        "tried": sorted(observations),
        "unbuildable": {
            model_type: result
            for model_type, result in sorted(results.items())
            if isinstance(result, str)
        },
        "modules": modules,
        "aliases": aliases(modules),
    }


def merged(stored: Table, table: Table, model_types: Iterable[str]) -> Table:
    """Return *stored* with the entries of *model_types* taken from *table*."""
    redone = set(model_types)

    def rest(section: str) -> dict[str, Any]:
        return {kind: value for kind, value in stored[section].items() if kind not in redone}

    return table | {
        "observed": rest("observed") | table["observed"],
        "tried": sorted({*stored["tried"]} - redone | {*table["tried"]}),
        "unbuildable": rest("unbuildable") | table["unbuildable"],
    }


def differences(stored: Table, table: Table) -> Iterator[str]:
    """Yield a line for each fact of *stored* that *table* contradicts.

    Wording is no fact, and a type whose backbone comes from a library that is not installed here
    says nothing.
    """
    for section in ("observed", "modules", "aliases"):
        for kind in sorted({*stored[section], *table[section]}):
            old, new = stored[section].get(kind), table[section].get(kind)
            if old != new and not _lacks_library(table, kind):
                yield f"{section}: {kind}: {json.dumps(old)} -> {json.dumps(new)}"
    for kind in sorted({*stored["tried"]} ^ {*table["tried"]}):
        reason = table["unbuildable"].get(kind, "unknown to transformers")
        if not _lacks_library(table, kind):
            yield f"tried: {kind}: {'now it is' if kind in table['tried'] else reason}"


def _lacks_library(table: Table, model_type: str) -> bool:
    """Whether *model_type* could not be built for want of a library."""
    return table["unbuildable"].get(model_type, "").startswith("ImportError")


def render(value: object, indent: int = 0) -> str:
    """Return *value* as sorted JSON; a list or dict takes one line where it fits in one."""
    line = json.dumps(value, sort_keys=True)
    if indent + len(line) < WIDTH or not isinstance(value, dict | list):
        return line
    pad = " " * (indent + 1)
    if isinstance(value, list):
        return f"[\n{_filled([render(item, indent + 1) for item in value], pad)}\n{pad[:-1]}]"
    items = [f"{pad}{json.dumps(key)}: {render(value[key], indent + 1)}" for key in sorted(value)]
    return "{\n" + ",\n".join(items) + f"\n{pad[:-1]}}}"


def _filled(items: Sequence[str], pad: str) -> str:
    """Return *items* with commas between them, as many on a line as fit."""
    lines = [pad + items[0]]
    for item in items[1:]:
        if len(lines[-1]) + len(item) + 3 < WIDTH:
            lines[-1] += f", {item}"
        else:
            lines[-1] += ","
            lines.append(pad + item)
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    args = _arguments(argv)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # Worker processes inherit it.
    model_types = args.only or sorted(CONFIG_MAPPING)
    progress = _progress_file()
    table = tabulate(sweep(model_types, progress, _say))
    stored = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else None
    if args.only and stored:
        table = merged(stored, table, args.only)
    _say(
        f"{len(table['tried'])} built, {len(table['observed'])} keep something, "
        f"{len(table['unbuildable'])} could not be built"
    )
    if args.check:
        changes = list(differences(stored, table)) if stored else [f"there is no {args.out}"]
        for change in changes:
            _say(change)
        return int(bool(changes))
    args.out.write_text(render(table) + "\n", encoding="utf-8")
    progress.unlink()
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="observe these model types")
    parser.add_argument(
        "--check", action="store_true", help="compare with the table, write nothing"
    )
    parser.add_argument("--out", type=Path, default=TABLE, help="the table (default: %(default)s)")
    return parser.parse_args(argv)


def _progress_file() -> Path:
    """Return the file of finished observations, another one whenever code or versions change."""
    code = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    key = hashlib.sha256(SOURCE.encode() + code).hexdigest()[:16]
    return Path(tempfile.gettempdir(), f"observe-keep-rules-{key}.jsonl")


def _resumed(progress: Path) -> dict[str, Observation]:
    """Return the observations in *progress* by model type."""
    lines = progress.read_text(encoding="utf-8").splitlines() if progress.exists() else []
    found = {}
    for line in lines:
        model_type, *names = json.loads(line).values()
        found[model_type] = Observation(model_type, *map(tuple, names))
    return found


def _summary(model_type: str, result: Result) -> str:
    """Return a line about *result*."""
    if isinstance(result, str):
        return f"{model_type}: {result}"
    return (
        f"{model_type}: {len(result.names)} tensors, "
        f"kept {len(result.kept_bf16)} in bf16, {len(result.kept_fp16)} in fp16"
    )


def _say(line: str) -> None:
    """Show *line* to whoever runs the command."""
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
