"""What names of files say, over the names that libraries give them."""

import ntpath
import posixpath
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from recast.formats.names import Role, is_inside, is_shard, role

ROLES = {
    Role.WEIGHTS: [
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model.fp16-00001-of-00002.safetensors",
        "consolidated.safetensors",
        "adapter_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "2_Dense/model.safetensors",
        "my checkpoint.safetensors",
    ],
    Role.INDEX: [
        "model.safetensors.index.json",
        "model.safetensors.index.fp16.json",
        "consolidated.safetensors.index.json",
        "unet/diffusion_pytorch_model.safetensors.index.json",
        "unet/diffusion_pytorch_model.safetensors.index.fp16.json",
    ],
    Role.CONFIG: ["config.json", "unet/config.json", "2_Dense/config.json"],
    Role.OTHER: [
        *("adapter_config.json", "generation_config.json", "model_index.json", "LICENSE"),
        *("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "modeling_x.py"),
        *("1_Pooling/pooling.json", "scheduler/scheduler_config.json", "preprocessor_config.json"),
        *("training_args.bin", "trainer_state.json", "pytorch_model.bin", "zero_to_fp32.py"),
        *("model.safetensors.bak", "model.safetensors.index.json.orig", "config.json.bak"),
        *("xconfig.json", "README.md", "optimizer.py", "safetensors", "model.gguf"),
        # As the publisher's own code has it: not what loaders load.
        *("original/consolidated.00.pth", "original/model.safetensors", "original/config.json"),
        *("original/model.safetensors.index.json", "x.recast/config", "recast/a", "checkpoint-/a"),
    ],
    Role.TRAINER_STATE: [
        *("optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt", "rng_state.pth"),
        *("rng_state_0.pth", "rng_state_13.pth", "global_step500/mp_rank_00_model_states.pt"),
        *("global_step500/model.safetensors", "pytorch_model_fsdp_0/__0_0.distcp"),
        *("optimizer_0/.metadata", "optimizer_0/__0_0.distcp"),
        *("optimizer_1.bin", "sampler.bin", "dl_state_dict_1.bin", "random_states_0.pkl"),
    ],
    Role.NESTED_CHECKPOINT: [
        *("checkpoint-500/model.safetensors", "checkpoint-500/config.json"),
        *("checkpoint-500/optimizer.pt", "checkpoint-1000/global_step1000/x.pt"),
        "checkpoint-500-bf16/model.safetensors",  # what recast makes of the first one
    ],
    Role.UNFINISHED: [
        *(".recast/journal.json", ".recast/result/model.safetensors"),
        *(".ckpt-bf16.recast/result/model.safetensors", "unet/.x.safetensors.recast/journal.json"),
    ],
    Role.CACHE: [
        *(
            ".cache/huggingface/download/model.safetensors.metadata",
            ".cache/huggingface/.gitignore",
        ),
        *(".git/config", ".git/lfs/objects/aa/model.safetensors"),
    ],
}


@pytest.mark.parametrize(
    ("expected", "name"), [(kind, name) for kind, names in ROLES.items() for name in names]
)
def test_files_have_the_role_that_their_writers_gave_them(expected: Role, name: str) -> None:
    """Names by which libraries save things say what these are."""
    assert role(name) is expected
    belongs = {Role.WEIGHTS, Role.INDEX, Role.CONFIG, Role.OTHER}
    assert expected.is_left_out == (expected not in belongs)


@pytest.mark.parametrize(
    ("name", "numbered"),
    [
        ("model-00001-of-00002.safetensors", True),
        ("model.fp16-00001-of-00002.safetensors", True),
        ("unet/diffusion_pytorch_model-00003-of-00003.safetensors", True),
        ("model-100000-of-100001.safetensors", True),
        ("model.safetensors", False),
        ("model-00001.safetensors", False),
        ("model-1-of-2.safetensors", False),
        ("model-00001-of-00002.safetensors.bak", False),
        ("model-00001-of-00002-merged.safetensors", False),
    ],
)
def test_shards_are_numbered(name: str, numbered: bool) -> None:  # noqa: FBT001 - a column of the table
    """A shard of several has its number and theirs in its name, at its end."""
    assert is_shard(name) is numbered


@settings(max_examples=200)
@given(st.text(st.sampled_from("./\\:acC\0 "), max_size=9))
def test_what_is_inside_is_inside_on_every_system(name: str) -> None:
    """A name taken for safe leads to something in the folder, under POSIX and under Windows."""
    assume(is_inside(name))
    assume(re.match("[^a-zA-Z]:", name) is None)  # ntpath takes such for a drive; Windows does not
    assert "\0" not in name
    assert posixpath.normpath(posixpath.join("/ckpt", name)).startswith("/ckpt/")
    windows = ntpath.normpath(ntpath.join("C:\\ckpt", name))
    assert windows.startswith("C:\\ckpt\\")
    assert ".." not in windows.split("\\")


@given(st.lists(st.text("abc.-_ é", min_size=1).filter(lambda s: s.strip(".")), min_size=1))
def test_ordinary_names_are_inside(parts: list[str]) -> None:
    """Names of files, and of files in folders, are not refused."""
    assert is_inside("/".join(parts))


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            ".",
            "/",
            "..",
            "../a",
            "a/../b",
            "/a",
            "//a",
            "C:a",
            "C:\\a",
            "c:/a",
            "\\a",
            "..\\a",
        ),
        *("a\\..\\b", "\\\\host\\share", "a\0", "\0"),
    ],
)
def test_names_that_lead_elsewhere_are_not_inside(name: str) -> None:
    """Parents, roots, drives, shares, the folder itself and NUL are refused on any system."""
    assert not is_inside(name)
