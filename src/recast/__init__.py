"""recast: rewrite saved models in the dtype they should have, without loading them.

    >>> recast.convert("./ckpt", "bfloat16")  # doctest: +SKIP

Names are loaded when they are first used, so that importing recast takes milliseconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from recast.dtypes import Dtype
    from recast.errors import (
        BusyError,
        CheckpointError,
        DtypeError,
        HubError,
        LossError,
        RecastError,
        RefusedError,
        ShardError,
        StorageError,
        TargetError,
        WorkerError,
    )
    from recast.execution.converter import convert, fix_config, plan
    from recast.execution.fleets.discovery import discover
    from recast.execution.fleets.fleet import convert_all
    from recast.execution.fleets.meter import Watcher
    from recast.execution.reader import inspect
    from recast.execution.reporter import report
    from recast.execution.scanner import scan
    from recast.execution.verifier import verify
    from recast.formats.checkpoint import Checkpoint
    from recast.formats.findings import findings
    from recast.formats.findings.finding import Finding, Severity
    from recast.planning.plan import Plan
    from recast.planning.publication import Publication
    from recast.remote.push import plan_push, push
    from recast.reports.conversion import Conversion
    from recast.reports.fleet import Fate, Outcome
    from recast.reports.scan import Scan
    from recast.reports.verification import Verification

_HOMES = {
    "BusyError": "recast.errors",
    "Checkpoint": "recast.formats.checkpoint",
    "CheckpointError": "recast.errors",
    "Conversion": "recast.reports.conversion",
    "Dtype": "recast.dtypes",
    "DtypeError": "recast.errors",
    "Fate": "recast.reports.fleet",
    "Finding": "recast.formats.findings.finding",
    "HubError": "recast.errors",
    "LossError": "recast.errors",
    "Outcome": "recast.reports.fleet",
    "Plan": "recast.planning.plan",
    "Publication": "recast.planning.publication",
    "RecastError": "recast.errors",
    "RefusedError": "recast.errors",
    "Scan": "recast.reports.scan",
    "Severity": "recast.formats.findings.finding",
    "ShardError": "recast.errors",
    "StorageError": "recast.errors",
    "TargetError": "recast.errors",
    "Verification": "recast.reports.verification",
    "Watcher": "recast.execution.fleets.meter",
    "WorkerError": "recast.errors",
    "convert": "recast.execution.converter",
    "convert_all": "recast.execution.fleets.fleet",
    "discover": "recast.execution.fleets.discovery",
    "findings": "recast.formats.findings",
    "fix_config": "recast.execution.converter",
    "inspect": "recast.execution.reader",
    "plan": "recast.execution.converter",
    "plan_push": "recast.remote.push",
    "push": "recast.remote.push",
    "report": "recast.execution.reporter",
    "scan": "recast.execution.scanner",
    "verify": "recast.execution.verifier",
}

__all__ = [
    "BusyError",
    "Checkpoint",
    "CheckpointError",
    "Conversion",
    "Dtype",
    "DtypeError",
    "Fate",
    "Finding",
    "HubError",
    "LossError",
    "Outcome",
    "Plan",
    "Publication",
    "RecastError",
    "RefusedError",
    "Scan",
    "Severity",
    "ShardError",
    "StorageError",
    "TargetError",
    "Verification",
    "Watcher",
    "WorkerError",
    "__version__",
    "convert",
    "convert_all",
    "discover",
    "findings",
    "fix_config",
    "inspect",
    "plan",
    "plan_push",
    "push",
    "report",
    "scan",
    "verify",
]


def __getattr__(name: str) -> object:
    """Load the public name *name* (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module 'recast' has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
