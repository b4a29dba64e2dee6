# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The presets, checked against the installed verl, and the replay buffer that they name."""

from __future__ import annotations

import hydra
import pandas as pd
import pytest
from omegaconf import OmegaConf


def keys_of(config: object) -> set[str]:
    """Dotted paths of all values."""
    return set(pd.json_normalize(OmegaConf.to_container(config, resolve=False)).columns)


def test_the_preset_cpu_adds_only_keys_that_are_meant_to_be_new(compose):
    """A key that verl renames would otherwise stay in the preset and have no effect."""
    with hydra.initialize_config_module("verl.trainer.config", version_base=None):
        stock = hydra.compose("ppo_trainer")
    rollout = "actor_rollout_ref.rollout"
    engines = [f"actor_rollout_ref.{role}.fsdp_config.mixed_precision" for role in ("actor", "ref")]
    assert keys_of(compose()) - keys_of(stock) == {
        "actor_rollout_ref.model.override_config.attn_implementation",
        *(f"{engine}.{kind}_dtype" for engine in engines for kind in ("param", "reduce", "buffer")),
        f"{rollout}.enable_sleep_mode",
        f"{rollout}.engine_kwargs.vllm.kv_cache_memory_bytes",
        f"{rollout}.engine_kwargs.vllm.distributed_executor_backend",
        "trainer.v1.sampler.sampler_kwargs.poll_interval",
        "trainer.v1.sampler.sampler_kwargs.stock_only.algorithm.filter_groups.enable",
        "trainer.v1.sampler.sampler_kwargs.stock_only.trainer.v1.sampler.sync_refill_failed_groups",
        *(f"ray_kwargs.ray_init.{key}" for key in ("address", "num_gpus", "include_dashboard", "object_store_memory")),
    }


def test_the_fast_replay_buffer_is_verls_own_and_rejects_what_it_would_ignore(compose):
    from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync
    from verl.utils.import_utils import load_extern_type

    def build(mode, *overrides):
        sampler = compose("algorithm.adv_estimator=grpo", *overrides).trainer.v1.sampler
        return load_extern_type(sampler.custom_sampler.path, sampler.custom_sampler.name)(
            trainer_mode=mode,
            trainer_config={},
            max_off_policy_threshold=sampler.max_off_policy_threshold,
            max_off_policy_strategy=sampler.max_off_policy_strategy,
            sampler_kwargs=sampler.sampler_kwargs,
            refill_fn=print,
        )

    for mode, kind in (("sync", ReplayBuffer), ("colocate_async", ReplayBufferAsync)):
        buffer = build(mode)
        assert type(buffer) is kind
        assert buffer.poll_interval == 0.05
    for setting in ("algorithm.filter_groups.enable", "trainer.v1.sampler.sync_refill_failed_groups"):
        with pytest.raises(ValueError, match=f"{setting}=True has no effect"):
            build("sync", f"{setting}=True")
