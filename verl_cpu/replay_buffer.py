# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's own replay buffer with a shorter polling interval, 0.05 s instead of 2 s.

A rollout of a tiny model takes a fraction of a second, so polling every 2 s would take most of a step. The presets
name it in `trainer.v1.sampler.custom_sampler`. The samples are the same.
"""

from typing import Any

from omegaconf import DictConfig
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync


def fast_replay_buffer(*, trainer_mode: str, sampler_kwargs: DictConfig, **kwargs: Any) -> ReplayBuffer:
    """Build the replay buffer that verl would build for `trainer_mode`, with `sampler_kwargs.poll_interval` seconds.

    verl does not pass the settings for group filtering and for refilling failed groups to a custom sampler, so they
    would have no effect here.

    Raises:
        ValueError: a setting in `sampler_kwargs.stock_only` is on; it needs the buffer that verl builds.
    """
    for setting, on in sampler_kwargs.stock_only.items():
        if on:
            raise ValueError(
                f"{setting}=True has no effect with the fast replay buffer of the CPU preset: "
                "add trainer.v1.sampler.custom_sampler.path=null to use verl's own."
            )
    buffer = ReplayBuffer if trainer_mode == "sync" else ReplayBufferAsync
    return buffer(
        trainer_mode=trainer_mode, sampler_kwargs=sampler_kwargs, poll_interval=sampler_kwargs.poll_interval, **kwargs
    )
