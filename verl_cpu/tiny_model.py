# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A Qwen3 with 0.3 million random parameters and a word-level tokenizer, to train on a CPU.

    python -m verl_cpu.tiny_model --data data/movielens --out data/movielens/model --seed 0

For demonstrations of reinforcement learning and for tests. The same words and seed give identical files with the same
version of torch.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

if TYPE_CHECKING:  # transformers takes seconds to import
    from transformers import PreTrainedTokenizerFast

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<|im_start|>", "<|im_end|>"
NEWLINE = "\n"
ROLES = ("system", "user", "assistant")

# ChatML as in Qwen, without tools and reasoning. The tokenizer drops spaces; newlines are tokens.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def make_tokenizer(words: Sequence[str]) -> "PreTrainedTokenizerFast":
    """Return a tokenizer with one token per word, in the order given, after the special tokens.

    verl expects every Qwen model to have `<|im_end|>` and a newline as single tokens, so this tokenizer has both.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    for word in words:
        if not word or any(character.isspace() for character in word):
            raise ValueError(f"a word must be non-empty and without white space (got {word!r})")
    tokens = list(dict.fromkeys([PAD, UNKNOWN, START, END, NEWLINE, *ROLES, *words]))
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(tokens)}, unk_token=UNKNOWN))
    splits = ((r"\n", "isolated"), (r"[^\S\n]+", "removed"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(a), how) for a, how in splits])
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (PAD, UNKNOWN, START, END)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END, model_max_length=4096
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def make_tiny_qwen3(path: str | Path, words: Sequence[str], seed: int = 0) -> Path:
    """Write a tiny Qwen3 with random weights and its tokenizer to the folder `path`, and return the path.

    Args:
        path: folder, as for `save_pretrained`.
        words: the vocabulary; duplicates are dropped. Special tokens, the newline and the roles are added.
        seed: seed of the weights. The caller's random state does not change.

    Raises:
        ValueError: a word is empty or contains white space.
    """
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    path = Path(path)
    tokenizer = make_tokenizer(words)
    # initializer_range: 1 / sqrt(hidden_size). The usual 0.02 is for wide models; here it learns half as fast.
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, initializer_range=0.088, max_position_embeddings=512,
        tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None, dtype="float32",
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
        # HF zeroes the row of <pad>. A random policy samples <pad> like any other token, and in an engine without a
        # padding index (Megatron), RMSNorm of a zero vector makes the gradient explode.
        with torch.no_grad():
            model.get_input_embeddings().weight[tokenizer.pad_token_id].normal_(0.0, config.initializer_range)
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def words_of(folder: Path) -> list[str]:
    """Return the words of all prompts and ground truths of both splits of a dataset, the most frequent first.

    Words are split at white space. Ground truths are JSON, so quotes, commas, braces and colons count as spaces there.
    """
    counts: Counter[str] = Counter()
    spaces = str.maketrans(dict.fromkeys('"{}[]:,', " "))
    for split in ("train", "val"):
        for batch in pq.ParquetFile(folder / f"{split}.parquet").iter_batches(columns=["prompt", "reward_model"]):
            for row in batch.to_pylist():
                counts.update(word for message in row["prompt"] for word in message["content"].split())
                counts.update(row["reward_model"]["ground_truth"].translate(spaces).split())
    return sorted(counts, key=lambda word: (-counts[word], word))


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a tiny random Qwen3 with a word-level tokenizer.")
    parser.add_argument("--data", type=Path, help="folder with train.parquet and val.parquet: their words")
    parser.add_argument("--words-file", type=Path, help="text file of (more) words, split at white space")
    parser.add_argument("--out", type=Path, required=True, help="folder for model and tokenizer")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    files = [arguments.data / f"{split}.parquet" for split in ("train", "val")] if arguments.data else []
    for file in (*files, *filter(None, [arguments.words_file])):
        if not file.is_file():
            parser.error(f"{file}: no such file")
    words = words_of(arguments.data) if arguments.data else []
    words += arguments.words_file.read_text(encoding="utf-8").split() if arguments.words_file else []
    path = make_tiny_qwen3(arguments.out, words, arguments.seed)
    print(f"{path}: tiny Qwen3, {len(make_tokenizer(words))} tokens, seed {arguments.seed}")


if __name__ == "__main__":
    main()
