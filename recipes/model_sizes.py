# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Dimensions and parameter counts of the models that the recipes train."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Model:
    """Dimensions of a decoder-only model with grouped-query attention and a gated FFN, by its `config.json`."""

    path: str  # on the Hugging Face hub
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    vocab: int
    tied: bool
    qk_norm: bool  # Qwen3 normalizes queries and keys
    experts: int = 0
    topk: int = 0
    moe_ffn: int = 0

    @property
    def q(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def embedding(self) -> int:
        return self.vocab * self.hidden

    @property
    def replicated_layer(self) -> int:
        """Parameters of a layer that tensor parallelism does not divide: norms and the router."""
        return 2 * self.hidden + (2 * self.head_dim if self.qk_norm else 0) + self.hidden * self.experts

    @property
    def dense_layer(self) -> int:
        """Parameters of a layer outside its experts."""
        ffn = 0 if self.experts else 3 * self.hidden * self.ffn
        return self.hidden * (2 * self.q + 2 * self.kv) + ffn + self.replicated_layer

    @property
    def expert_layer(self) -> int:
        return self.experts * 3 * self.hidden * self.moe_ffn

    @property
    def parameters(self) -> int:
        embeddings = self.embedding if self.tied else 2 * self.embedding
        return self.layers * (self.dense_layer + self.expert_layer) + self.hidden + embeddings


def _qwen3(name: str, *sizes: int, experts: tuple[int, int, int] = (0, 0, 0), tied: bool = False) -> Model:
    hidden, layers, heads, kv_heads, ffn = sizes
    return Model(f"Qwen/{name}", hidden, layers, heads, kv_heads, 128, ffn, 151936, tied, True, *experts)


MODELS = (
    _qwen3("Qwen3-1.7B", 2048, 28, 16, 8, 6144, tied=True),
    Model("google/gemma-2b-it", 2048, 18, 8, 1, 256, 16384, 256000, tied=True, qk_norm=False),
    _qwen3("Qwen3-8B", 4096, 36, 32, 8, 12288),
    _qwen3("Qwen3-32B", 5120, 64, 64, 8, 25600),
    _qwen3("Qwen3-30B-A3B", 2048, 48, 32, 4, 6144, experts=(128, 8, 768)),
    _qwen3("Qwen3-235B-A22B", 4096, 94, 64, 4, 12288, experts=(128, 8, 1536)),
)


def model_of(path: str) -> Model:
    """Return the model whose name is the last part of a path: `Qwen/Qwen3-8B`, `/models/Qwen3-8B`."""
    name = path.rstrip("/").rpartition("/")[2].lower()
    found = [model for model in MODELS if model.path.rpartition("/")[2].lower() == name]
    if not found:
        raise ValueError(f"unknown model {path!r}; known: {', '.join(model.path for model in MODELS)}")
    return found[0]
