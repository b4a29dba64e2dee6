# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""An agent, a dataset and a replay buffer for the real runs, with behavior or records that verl's own lack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from verl.experimental.agent_loop.single_turn_agent_loop import SingleTurnAgentLoop
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.utils.dataset.rl_dataset import RLHFDataset

from verl_cpu.replay_buffer import fast_replay_buffer


class SometimesTwoOutputs(SingleTurnAgentLoop):
    """In odd sessions, an earlier output precedes the last one, as with agents that compress their context."""

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> Any:
        last = await super().run(sampling_params, **kwargs)
        if kwargs["session_id"] % 2 == 0:
            return last
        return [await super().run(sampling_params, **kwargs), last]


class RecordsBatches(RLHFDataset):
    """Writes `rollouts/<n>.jsonl` next to the data for the n-th batch, also across runs.

    verl's one-step-off trainer passes each batch to its dataset, but fails with `trainer.rollout_data_dir`.
    """

    def on_batch_end(self, batch: Any) -> None:
        folder = Path(self.original_data_files[0]).parent / "rollouts"
        folder.mkdir(exist_ok=True)
        scores = batch.batch["token_level_scores"].sum(-1).tolist()
        truths = [reward_model["ground_truth"] for reward_model in batch.non_tensor_batch["reward_model"]]
        lines = [json.dumps({"gts": gts, "score": score}) for gts, score in zip(truths, scores, strict=True)]
        (folder / f"{len(list(folder.iterdir())) + 1}.jsonl").write_text("\n".join(lines))


def noting_replay_buffer(*, sampler_kwargs: DictConfig, **kwargs: Any) -> ReplayBuffer:
    """The CPU preset's buffer; appends a line per sample to the file `sampler_kwargs.notes`: the step and its uids.

    verl's rollout dumps do not distinguish a step's local updates, and another order changes a history's last bits.
    """
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
