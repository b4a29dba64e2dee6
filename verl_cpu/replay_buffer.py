# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's own replay buffer, looking for finished rollouts every 0.05 s instead of every 2 s.

A rollout of a tiny model takes a fraction of a second, so that stock polling is most of a step. Named in
`trainer.v1.sampler.custom_sampler` by the CPU preset; the samples are the same, they are only found earlier.
"""

from typing import Any

from omegaconf import DictConfig
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer, ReplayBufferAsync


def fast_replay_buffer(*, trainer_mode: str, sampler_kwargs: DictConfig, **kwargs: Any) -> ReplayBuffer:
    """Build the replay buffer that verl would build for `trainer_mode`, with `sampler_kwargs.poll_interval` seconds.

    verl does not tell a custom sampler of group filtering and of refilling failed groups, so that with this one they
    would be switches without effect.

    Raises:
        ValueError: `sampler_kwargs.stock_only` says that a switch is on which needs verl's own construction.
    """
    for switch, on in sampler_kwargs.stock_only.items():
        if on:
            raise ValueError(
                f"{switch}=True has no effect with the fast replay buffer of the CPU preset: "
                "add trainer.v1.sampler.custom_sampler.path=null to use verl's own."
            )
    buffer = ReplayBuffer if trainer_mode == "sync" else ReplayBufferAsync
    return buffer(
        trainer_mode=trainer_mode, sampler_kwargs=sampler_kwargs, poll_interval=sampler_kwargs.poll_interval, **kwargs
    )
