"""The loop that people write by hand: load a shard, cast it, save it."""

import argparse
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file


def main() -> None:
    """Convert SOURCE to bf16, into the new folder OUT."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    arguments.out.mkdir()
    for path in sorted(arguments.source.iterdir()):
        if path.suffix == ".safetensors":
            tensors = load_file(path)
            cast = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
            save_file(cast, arguments.out / path.name, metadata={"format": "pt"})
        else:
            shutil.copy(path, arguments.out)  # index and config still say float32


if __name__ == "__main__":
    main()
