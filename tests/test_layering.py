"""Who may import whom, who may touch what, and what is loaded when: over syntax and processes."""

import ast
import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import recast
from recast.planning import keep_rules

PACKAGE = Path(recast.__file__).parent

# From left to right, each may import its own rank and those that follow.
RANKS = (
    ("recast.cli", "recast.__main__"),
    ("recast",),
    ("recast.execution.fleets",),
    ("recast.execution", "recast.remote", "recast.hub"),
    ("recast.execution.values",),
    ("recast.reports",),
    ("recast.planning",),
    ("recast.formats",),
    ("recast.dtypes",),
    ("recast.errors",),
)

# All that values and decisions need of the standard library. Nothing in it touches a disk,
# save what the next two tables say.
PURE = {"collections", "dataclasses", "enum", "fnmatch", "functools", "hashlib", "itertools"}
PURE |= {"json", "math", "pathlib", "posixpath", "re", "shlex", "typing"}
# The rules lie beside the module as data.
ALSO = {"recast.planning.keep_rules": {"importlib"}}
EFFECTS = {
    *("open", "read", "read_bytes", "read_text", "write", "write_bytes", "write_text"),
    *("cwd", "exists", "glob", "is_dir", "is_symlink", "iterdir", "lstat", "resolve", "rglob"),
    *("absolute", "chmod", "expanduser", "hardlink_to", "mkdir", "readlink", "rename", "rmdir"),
    *("samefile", "scandir", "stat", "symlink_to", "touch", "unlink", "walk"),
}
# "." has no name to build another upon, and two names may lead to one checkpoint.
ALLOWED_EFFECTS = {
    "recast.planning.keep_rules": {"read_text"},
    "recast.planning.plan": {"resolve"},
}

COMMAND = {f"recast.cli.{path.stem}" for path in (PACKAGE / "cli").glob("[!_]*.py")}
# Modules that one place alone may know, and whether it must wait until they are needed.
ONLY_IN = {
    "click": (COMMAND, "at the top"),
    "distributed": ({"recast.execution.fleets.cluster"}, "in a function"),
    "huggingface_hub": ({"recast.hub"}, "anywhere"),
    "jinja2": ({"recast.reports.page"}, "in a function"),
    "torch": ({"recast.execution.values.cast"}, "in a function"),
    "tqdm": (COMMAND, "in a function"),
}
LIBRARIES = {"ml_dtypes", "numpy", "safetensors"}


def module_of(path: Path) -> str:
    """Return the dotted name of a source file."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every module."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """Yield each module that *module* imports, and whether a function does it."""
    for function in (False, True):
        for node in nodes(trees()[module], function=function):
            if isinstance(node, ast.Import):
                yield from ((alias.name, function) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module}:{node.lineno} imports relatively"
                assert node.module is not None
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    yield (name if name in trees() else node.module), function
    if module == "recast":  # names that are loaded when they are first used
        yield from ((home, True) for home in vars(recast)["_HOMES"].values())


def nodes(tree: ast.AST, *, function: bool) -> Iterator[ast.AST]:
    """Yield the nodes of a tree that lie inside a function, or those that lie outside."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            if not function:
                yield node
            yield from nodes(node, function=function)
        elif function:
            yield from ast.walk(node)


def rank(module: str) -> int:
    """Return the place of a module of recast from left to right."""
    places = {name: place for place, names in enumerate(RANKS) for name in names}
    for name in (module, *reversed([module[: dot.start()] for dot in re.finditer(r"\.", module)])):
        if name in places and (name != "recast" or module == name):
            return places[name]
    raise AssertionError(f"{module} has no place in the house")


def within(*parents: str) -> list[str]:
    """Return the modules of these packages."""
    return [name for name in trees() if name.startswith(tuple(f"{each}." for each in parents))]


@pytest.mark.parametrize("module", trees())
def test_imports_point_to_the_right(module: str) -> None:
    """No module imports one that stands left of it: effects know decisions, never vice versa."""
    wrong = [
        imported
        for imported, _ in imports(module)
        if imported.partition(".")[0] == "recast" and rank(imported) < rank(module)
    ]
    assert not wrong


def test_no_import_goes_in_circles() -> None:
    """Within a layer too, modules can be read in an order in which each builds on the last."""
    graph = {module: {name for name, _ in imports(module)} - {module} for module in trees()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError
    assert set(order) >= trees().keys()


@pytest.mark.parametrize("module", within("recast.formats", "recast.planning"))
def test_values_and_decisions_import_nothing_that_acts(module: str) -> None:
    """Formats and planning know neither numpy nor torch nor a module that reads or writes."""
    foreign = {name.partition(".")[0] for name, _ in imports(module)} - {"recast"}
    assert foreign <= PURE | ALSO.get(module, set())


@pytest.mark.parametrize("module", within("recast.formats", "recast.planning"))
def test_values_and_decisions_do_not_touch_the_disk(module: str) -> None:
    """Formats and planning call nothing by a name under which Python looks at files."""
    called = {
        getattr(node.func, "id", getattr(node.func, "attr", ""))
        for node in ast.walk(trees()[module])
        if isinstance(node, ast.Call)
    }
    assert not called & EFFECTS - ALLOWED_EFFECTS.get(module, set())


def test_the_exceptions_are_needed() -> None:
    """What the tables above allow to single modules is what these modules do: nothing is stale."""
    for module, names in ALSO.items():
        assert names <= {name.partition(".")[0] for name, _ in imports(module)}
    for module, names in ALLOWED_EFFECTS.items():
        assert all(f".{name}(" in ast.unparse(trees()[module]) for name in names)


@pytest.mark.parametrize("library", ONLY_IN)
def test_some_libraries_are_known_in_one_place(library: str) -> None:
    """Heavy and talkative libraries are imported by one module, and late where that matters."""
    places, when = ONLY_IN[library]
    found = {
        (module, function)
        for module in trees()
        for name, function in imports(module)
        if name.partition(".")[0] == library
    }
    assert {module for module, _ in found} <= places
    if when != "anywhere":
        assert {function for _, function in found} == {when == "in a function"}


def test_no_other_library_is_imported() -> None:
    """Whatever recast imports is recast, the standard library, or a dependency named here."""
    found = {name.partition(".")[0] for module in trees() for name, _ in imports(module)}
    assert found - sys.stdlib_module_names - {"recast"} <= {*LIBRARIES, *ONLY_IN}


@pytest.mark.parametrize("module", [name for name in trees() if name not in COMMAND])
def test_only_the_command_prints(module: str) -> None:
    """No other module writes to the terminal, logs, warns, or ends the process."""
    tree = trees()[module]
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not names & {"print", "input", "exit", "breakpoint"}
    assert not attributes & {"sys.stdout", "sys.stderr", "sys.stdin", "sys.exit", "os._exit"}
    assert not {name for name, _ in imports(module)} & {"logging", "warnings", "sys"}


@pytest.mark.parametrize("name", recast.__all__)
def test_no_module_has_the_name_of_something_public(name: str) -> None:
    """An attribute of recast is never both a function and a module."""
    assert importlib.util.find_spec(f"recast.{name}") is None


def loaded(*arguments: str) -> set[str]:
    """Run Python with these arguments, and return the names of all modules that it loaded."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = done.stderr.splitlines()
    said = [line for line in lines if not line.startswith("import time:")]
    assert done.returncode == 0, "\n".join(said)
    return {line.rpartition("|")[2].strip() for line in lines if line not in said}


@pytest.mark.parametrize("arguments", [("-c", "import recast"), ("-m", "recast", "--help")])
def test_starting_loads_no_arrays(arguments: tuple[str, ...]) -> None:
    """Importing recast and asking for help load neither torch nor numpy nor the Hub's client."""
    modules = loaded(*arguments)
    assert "recast" in modules
    assert not modules & {"torch", "numpy", "ml_dtypes", "safetensors", "huggingface_hub", "tqdm"}


def test_importing_recast_loads_nothing_else_of_it() -> None:
    """The package loads its modules when they are first used: importing it takes no time."""
    assert {name for name in loaded("-c", "import recast") if name.startswith("recast")} == {
        "recast"
    }


def test_no_mode_but_the_cast_to_fp16_loads_torch(ckpt: Path) -> None:
    """Inspecting, planning, converting to bf16 and to fp32, and verifying go without torch."""
    narrow, wide, half = (ckpt.with_name(name) for name in ("narrow", "wide", "half"))
    runs = {
        "inspect": (str(ckpt),),
        "plan": (str(ckpt), "--to", "fp16", "-n"),
        "to bf16": (str(ckpt), "--to", "bf16", "-o", str(narrow)),
        "verify": (str(narrow), "--against", str(ckpt)),
        "to fp32": (str(narrow), "--to", "fp32", "-o", str(wide)),
        "to fp16": (str(ckpt), "--to", "fp16", "-o", str(half)),
    }
    modules = {run: loaded("-m", "recast", *arguments) for run, arguments in runs.items()}
    assert [run for run, names in modules.items() if "torch" in names] == ["to fp16"]
    assert not [run for run, names in modules.items() if "huggingface_hub" in names]
    assert narrow.is_dir()
    assert wide.is_dir()
    assert half.is_dir()


SETTINGS = """
import gc, locale, os, signal, sys, threading, warnings

def settings():
    found = {
        "signals": [signal.getsignal(number) for number in sorted(signal.valid_signals())],
        "warnings": list(warnings.filters),
        "showwarning": warnings.showwarning,
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "gc": (gc.isenabled(), gc.get_threshold()),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "locale": locale.setlocale(locale.LC_ALL),
        "limits": (sys.getrecursionlimit(), sys.get_int_max_str_digits(), sys.getswitchinterval()),
        "path": list(sys.path),
    }
    os.umask(umask := os.umask(0))
    found["umask"] = umask
    if torch := sys.modules.get("torch"):
        counts = [torch.get_num_threads(), torch.get_num_interop_threads()]
        # A thread that is started from now on asks anew.
        thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        found["torch threads"] = counts
        found["torch dtype"] = torch.get_default_dtype()
        found["torch modes"] = torch.is_grad_enabled(), torch.are_deterministic_algorithms_enabled()
        found["torch device"] = torch.get_default_device()
        found["torch seed"] = torch.initial_seed()
    if numpy := sys.modules.get("numpy"):
        found["numpy"] = numpy.geterr(), numpy.get_printoptions()
    return found

def compare(before, what):
    after = settings()
    changed = {key: (before[key], after[key]) for key in before if before[key] != after[key]}
    assert not changed, f"{what} changed {changed}"
"""


def run_script(script: str, *arguments: str) -> None:
    """Run a script that fails by an assertion."""
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", SETTINGS + script, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""


def test_importing_and_converting_leave_the_process_as_it_was(ckpt: Path) -> None:
    """Signals, warnings, hooks, garbage collection and the rest survive all but torch's import."""
    run_script(
        """
import numpy  # whose own import is its own affair
before = settings()
import recast
for name in recast.__all__:
    getattr(recast, name)
compare(before, "importing recast")
source, target = sys.argv[1:]
recast.convert(source, "bf16", out=target)
assert recast.verify(target, against=source)
compare(before, "converting to bf16")
""",
        str(ckpt),
        str(ckpt.with_name("out")),
    )


def test_converting_to_fp16_leaves_torch_as_it_was(ckpt: Path) -> None:
    """Torch's threads, default dtype and the rest are what the caller chose, cast or no cast."""
    run_script(
        """
import torch
torch.set_num_threads(3)
torch.set_default_dtype(torch.float64)
torch.manual_seed(7)
before = settings()
import recast
source, target = sys.argv[1:]
recast.convert(source, "fp16", out=target, workers=2)
assert recast.verify(target, against=source, workers=2)
compare(before, "converting to fp16")
""",
        str(ckpt),
        str(ckpt.with_name("out")),
    )


def test_the_rules_are_data_of_the_package() -> None:
    """The files that planning reads lie in the package, where an installation has it too."""
    home = Path(keep_rules.__file__).parent
    assert home.is_relative_to(PACKAGE)
    found = {path.name for path in home.iterdir() if path.suffix == ".json"}
    assert found == {"always_kept.json", "keep_rules.json"}
