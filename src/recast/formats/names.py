"""What the name of a file in a checkpoint's folder says about it."""

import re
from enum import StrEnum
from pathlib import PurePosixPath, PureWindowsPath

_INDEX = re.compile(r".*\.safetensors\.index(\.[^/]*)?\.json")
_SHARD = re.compile(r"(?P<stem>.*)-\d{5,}-of-\d{5,}\.safetensors")
_TRAINER_STATE = re.compile(
    r"(optimizer|scheduler|scaler)\.(pt|bin|pth)|rng_state(_\d+)?\.pth"
    r"|(optimizer|scheduler|sampler|dl_state_dict)(_\d+)?\.bin|random_states_\d+\.pkl"  # accelerate
    r"|(optimizer_\d+|global_step\d+|pytorch_model_fsdp_\d+)/.*"
)
_NESTED_CHECKPOINT = re.compile(r"checkpoint-\d+(-[^/]+)?/.*")  # also what one was recast to
_UNSEEN = re.compile(r"(\.cache/huggingface|\.git)/.*")
_UNFINISHED = re.compile(r"(.*/)?(\.[^/]+)?\.recast/.*")
_AS_PUBLISHED = re.compile(r"(.*/)?original/.*")


class Role(StrEnum):
    """What a file is to the checkpoint in whose folder it lies."""

    INDEX = "index"
    WEIGHTS = "weights"
    CONFIG = "config"
    OTHER = "other"
    TRAINER_STATE = "trainer state"
    NESTED_CHECKPOINT = "a checkpoint of its own"
    CACHE = "download cache"
    UNFINISHED = "an unfinished conversion"
    SPECIAL = "no regular file"

    @property
    def is_left_out(self) -> bool:
        """Whether files of this role do not belong to what a loader loads."""
        return self in _LEFT_OUT


_LEFT_OUT = frozenset(
    {Role.TRAINER_STATE, Role.NESTED_CHECKPOINT, Role.CACHE, Role.UNFINISHED, Role.SPECIAL}
)


def role(name: str) -> Role:
    """Return the role of the file *name*, a path with "/" relative to the checkpoint."""
    for pattern, left_out in (
        (_TRAINER_STATE, Role.TRAINER_STATE),
        (_NESTED_CHECKPOINT, Role.NESTED_CHECKPOINT),
        (_UNSEEN, Role.CACHE),
        (_UNFINISHED, Role.UNFINISHED),
    ):
        if pattern.fullmatch(name):
            return left_out
    if _AS_PUBLISHED.fullmatch(name):
        return Role.OTHER
    if _INDEX.fullmatch(name):
        return Role.INDEX
    if name.endswith(".safetensors"):
        return Role.WEIGHTS
    if PurePosixPath(name).name == "config.json":
        return Role.CONFIG
    return Role.OTHER


def is_shard(name: str) -> bool:
    """Whether *name* is numbered as one shard of several: ``model-00001-of-00002``."""
    return _SHARD.fullmatch(name) is not None


def family(name: str) -> str:
    """Return what all files of one set of weights have in common: folder, stem and variant.

    ``model.safetensors``, ``model-00001-of-00002.safetensors`` and their index are of one
    family, and ``model.fp16.safetensors`` is of another.
    """
    if _INDEX.fullmatch(name):
        stem, _, variant = name.removesuffix(".json").partition(".safetensors.index")
        return stem + variant
    match = _SHARD.fullmatch(name)
    return match["stem"] if match else name.removesuffix(".safetensors")


def is_inside(name: str) -> bool:
    """Whether the relative path *name*, read from a file, stays in the folder on any system."""
    path, windows = PurePosixPath(name), PureWindowsPath(name)
    return (
        bool(windows.parts)  # else it is the folder itself
        and "\0" not in name
        and ".." not in windows.parts
        and not (path.is_absolute() or windows.drive or windows.root)
    )
