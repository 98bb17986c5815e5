"""What to type to put things right."""

import shlex

from recast.dtypes import TARGETS, Dtype
from recast.formats.checkpoint import Checkpoint
from recast.formats.hub_path import HubPath


def conversion(checkpoint: Checkpoint, dtype: Dtype | None) -> str:
    """Return the command that converts *checkpoint* to *dtype*, or to bf16 if it cannot."""
    target = dtype if dtype in TARGETS else Dtype.BF16
    return shlex.join(["recast", str(checkpoint.path), "--to", target.short_name])


def gathering(checkpoint: Checkpoint) -> str:
    """Return the command that gathers a ZeRO-3 save; nothing for one that is not here."""
    if isinstance(checkpoint.path, HubPath):
        return ""
    folder = checkpoint.path.parent if checkpoint.is_file else checkpoint.path
    script = [str(folder / "zero_to_fp32.py"), str(folder), f"{folder}-whole"]
    return shlex.join(["python", *script, "--safe_serialization"])
