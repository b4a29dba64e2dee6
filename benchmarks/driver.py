# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What P-GRPO adds to a training step in the driver, by batch size: microseconds per response.

    python benchmarks/driver.py [--quick] [--json FILE]

Runs every stage that P-GRPO adds to verl's step, in order, on responses of a single token, so that only the work per
response is timed:

    rows       read the batch's keys and group column: which rows count, and their prompt and preference group
    estimate   the estimator: history, advantages, the Corollary's scale and shift
    metrics    the step's metrics and warnings

`grpo` is verl's own, for comparison; it loops over the rows. Each round uses new strings, as a rollout does.
benchmarks/adv_step.py measures how long TransferQueue takes to deliver the group column.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from speed import batch_keys, label, machine, parser, show, uids

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.integration.batch import BatchRows, GroupColumn
from verl_pgrpo.integration.state import PGRPOState

PER_PROMPT = 8
GRPO_ROUNDS = 3  # each takes seconds with the largest batches
STAGES = ("rows", "estimate", "metrics")


def step(state: PGRPOState, batch: int, groups: int, seed: int, with_grpo: bool) -> dict[str, float]:
    """Return the seconds of each stage of one step on a new batch, and of verl's grpo."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage

    keys, labels = batch_keys(batch, PER_PROMPT, groups, seed)
    index = uids(keys)
    rewards = torch.randn(batch, 1, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(batch, 1, dtype=torch.int64)

    times = [time.perf_counter()]
    rows = BatchRows.from_keys(keys, [{}] * batch, GroupColumn("preference_group").labels(labels))
    times.append(time.perf_counter())
    state.advantage_step(rows, lambda: state.compute(rewards, mask, index))
    times.append(time.perf_counter())
    state.end_step()
    times.append(time.perf_counter())
    if with_grpo:
        compute_grpo_outcome_advantage(rewards, mask, index=index)
        times.append(time.perf_counter())
    return dict(zip((*STAGES, "grpo"), np.diff(times).tolist(), strict=False))


def case(batch: int, groups: int, rounds: int, seed: int) -> dict[str, float]:
    """Best seconds of each stage, with a history that knows `groups` groups."""
    history = GroupHistoryManager(PGRPOConfig())
    history.update([label(group) for group in range(groups)], np.zeros(groups))
    state = PGRPOState(history.config, history)
    step(state, batch, groups, seed, with_grpo=True)  # warms up
    steps = [step(state, batch, groups, seed + 1 + i, with_grpo=i < GRPO_ROUNDS) for i in range(rounds)]
    return {stage: min(times[stage] for times in steps if stage in times) for stage in (*STAGES, "grpo")}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--quick", action="store_true", help="batches up to 8,192")
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args()
    print(f"microseconds per response; seed {args.seed}, best of {args.rounds} rounds, n={PER_PROMPT}; {machine()}")
    table = []
    for batch in (64, 1024, 8192) if args.quick else (64, 1024, 8192, 65_536, 262_144):
        for groups in (10, 100_000):
            best = case(batch, groups, args.rounds, args.seed)
            total = sum(best[stage] for stage in STAGES)
            each = {stage: 1e6 * best[stage] / batch for stage in STAGES}
            ends = {"all": 1e6 * total / batch, "all, ms": 1e3 * total, "grpo / all": best["grpo"] / total}
            table.append({"batch": batch, "groups": groups, **each, **ends})
    show(table, args.json)


if __name__ == "__main__":
    main()
