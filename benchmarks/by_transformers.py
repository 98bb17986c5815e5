"""What transformers' documentation says: load the model in bf16, and save it."""

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM


def main() -> None:
    """Convert SOURCE to bf16, into the new folder OUT."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    model = AutoModelForCausalLM.from_pretrained(arguments.source, dtype=torch.bfloat16)
    model.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
