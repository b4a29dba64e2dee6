# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Synthetic runs with verl's files: groups of unequal size that learn at unequal speed, and slower with `grpo`."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.monitoring import HistoryMonitor


def write_run(
    folder: Path,
    estimator: str,
    seed: int = 0,
    groups: int = 7,
    steps: int = 40,
    prompts: int = 32,
    n: int = 2,
    utility: bool = True,
    prefix: str = "group",
    output: str = "la la",
) -> Path:
    """`rollouts/<step>.jsonl`, `metrics.jsonl`, `hydra/.hydra/config.yaml` and, for pgrpo, a checkpoint's history.

    The smallest group (the last) learns nothing under grpo. Group g rates on its own scale: from g stars on.
    """
    draw, data = np.random.default_rng([seed, groups]), np.random.default_rng([groups, 99])
    share = 1.0 / (np.arange(groups) + 2.0)
    share /= share.sum()
    history = GroupHistoryManager()
    monitor = HistoryMonitor(history)
    (folder / "rollouts").mkdir(parents=True)
    logged = []
    for step in range(1, steps + 1):
        rows, labels = [], []
        for prompt, group in enumerate(data.choice(groups, prompts, p=share).tolist()):
            speed = 1.0 if estimator == "pgrpo" else 1.0 - group / max(1, groups - 1)
            wanted = np.clip(0.1 + 0.7 * speed * step / steps + 0.15 * draw.standard_normal(n), 0, 1)
            for session, one in enumerate(wanted.tolist()):
                labels.append(f"{prefix}{group}")
                row = {
                    "input": f"user\nwhat does {labels[-1]} like, no {prompt} of step {step}?\nassistant\n",
                    "output": f"{output} {estimator} {step}",
                    "gts": json.dumps({"preference_group": labels[-1]}),
                    "score": group % 5 + (1 + group % 3) * one,
                    "step": step,
                    "uid": f"{step}-{prompt}_{session}_0",
                }
                rows.append({**row, "utility": one} if utility else row)
        (folder / "rollouts" / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        line = {"training/global_step": step}
        if estimator == "pgrpo":
            rewards = [row["score"] for row in rows]
            monitor.add(rewards, history.compute_advantages(labels, rewards, [row["input"] for row in rows]))
            line |= monitor.end_step()
        logged.append(json.dumps({"step": step, "data": line}) + "\n")
    (folder / "metrics.jsonl").write_text("".join(logged))
    (folder / "hydra/.hydra").mkdir(parents=True)
    config = f"algorithm:\n  adv_estimator: {estimator}\ndata:\n  seed: {seed}\n  api_key: hunter2\n"
    (folder / "hydra/.hydra/config.yaml").write_text(config)
    if estimator == "pgrpo":
        checkpoint = folder / f"checkpoints/global_step_{steps}"
        checkpoint.mkdir(parents=True)
        history.save(checkpoint / "pgrpo_history.parquet", step=steps)
    return folder
