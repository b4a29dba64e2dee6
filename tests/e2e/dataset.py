# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A dataset that writes down what each step was trained on, as `trainer.rollout_data_dir` does.

verl's one-step-off trainer tells its dataset, but fails with `trainer.rollout_data_dir`: nothing there makes the thread
that would write. Used by the real runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from verl.utils.dataset.rl_dataset import RLHFDataset


class RecordsBatches(RLHFDataset):
    """`rollouts/<n>.jsonl` beside the data for the n-th batch, also across runs."""

    def on_batch_end(self, batch: Any) -> None:
        folder = Path(self.original_data_files[0]).parent / "rollouts"
        folder.mkdir(exist_ok=True)
        scores = batch.batch["token_level_scores"].sum(-1).tolist()
        truths = [reward_model["ground_truth"] for reward_model in batch.non_tensor_batch["reward_model"]]
        lines = [json.dumps({"gts": gts, "score": score}) for gts, score in zip(truths, scores, strict=True)]
        (folder / f"{len(list(folder.iterdir())) + 1}.jsonl").write_text("\n".join(lines))
