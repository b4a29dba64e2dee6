# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks of speed share: contenders timed in turn, on data of verl's form."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable

import numpy as np
import torch

from verl_pgrpo import GroupHistoryManager

torch.set_num_threads(1)  # what Ray gives verl's driver, a task of one CPU


def best_times(contenders: dict[str, Callable[[], object]], rounds: int, patience: float = 6.0) -> dict[str, float]:
    """Best seconds of each contender, all called in turn, round after round, after one round that warms up.

    A machine's speed drifts and its noise only ever adds: hence in turn, and hence the best. A contender that has taken
    `patience` seconds in all is left out from then on: verl's grpo loops over rows in Python, a few rounds tell enough.
    Every result is dropped before the next call, as a training step does.
    """
    best, spent = dict.fromkeys(contenders, float("inf")), dict.fromkeys(contenders, 0.0)
    for number in range(rounds + 1):
        for name, run in contenders.items():
            if spent[name] > patience and best[name] < float("inf"):
                continue
            start = time.perf_counter()
            run()
            seconds = time.perf_counter() - start
            spent[name] += seconds
            if number:
                best[name] = min(best[name], seconds)
    return best


def machine() -> str:
    """Of the machine what the figures depend on."""
    return (
        f"{torch.get_num_threads()} thread of {os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}"
    )


def recorded(batch: int, per_prompt: int, groups: int, seed: int) -> tuple[list[str], list[str]]:
    """Row keys and preference groups of a batch, new strings as they come from a rollout.

    A preference group belongs to the user, hence to the prompt. Keys are verl's: `{uid}_{session}_{index}`.
    """
    rng, prompts = np.random.default_rng(seed), batch // per_prompt
    numbers, of_prompt = rng.integers(0, 1 << 62, prompts), rng.integers(0, groups, prompts)
    keys = [f"{number:036x}_{session}_0" for number in numbers.tolist() for session in range(per_prompt)]
    return keys, [label(group) for group in of_prompt.tolist() for _ in range(per_prompt)]


def uids(keys: list[str]) -> np.ndarray:
    """The prompt of each row, as verl hands it to an estimator."""
    return np.array([key.rsplit("_", 2)[0] for key in keys], dtype=object)


def label(group: int) -> str:
    return f"preference-group-{group}"


def history_of(groups: int) -> GroupHistoryManager:
    """A history that knows the groups of `recorded`."""
    history = GroupHistoryManager()
    history.observe([label(group) for group in range(groups)], np.zeros(groups))
    return history
