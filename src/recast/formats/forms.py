"""Weights in forms that recast does not read, known by names, and what makes safetensors of them.

Sources: transformers, PEFT and diffusers (``*.bin``), Llama as published (``consolidated.*.pth``),
Lightning (``*.ckpt``); DeepSpeed's ``global_step*`` folders; torch.distributed.checkpoint's files.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_PARTITIONED = re.compile(r"(.*/)?global_step\d+/.*")
_DISTRIBUTED = re.compile(r"((.*/)?pytorch_model_fsdp_\d+/|.*\.distcp$).*")
_PICKLED = re.compile(
    r"(.*/)?(pytorch_model|adapter_model|diffusion_pytorch_model|model|consolidated)([-._].*)?\.(bin|pth?)"
    r"|.*\.ckpt"
)
# What transformers and llama.cpp store in yet other forms.
_OTHERWISE = re.compile(r"(.*/)?(tf_model\.h5|flax_model.*\.msgpack|[^/]+\.gguf)")


class Form(StrEnum):
    """A form in which weights are stored, other than safetensors."""

    PICKLED = "pickled weights"
    PARTITIONED = "DeepSpeed's partitions"
    DISTRIBUTED = "a distributed checkpoint"

    @property
    def remedy(self) -> str:
        """What makes safetensors of them."""
        return _REMEDIES[self]


_REMEDIES = {
    Form.PICKLED: "load them and save them as safetensors first, as save_pretrained does",
    Form.PARTITIONED: "gather them first: python zero_to_fp32.py . OUT --safe_serialization",
    Form.DISTRIBUTED: "merge it first: accelerate merge-weights DIR OUT, DIR with the .distcp",
}


@dataclass(frozen=True, slots=True)
class Unread:
    """A folder with weights in another form than safetensors, which recast does not read.

    Attributes:
        path: the folder.
        form: what they are.
        name: one file, or folder, in it that says so.
    """

    path: Path
    form: Form
    name: str


def is_weights(name: str) -> bool:
    """Whether a file of this name holds weights in a form of its own, for other loaders."""
    return any(pattern.fullmatch(name) for pattern in (_PICKLED, _OTHERWISE))


def form(names: Iterable[str]) -> tuple[Form, str] | None:
    """Return in which form a folder without safetensors holds weights, and a name that says so.

    Args:
        names: what lies in the folder, relative to it, with "/"; that of a folder ends with it.
    """
    every = sorted(names)
    for pattern, found in (
        (_PICKLED, Form.PICKLED),  # the easiest to use, where there are several
        (_PARTITIONED, Form.PARTITIONED),
        (_DISTRIBUTED, Form.DISTRIBUTED),
    ):
        for name in every:
            if pattern.fullmatch(name):
                return found, name
    return None
