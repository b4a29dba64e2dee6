# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A model's folder without its weights being loaded: its dimensions, and whether all its files are there."""

from __future__ import annotations

import json
from pathlib import Path

from verl_pgrpo.errors import ConfigError

from .models import Model

__all__ = ["cached_config", "local_folder", "means_folder", "missing_weights", "model_of_config"]

# Parts of other architectures that the formulas here do not know: of layers that differ, of compressed attention.
UNKNOWN_PARTS = ("kv_lora_rank", "first_k_dense_replace", "n_shared_experts", "mamba_d_ssm", "encoder_layers")
KNOWN_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


def model_of_config(path: Path) -> Model:
    """The dimensions in a `config.json` (or a folder with one), with transformers' defaults for what it leaves out.

    Raises:
        ConfigError: it is missing, unreadable, or of an architecture whose sizes are not known here.
    """
    from transformers import AutoConfig

    if not path.exists():
        raise ConfigError(f"there is no model configuration {path}")
    try:
        config = AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"{path} cannot be read as a model's config.json: {error}") from error
    strange = [name for name in UNKNOWN_PARTS if getattr(config, name, None)]
    strange += sorted(set(getattr(config, "layer_types", None) or []) - KNOWN_LAYERS)
    if strange:
        raise ConfigError(f"{path}: the sizes of {config.model_type} are not known here ({', '.join(strange)})")
    try:
        heads, hidden = config.num_attention_heads, config.hidden_size
        experts = next(
            (n for name in ("num_experts", "num_local_experts", "n_routed_experts") if (n := getattr(config, name, 0))),
            0,
        )
        return Model(
            path=str(path),
            hidden=hidden,
            layers=config.num_hidden_layers,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or hidden // heads,
            ffn=config.intermediate_size,
            vocab=config.vocab_size,
            tied=bool(config.tie_word_embeddings),
            qk_norm=str(config.model_type).startswith(("qwen3", "gemma3")),
            experts=experts,
            topk=config.num_experts_per_tok if experts else 0,
            moe_ffn=(getattr(config, "moe_intermediate_size", None) or config.intermediate_size) if experts else 0,
        )
    except AttributeError as error:
        raise ConfigError(f"{path}: the sizes of {config.model_type} are not known here ({error})") from error


def missing_weights(folder: Path) -> str | None:
    """What of the weights is missing in a model's folder, in a few words; None if nothing is."""
    for index in sorted(folder.glob("*.index.json")):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            return f"{index.name} cannot be read ({type(error).__name__}: {error})"
        if missing := sorted(shard for shard in shards if not (folder / shard).exists()):
            return f"{len(missing)} of {len(shards)} files that {index.name} names, {missing[0]} for one"
        return None
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        return "all of them: there is no *.safetensors and no *.bin"
    return None


def local_folder(named: str) -> Path | None:
    """The model on this machine: a folder, or what the Hugging Face hub's cache has, if that is the whole model."""
    if Path(named).is_dir():
        return Path(named)
    cached = cached_config(named)
    return cached.parent if cached is not None and missing_weights(cached.parent) is None else None


def cached_config(named: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(named, "config.json")
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def means_folder(named: str) -> bool:
    """Whether this means a folder: a name on the hub has one slash at most, and is not below a folder here."""
    return named[:1] in "/.~" or named.count("/") > 1 or (named.count("/") == 1 and Path(named).parent.is_dir())
