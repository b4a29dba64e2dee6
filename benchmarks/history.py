# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Cost of the history at a million groups and more: memory, checkpoint, and a batch of 8,192 rewards.

    python benchmarks/history.py [--groups 1000000 10000000] [--json FILE]

Labels have 16 characters. Each figure is measured in a separate process, so memory is that of this history alone:
resident memory after building or loading it, minus that before. A batch's groups are drawn uniformly from all groups,
the worst case for the processor's caches; its labels are new strings, as from a rollout.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import psutil
from speed import machine, parser, show

from verl_pgrpo import GroupHistoryManager

BATCH = 8192
BATCHES = 100
PIECE = 100_000


def label(number: int) -> str:
    return f"user-{number:011d}"


def resident() -> float:
    """Return the resident memory of this process in MiB."""
    return psutil.Process().memory_info().rss / 2**20


def build(groups: int, path: str) -> dict[str, Any]:
    """Add three rewards of each group, then save a checkpoint."""
    before = resident()
    history = GroupHistoryManager()
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    for first in range(0, groups, PIECE):
        names = [label(number) for number in range(first, min(first + PIECE, groups))]
        history.update(names * 3, rng.standard_normal(3 * len(names)))
    built = time.perf_counter() - start
    memory = resident() - before
    start = time.perf_counter()
    history.save(path, step=1)
    return {"build_s": built, "built_mib": memory, "save_s": time.perf_counter() - start}


def load(groups: int, path: str) -> dict[str, Any]:
    """Load the checkpoint, then add batches."""
    before = resident()
    start = time.perf_counter()
    history = GroupHistoryManager.load(path, step=1)
    loaded = time.perf_counter() - start
    memory = resident() - before
    rng, times = np.random.default_rng(1), []
    for _ in range(BATCHES):
        names, rewards = [label(number) for number in rng.integers(0, groups, BATCH)], rng.standard_normal(BATCH)
        start = time.perf_counter()
        history.compute_advantages(names, rewards)
        times.append(1e3 * (time.perf_counter() - start))
    return {
        "load_s": loaded,
        "loaded_mib": memory,
        "batch_best_ms": min(times),
        "batch_median_ms": statistics.median(times),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--groups", type=int, nargs="+", default=[1_000_000, 10_000_000])
    args = options.parse_args()
    print(f"batches of {BATCH}, {BATCHES} of them; {machine()}")
    table = []
    for groups in args.groups:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "history.parquet")
            row: dict[str, Any] = {"groups": groups}
            for function in (build, load):
                with multiprocessing.get_context("spawn").Pool(1) as process:
                    row |= process.apply(function, (groups, path))
            table.append({**row, "file_mib": os.path.getsize(path) / 2**20})
    show(table, args.json)


if __name__ == "__main__":
    main()
