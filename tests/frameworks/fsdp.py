"""Train a bf16 weight under accelerate's FSDP with mixed precision, on CPUs, and save it.

It starts the two processes that share the weight; the first of them writes the file.
"""

import os
import sys

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict


def prepared(precision: str) -> Accelerator:
    """Return an Accelerator that shards, which it would not choose by itself without GPUs."""
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="no_wrap", cpu_ram_efficient_loading=False
    )
    accelerator = Accelerator(cpu=True, mixed_precision=precision, fsdp_plugin=plugin)
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = plugin
    if precision != "no":
        plugin.set_mixed_precision(precision)
    return accelerator


def train(rank: int, path: str, precision: str) -> None:
    """Take two steps, and save what was trained."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ["MASTER_ADDR"] = "localhost"  # which accelerate asks for, and does not use
    # They meet in a file: a port that is free now may be taken when it is needed.
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{path}.meeting", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    accelerator = prepared(precision)
    model = torch.nn.Linear(8, 8, bias=False, dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model, optimizer = accelerator.prepare(model, optimizer)
    for _ in range(2):
        values = model(torch.ones(2, 8, dtype=torch.bfloat16))
        accelerator.backward(values.float().pow(2).mean())
        optimizer.step()
        optimizer.zero_grad()
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole = get_model_state_dict(model, options=options)
    if accelerator.is_main_process:
        save_file(whole, path, {"format": "pt"})
    accelerator.end_training()


if __name__ == "__main__":
    torch.multiprocessing.spawn(train, tuple(sys.argv[1:]), nprocs=2)
