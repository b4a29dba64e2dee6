# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The dimensions of the recipes' models, as their `config.json` has them, and how many parameters follow from them.

All are decoder-only with grouped-query attention and a gated feed-forward net. `tests/test_large_recipes.py` builds
each from its dimensions with transformers, without memory for the weights, and compares the number of parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from verl_pgrpo.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Model:
    """A model's dimensions; the names in brackets are those of `config.json`."""

    path: str  # on the Hugging Face hub; the dimensions are those of its config.json
    hidden: int  # [hidden_size]
    layers: int  # [num_hidden_layers]
    heads: int  # [num_attention_heads]
    kv_heads: int  # [num_key_value_heads]
    head_dim: int  # [head_dim]; heads * head_dim need not be hidden
    ffn: int  # [intermediate_size]; of a mixture of experts, not used by any of its layers here
    vocab: int  # [vocab_size]
    tied: bool  # [tie_word_embeddings]
    qk_norm: bool  # Qwen3 normalises queries and keys, one weight for each dimension of a head
    experts: int = 0  # [num_experts]
    topk: int = 0  # [num_experts_per_tok]
    moe_ffn: int = 0  # [moe_intermediate_size]

    @property
    def q(self) -> int:
        """Width of all queries together."""
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Width of all keys together; the values have as much."""
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        """Parameters of the table of embeddings; of an untied output layer as many again."""
        return self.vocab * self.hidden

    @property
    def dense_layer(self) -> int:
        """Parameters of one layer that experts do not share out: attention, norms, and feed-forward or router."""
        attention = self.hidden * (self.q + 2 * self.kv) + self.q * self.hidden
        feed_forward = 0 if self.experts else 3 * self.hidden * self.ffn
        return attention + feed_forward + self.replicated_layer

    @property
    def replicated_layer(self) -> int:
        """Of `dense_layer` what tensor parallelism does not cut: norms and the router."""
        norms = 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0)
        return norms + self.hidden * self.experts

    @property
    def expert_layer(self) -> int:
        """Parameters of all experts of one layer."""
        return self.experts * 3 * self.hidden * self.moe_ffn

    @property
    def parameters(self) -> int:
        embeddings = self.embedding if self.tied else 2 * self.embedding
        return self.layers * (self.dense_layer + self.expert_layer) + self.hidden + embeddings

    @property
    def active_parameters(self) -> int:
        """Parameters that one token passes through, embeddings included."""
        of_experts = self.expert_layer * self.topk // self.experts if self.experts else 0
        return self.parameters - self.layers * (self.expert_layer - of_experts)


def _qwen3(path: str, **dimensions: int) -> Model:
    return Model(path, head_dim=128, vocab=151936, qk_norm=True, tied=path.endswith("1.7B"), **dimensions)


MODELS = (
    _qwen3("Qwen/Qwen3-1.7B", hidden=2048, layers=28, heads=16, kv_heads=8, ffn=6144),
    Model(
        "google/gemma-2b-it",
        hidden=2048,
        layers=18,
        heads=8,
        kv_heads=1,
        head_dim=256,
        ffn=16384,
        vocab=256000,
        tied=True,
        qk_norm=False,
    ),
    _qwen3("Qwen/Qwen3-8B", hidden=4096, layers=36, heads=32, kv_heads=8, ffn=12288),
    _qwen3("Qwen/Qwen3-32B", hidden=5120, layers=64, heads=64, kv_heads=8, ffn=25600),
    _qwen3(
        "Qwen/Qwen3-30B-A3B", hidden=2048, layers=48, heads=32, kv_heads=4, ffn=6144, experts=128, topk=8, moe_ffn=768
    ),
    _qwen3(
        "Qwen/Qwen3-235B-A22B",
        hidden=4096,
        layers=94,
        heads=64,
        kv_heads=4,
        ffn=12288,
        experts=128,
        topk=8,
        moe_ffn=1536,
    ),
)


def model_of(path: str) -> Model:
    """The model that a path names by its last part, with or without its owner: `Qwen/Qwen3-8B`, `/models/Qwen3-8B`."""
    name = path.rstrip("/").rpartition("/")[2].lower()
    for model in MODELS:
        if model.path.rpartition("/")[2].lower() == name:
            return model
    known = ", ".join(model.path for model in MODELS)
    raise ConfigError(
        f"no dimensions are known for the model {path!r}; known are {known} (verl_pgrpo/launch/models.py)"
    )
