# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the estimator costs: `pgrpo` against verl's `grpo` and `grpo_vectorized`, and against the memory's own floor.

    python benchmarks/advantage.py [--quick] [--json FILE]

The floor is what no outcome estimator can do without: a sum over the tokens and one masked broadcast multiply. What
the trainer does with a batch's keys and groups before verl calls the estimator is timed apart (`laid out`). All are
timed in turn, round after round, in one process; the figures are ratios of their best times, since a machine's speed
drifts and its noise only ever adds. Every result is dropped before the next call, as a training step does. Batches are
of full length, rewards float32, masks int64 or float32.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable

import numpy as np
import torch

from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.integration.estimator import batch_of_run, compute_pgrpo_outcome_advantage
from verl_pgrpo.integration.rows import Rows

RESPONSES_PER_PROMPT = 2  # P-GRPO's case; verl's grpo loops over prompts, so it is a third faster with 8
GRPO_ROUNDS = 3  # verl's grpo loops over rows in Python; a few rounds tell enough


def floor(rewards: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A sum over the tokens and one masked broadcast multiply."""
    return rewards.sum(dim=-1).unsqueeze(-1) * mask


def case(batch: int, length: int, mask_type: torch.dtype, groups: int, rounds: int, seed: int) -> dict[str, float]:
    """Best seconds of each contender on one batch of `batch` responses of `length` tokens, `groups` known groups."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, compute_grpo_vectorized_outcome_advantage

    rng = np.random.default_rng(seed)
    rewards = torch.zeros(batch, length)
    rewards[:, -1] = torch.from_numpy(rng.standard_normal(batch).astype(np.float32))
    mask = torch.ones(batch, length, dtype=mask_type)
    keys = [f"{row // RESPONSES_PER_PROMPT}_{row % RESPONSES_PER_PROMPT}_0" for row in range(batch)]
    # A preference group belongs to the user, hence to the prompt.
    of_prompt = rng.integers(0, groups, batch // RESPONSES_PER_PROMPT + 1)
    labels = [f"preference-group-{of_prompt[row // RESPONSES_PER_PROMPT]}" for row in range(batch)]
    history = GroupHistoryManager()
    for start in range(0, groups, 10_000):
        names = [f"preference-group-{i}" for i in range(start, min(start + 10_000, groups))]
        history.observe(names, np.zeros(len(names)))
    rows = Rows.of(keys, [{}] * batch, labels)
    uids = np.array([key.rsplit("_", 2)[0] for key in keys], dtype=object)

    def lay_out() -> None:
        nonlocal rows
        rows = Rows.of(keys, [{}] * batch, labels)
        history.prepare(rows.groups)

    def pgrpo() -> None:
        with batch_of_run(history, rows):
            compute_pgrpo_outcome_advantage(rewards, mask, index=uids)

    contenders: dict[str, Callable[[], object]] = {
        "floor": lambda: floor(rewards, mask),
        "lay_out": lay_out,
        "pgrpo": pgrpo,
        "grpo_vectorized": lambda: compute_grpo_vectorized_outcome_advantage(rewards, mask, index=uids),
        "grpo": lambda: compute_grpo_outcome_advantage(rewards, mask, index=uids),
    }
    best = dict.fromkeys(contenders, float("inf"))
    for round_ in range(rounds + 1):  # the first warms up
        for name, run in contenders.items():
            if name == "grpo" and round_ > GRPO_ROUNDS:
                continue
            start_time = time.perf_counter()
            run()
            if round_:
                best[name] = min(best[name], time.perf_counter() - start_time)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only the two sizes that have a target")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", help="also write the table as JSON")
    args = parser.parse_args()
    sizes = [(8192, 1024), (8192, 4096)] if args.quick else [(b, t) for t in (1024, 4096) for b in (1024, 8192, 32768)]
    machine = f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}"
    print(f"seed {args.seed}, best of {args.rounds} rounds, {machine}")
    print(
        "  batch tokens mask     groups | laid out  pgrpo ms | pgrpo/floor  grpo/pgrpo (laid out too) vectorized/pgrpo"
    )
    table = []
    for batch, length in sizes:
        for mask in (torch.int64, torch.float32):
            for groups in (1, 100, 10_000, 100_000):
                best = case(batch, length, mask, groups, args.rounds, args.seed)
                row = {
                    "batch": batch,
                    "tokens": length,
                    "mask": str(mask).removeprefix("torch."),
                    "groups": groups,
                    "lay_out_ms": 1e3 * best["lay_out"],
                    "pgrpo_ms": 1e3 * best["pgrpo"],
                    "pgrpo_over_floor": best["pgrpo"] / best["floor"],
                    "grpo_over_pgrpo": best["grpo"] / best["pgrpo"],
                    "grpo_over_all": best["grpo"] / (best["lay_out"] + best["pgrpo"]),
                    "grpo_vectorized_over_pgrpo": best["grpo_vectorized"] / best["pgrpo"],
                }
                table.append(row)
                print(
                    "{batch:>7} {tokens:>6} {mask:<7} {groups:>7} | {lay_out_ms:>8.1f} {pgrpo_ms:>9.1f} | "
                    "{pgrpo_over_floor:>11.2f} {grpo_over_pgrpo:>11.1f} {grpo_over_all:>14.1f} "
                    "{grpo_vectorized_over_pgrpo:>16.2f}".format(**row),
                    flush=True,
                )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(table, file, indent=1)


if __name__ == "__main__":
    main()
