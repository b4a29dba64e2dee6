# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the estimator costs: `pgrpo` against verl's `grpo` and `grpo_vectorized`, and against the memory's own floor.

    python benchmarks/advantage.py [--quick] [--json FILE]

The floor is what no outcome estimator can do without: a sum over the tokens and one masked broadcast multiply. What
the trainer does with a batch's keys and groups before verl calls the estimator is timed apart (`laid out`). Figures are
ratios of best times (benchmarks/speed.py). Batches are of full length, rewards float32, masks int64 or float32. Other
frameworks: benchmarks/peers.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import torch
from speed import best_times, history_of, machine, recorded, uids

from verl_pgrpo.integration.estimator import batch_of_run, compute_pgrpo_outcome_advantage
from verl_pgrpo.integration.rows import Rows

RESPONSES_PER_PROMPT = 2  # P-GRPO's case; verl's grpo loops over prompts, so it is a third faster with 8


def floor(rewards: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """A sum over the tokens and one masked broadcast multiply."""
    return rewards.sum(dim=-1).unsqueeze(-1) * mask


def case(batch: int, length: int, mask_type: torch.dtype, groups: int, rounds: int, seed: int) -> dict[str, float]:
    """Best seconds of each contender on one batch of `batch` responses of `length` tokens, `groups` known groups."""
    from verl.trainer.ppo.core_algos import compute_grpo_outcome_advantage, compute_grpo_vectorized_outcome_advantage

    rewards = torch.zeros(batch, length)
    rewards[:, -1] = torch.randn(batch, generator=torch.Generator().manual_seed(seed))
    mask = torch.ones(batch, length, dtype=mask_type)
    keys, labels = recorded(batch, RESPONSES_PER_PROMPT, groups, seed)
    history, index = history_of(groups), uids(keys)
    rows = Rows.of(keys, [{}] * batch, labels)

    def lay_out() -> None:
        nonlocal rows
        rows = Rows.of(keys, [{}] * batch, labels)
        history.prepare(rows.groups)

    def pgrpo() -> None:
        with batch_of_run(history, rows):
            compute_pgrpo_outcome_advantage(rewards, mask, index=index)

    contenders: dict[str, Callable[[], object]] = {
        "floor": lambda: floor(rewards, mask),
        "lay_out": lay_out,
        "pgrpo": pgrpo,
        "grpo_vectorized": lambda: compute_grpo_vectorized_outcome_advantage(rewards, mask, index=index),
        "grpo": lambda: compute_grpo_outcome_advantage(rewards, mask, index=index),
    }
    return best_times(contenders, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three sizes of six")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", metavar="FILE", help="also write the table as JSON")
    args = parser.parse_args()
    sizes = [(b, t) for t in (1024, 4096) for b in (1024, 8192, 32768)]
    if args.quick:
        sizes = [(1024, 1024), (8192, 1024), (8192, 4096)]
    print(f"seed {args.seed}, best of {args.rounds} rounds; {machine()}")
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
