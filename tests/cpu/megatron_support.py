# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Shared by the tests of Megatron: its processes, a batch, a mixture of experts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.conftest import ROOT
from tests.cpu.support import free_port
from verl_cpu.tiny_model import make_tokenizer
from verl_pgrpo import GroupHistoryManager


def in_processes(size: int, *arguments: str, seconds: float = 240) -> None:
    """Run `python *arguments` once per rank, in the environment of a run; if one fails, fail with its output."""
    shared = {"PYTHONPATH": str(ROOT), "VERL_PLATFORM": "cpu", "OMP_NUM_THREADS": "1"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    pipes: dict = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    ranks = []
    for rank in range(size):
        environment = {**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        ranks.append(subprocess.Popen([sys.executable, *arguments], env=environment, cwd=ROOT, **pipes))
    try:
        for rank in ranks:
            output, _ = rank.communicate(timeout=seconds)
            assert rank.returncode == 0, output[-4000:]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def update(folder: Path, size: int, **layout: int) -> dict:
    """Run an update of `tests/cpu/megatron_probe.py` over `size` processes; return the first rank's results.

    Only the last pipeline stage has log-probabilities: `log_probs` is the one that is not None.
    """
    name = "-".join(f"{key}{value}" for key, value in layout.items())
    task = {"folder": str(folder), "name": name, **layout}
    in_processes(size, "-m", "tests.cpu.megatron_probe", json.dumps(task))
    results = [torch.load(folder / f"{name}-{rank}.pt") for rank in range(size)]
    return next((result for result in results if result.get("log_probs") is not None), results[0])


def write_batch(folder: Path, vocabulary: int) -> None:
    """A P-GRPO update as verl's trainer makes it: `batch.pt`, left-right padded, uneven lengths.

    The old log-probabilities are those of a policy near the current one, so that some ratios are clipped.
    """
    from transformers import AutoModelForCausalLM

    draw = torch.Generator().manual_seed(5)
    rows, prompt, response = 12, 9, 11
    prompts = torch.randint(5, vocabulary, (rows, prompt), generator=draw)
    responses = torch.randint(5, vocabulary, (rows, response), generator=draw)
    skipped = torch.randint(0, prompt - 2, (rows, 1), generator=draw)
    lengths = torch.randint(3, response + 1, (rows, 1), generator=draw)
    response_mask = (torch.arange(response) < lengths).long()
    attention_mask = torch.cat([(torch.arange(prompt) >= skipped).long(), response_mask], dim=1)
    input_ids = torch.cat([prompts, responses], dim=1) * attention_mask
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logits = model(input_ids, attention_mask=attention_mask, position_ids=position_ids).logits
    all_log_probs = logits[:, prompt - 1 : -1].log_softmax(dim=-1)
    log_probs = all_log_probs.gather(-1, input_ids[:, prompt:, None])[..., 0] * response_mask

    groups = [f"user {row % 3}" for row in range(rows)]
    rewards = torch.randn(rows, generator=draw).double().numpy() * 2 + 1
    advantages = GroupHistoryManager().compute_advantages(groups, rewards).advantages
    batch = {
        "input_ids": input_ids,
        "prompts": input_ids[:, :prompt],
        "responses": input_ids[:, prompt:],
        "attention_mask": attention_mask,
        "position_ids": position_ids,
        "response_mask": response_mask,
        "old_log_probs": log_probs + 0.15 * torch.randn(log_probs.shape, generator=draw) * response_mask,
        "advantages": torch.as_tensor(advantages, dtype=torch.float32)[:, None] * response_mask,
    }
    torch.save(batch, folder / "batch.pt")
    torch.save(log_probs, folder / "log_probs.pt")


def worst(one: dict, other: dict) -> float:
    assert sorted(one) == sorted(other)
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def make_tiny_moe(path: Path, words: list[str], seed: int = 0) -> None:
    """A random Qwen3-MoE: two layers, four experts, two active per token."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    tokenizer = make_tokenizer(words)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 48, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}  # vLLM's minimum on a CPU
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True}
    tokens = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    more = {"initializer_range": 0.12, "max_position_embeddings": 512, "tie_word_embeddings": False}
    config = Qwen3MoeConfig(vocab_size=len(tokenizer), dtype="float32", **sizes, **heads, **experts, **tokens, **more)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3MoeForCausalLM(config)
        with torch.no_grad():
            model.get_input_embeddings().weight[tokenizer.pad_token_id].normal_(0.0, 0.12)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
