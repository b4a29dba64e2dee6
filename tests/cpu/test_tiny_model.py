# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The tiny model for CPU runs meets the requirements of verl, vLLM and Megatron."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from verl_cpu.tiny_model import make_tiny_qwen3, make_tokenizer

WORDS = ["i", "like", "red", "green", "blue", "please", "play", "a", "song"]


def test_the_tokenizer_has_what_verl_needs_of_a_qwen():
    tokenizer = make_tokenizer([*WORDS, "red"])
    assert len(tokenizer.encode("\n", add_special_tokens=False)) == 1
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") == tokenizer.eos_token_id
    assert tokenizer.decode(tokenizer.encode("play zork"), skip_special_tokens=False) == "play <unk>"
    messages = [{"role": "user", "content": "i like red"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False)
    tokens = ["<|im_start|>", "user", "\n", "i", "like", "red", "<|im_end|>", "\n", "<|im_start|>", "assistant", "\n"]
    assert tokenizer.convert_ids_to_tokens(ids) == tokens
    assert tokenizer.encode(" ".join(WORDS)) == list(range(8, 8 + len(WORDS)))  # in the order given, without duplicates
    with pytest.raises(ValueError, match="'two words'"):
        make_tokenizer(["two words"])


def test_the_model_is_deterministic_and_tied_and_its_pad_row_is_not_zero(tmp_path):
    paths = [make_tiny_qwen3(tmp_path / name, WORDS, seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
    first, same, other = (AutoModelForCausalLM.from_pretrained(path) for path in paths)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    embedding, pad = first.get_input_embeddings().weight, first.config.pad_token_id
    assert not torch.equal(embedding, other.get_input_embeddings().weight)
    assert first.lm_head.weight.data_ptr() == embedding.data_ptr()
    assert pad == AutoTokenizer.from_pretrained(paths[0]).pad_token_id
    assert 0.1 < embedding[pad].norm() / embedding[8].norm() < 10
