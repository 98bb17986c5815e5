"""Train a tiny bf16 model under DeepSpeed's ZeRO-3, on CPUs, and save it as people do.

It starts two processes, each with half of every weight. They write, below the folder given: as
``save_checkpoint`` does, the partitions; ``save_pretrained``, without a gathering; and the weights
as ``stage3_gather_16bit_weights_on_model_save`` has them.
"""

import os
import sys

import deepspeed
import torch
from transformers import LlamaConfig, LlamaForCausalLM

CONFIG = {
    "train_micro_batch_size_per_gpu": 1,
    "bf16": {"enabled": True},
    "zero_optimization": {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": True,
        "stage3_param_persistence_threshold": 0,  # or weights as small as these are not divided
    },
    "zero_allow_untested_optimizer": True,  # torch's own; DeepSpeed's would have to be built
    "zero_force_ds_cpu_optimizer": False,
}


def train(rank: int, folder: str) -> None:
    """Take two steps, and save what was trained."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"LOCAL_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    # They meet in a file: a port that is free now may be taken when it is needed.
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}.meeting", rank=rank, world_size=2
    )
    deepspeed.ops.__compatible_ops__.clear()  # none is built, as none is needed
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "vocab_size": 64}
    config = LlamaConfig(**shape, num_attention_heads=2, num_key_value_heads=2)
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine, *_ = deepspeed.initialize(
        model=model, optimizer=optimizer, config=CONFIG, dist_init_required=False
    )
    for _ in range(2):
        tokens = torch.randint(0, 64, (1, 8))
        engine.backward(engine(input_ids=tokens, labels=tokens).loss)
        engine.step()
    engine.save_checkpoint(folder)
    engine.save_16bit_model(f"{folder}/gathered", "pytorch_model.bin")
    if rank == 0:
        model.save_pretrained(folder)


if __name__ == "__main__":
    torch.multiprocessing.spawn(train, (sys.argv[1],), nprocs=2)
