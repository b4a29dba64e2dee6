# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The CPU preset's replay buffer, noting which prompts went into which local update. Used by the real runs.

verl's rollout dumps have one file a step and do not tell its local updates apart; folding their rewards in another
order changes the last bits of a history.
"""

from __future__ import annotations

import json
from typing import Any

from omegaconf import DictConfig
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer

from verl_cpu.replay_buffer import fast_replay_buffer


def noting_replay_buffer(*, sampler_kwargs: DictConfig, **kwargs: Any) -> ReplayBuffer:
    """Append one line a sample to the file `sampler_kwargs.notes`: the step and its prompts' uids."""
    buffer = fast_replay_buffer(sampler_kwargs=sampler_kwargs, **kwargs)
    sample = buffer.sample

    def noted(**call: Any) -> Any:
        batch, metrics = sample(**call)
        uids = sorted({key.rsplit("_", 2)[0] for key in batch.keys})
        with open(sampler_kwargs.notes, "a") as notes:
            notes.write(json.dumps({"step": call["global_steps"], "uids": uids}) + "\n")
        return batch, metrics

    buffer.sample = noted
    return buffer
