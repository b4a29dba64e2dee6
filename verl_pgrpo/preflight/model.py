# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Build verl's trainer as far as it needs no GPU, and load the model's configuration and tokenizer with it."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path

from omegaconf import OmegaConf

from .config import names_hub_model
from .context import PreflightContext
from .diagnostic import Diagnostics

KEY = "actor_rollout_ref.model.path"


def check_trainer(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Build the trainer that main_ppo would, without its workers. Its own assertions are the check."""
    config = copy.deepcopy(context.config)  # verl's trainers change their own
    OmegaConf.set_struct(config, False)
    config.data.dataloader_num_workers, config.data.filter_overlong_prompts_workers = 0, None  # no processes
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
            try:
                trainer = stock(config)
                trainer._init_resource_pool_mgr()
            except Exception as error:
                location = f"trainer.v1.trainer_mode={mode}"
                diagnostics.raised(error, location, "set the keys that the message names", prefix=f"{mode}: ")
    if trainer is None:  # enough to build its datasets
        trainer = object.__new__(stock)
        trainer.config, trainer.trainer_mode, trainer.parameter_sync_step = config, "sync", 1
    trainer.global_steps = 0
    trainer.tokenizer = trainer.processor = trainer.train_dataset = trainer.val_dataset = None
    context.trainer = trainer


def check_model(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Load what verl's HFModelConfig loads: configuration, tokenizer, processor. No weights, no download."""
    from verl.utils.config import omega_conf_to_dataclass

    trainer, named = context.trainer, str(context.get(KEY, ""))
    location = f"{KEY}={named}"
    folder = Path(named)
    if not folder.is_dir() and not names_hub_model(named):
        diagnostics.error(f"no such folder: {named} (working directory: {Path.cwd()})", location, "fix the path")
    else:
        try:
            with offline():
                model = omega_conf_to_dataclass(context.config.actor_rollout_ref.model)
        except Exception as error:
            if folder.is_dir():
                diagnostics.raised(
                    error, location, "fix the model's files or settings: verl's workers would fail alike"
                )
            else:
                message = f"{named} is not on this machine: its tokenizer, chat template and weights were not checked"
                diagnostics.note(message, location)
        else:
            trainer.tokenizer, trainer.processor, context.hf_config = model.tokenizer, model.processor, model.hf_config
            if missing := _missing_weights(Path(model.local_path)):
                diagnostics.error(f"the model has {missing}", location, "download the model again")
    if context.settings.model_config is not None:
        _read_model_config(context, diagnostics)
    if context.hf_config is not None and context.sizes_valid:
        _check_positions(context, diagnostics)


def _read_model_config(context: PreflightContext, diagnostics: Diagnostics) -> None:
    from transformers import AutoConfig

    path = Path(str(context.settings.model_config))
    try:
        if not path.exists():
            raise FileNotFoundError(f"no such file: {path}")
        context.hf_config = AutoConfig.from_pretrained(str(path), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        diagnostics.raised(error, f"--model-config {path}", "a model's config.json")


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


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Keep huggingface_hub from the network."""
    from huggingface_hub import constants

    before, constants.HF_HUB_OFFLINE = constants.HF_HUB_OFFLINE, True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before
