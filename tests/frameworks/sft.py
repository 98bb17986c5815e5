"""Fine-tune a model with TRL's SFTTrainer, given by its path as people give it, and save it."""

import sys
from pathlib import Path

from datasets import Dataset
from datasets.table import InMemoryTable
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import SFTConfig, SFTTrainer

WORDS = ("[PAD]", "[UNK]", "[EOS]", "a", "small", "model", "learns")


def save_base(folder: Path) -> None:
    """Save a tiny model in bf16, with a tokenizer of a few words."""
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    config = LlamaConfig(vocab_size=len(WORDS), **sizes, **heads)
    LlamaForCausalLM(config).bfloat16().save_pretrained(folder)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no secret
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "[EOS]"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)


def main(folder: Path, *dtype: str) -> None:
    """Train for two steps with bf16=True; with the default dtype, or with the one given."""
    save_base(folder / "base")
    arguments = SFTConfig(
        str(folder / "run"),
        bf16=True,
        use_cpu=True,
        max_steps=2,
        save_strategy="no",
        report_to=[],
        dataset_kwargs={"skip_prepare_dataset": True},
        model_init_kwargs={"dtype": dtype[0]} if dtype else None,
    )
    tokens = InMemoryTable.from_pydict({"input_ids": [[3, 4, 5, 6]] * 16})
    examples = Dataset(tokens, fingerprint="none")  # without it, all of Arrow is pickled
    trainer = SFTTrainer(str(folder / "base"), args=arguments, train_dataset=examples)
    trainer.train()
    trainer.save_model(str(folder / "tuned"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
