# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Build verl's trainer as far as it needs no GPU, and load the model's configuration and tokenizer with it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from unittest import mock

from omegaconf import OmegaConf

from .config import names_hub_model
from .context import PreflightContext
from .diagnostic import Diagnostics, one_line

KEY = "actor_rollout_ref.model.path"


def check_trainer(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Build main_ppo's trainer without its workers. The trainer's own assertions are the check."""
    config = copy.deepcopy(context.config)  # verl's trainers modify their config
    OmegaConf.set_struct(config, False)
    if isinstance(config.data.get("filter_overlong_prompts_workers"), int):
        config.data.filter_overlong_prompts_workers = None  # no processes
    trainer = None
    if not config.trainer.use_v1:
        from verl.trainer.ppo.ray_trainer import RayPPOTrainer as stock
    else:
        from verl.trainer.ppo.v1.trainer_base import TRAINER_REGISTRY

        mode = config.trainer.v1.trainer_mode
        cls = TRAINER_REGISTRY.get(mode, TRAINER_REGISTRY["sync"])
        # verl's own class, not the plugin's subclass, which starts a history.
        stock = next(c for c in cls.__mro__ if c.__module__.partition(".")[0] != "verl_pgrpo")
        if context.sizes_valid and mode in TRAINER_REGISTRY:
            with diagnostics.reporting(f"trainer.v1.trainer_mode={mode}", "set the keys that the message names"):
                trainer = stock(config)
                trainer._init_resource_pool_mgr()
    if trainer is None:  # a stand-in that can build the datasets
        trainer = object.__new__(stock)
        trainer.config, trainer.trainer_mode, trainer.parameter_sync_step = config, "sync", 1
    trainer.global_steps = 0
    trainer.tokenizer = trainer.processor = trainer.train_dataset = trainer.val_dataset = None
    context.trainer = trainer


def check_model(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Load what verl's HFModelConfig loads: configuration, tokenizer, processor. No weights, no download."""
    from huggingface_hub import constants
    from transformers import AutoConfig
    from verl.utils.config import omega_conf_to_dataclass

    trainer, named = context.trainer, str(context.get(KEY, ""))
    location, folder = f"{KEY}={named}", Path(named)
    try:
        with mock.patch.object(constants, "HF_HUB_OFFLINE", True):
            model = omega_conf_to_dataclass(context.config.actor_rollout_ref.model)
    except Exception as error:
        if folder.is_dir():
            diagnostics.error(one_line(error), location, "fix the model's files or settings: verl's workers would fail")
        elif names_hub_model(named):
            message = f"{named} is not on this machine: its tokenizer, chat template and weights were not checked"
            diagnostics.note(message, location)
        else:
            diagnostics.error(f"no such folder: {named} (working directory: {Path.cwd()})", location, "fix the path")
    else:
        trainer.tokenizer, trainer.processor, context.hf_config = model.tokenizer, model.processor, model.hf_config
        if missing := _missing_weights(Path(model.local_path)):
            diagnostics.error(f"the model has {missing}", location, "download the model again")
    if (path := context.settings.model_config) is not None:
        with diagnostics.reporting(f"--model-config {path}", "a model's config.json"):
            if not Path(path).exists():
                raise FileNotFoundError(f"no such file: {path}")
            context.hf_config = AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    if context.hf_config is not None and context.sizes_valid:
        _check_positions(context, diagnostics)


def _check_positions(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """vLLM rejects a sequence longer than the model's positions, unless they are stretched (YaRN and others)."""
    config = context.hf_config.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    stretched = (scaling.get("rope_type") or scaling.get("type") or "default") != "default"
    wanted = context.get("actor_rollout_ref.rollout.max_model_len")
    wanted = wanted or context.config.data.max_prompt_length + context.config.data.max_response_length
    if longest and wanted > longest and not stretched:
        message = f"prompt and response have up to {wanted:,} tokens, the model {longest:,} positions"
        keys = "data.max_prompt_length, data.max_response_length, actor_rollout_ref.rollout.max_model_len"
        diagnostics.error(message, keys, f"at most {longest} together")


def _missing_weights(folder: Path) -> str | None:
    """Describe missing weight files; None if none is."""
    for index in sorted(folder.glob("*.index.json")):
        try:
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, KeyError, AttributeError) as error:
            return f"an unreadable {index.name} ({type(error).__name__}: {error})"
        missing = sorted(shard for shard in shards if not (folder / shard).exists())
        return f"{len(missing)} of {len(shards)} weight files missing, e.g. {missing[0]}" if missing else None
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        return "no weights (*.safetensors or *.bin)"
    return None
