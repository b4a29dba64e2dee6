# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Cost of the history at a million groups and more: memory, checkpoint, and a batch of 8,192 rewards.

    python benchmarks/history.py [--groups 1000000 10000000] [--json FILE]

Labels have 16 characters. Each figure comes from a process of its own, so that memory is what this history takes:
resident memory after building or loading it, minus that before. A batch's groups are drawn uniformly from all, the
worst case for the processor's caches; its labels are new strings, as they come from a rollout.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from verl_pgrpo import GroupHistoryManager

BATCH = 8192
BATCHES = 100
PIECE = 100_000


def label(number: int) -> str:
    return f"user-{number:011d}"


def resident() -> float:
    """MiB of this process."""
    return psutil.Process().memory_info().rss / 2**20


def build(groups: int, path: str) -> dict[str, Any]:
    """Three rewards of each group, then a checkpoint."""
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
    """The checkpoint again, then batches."""
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


def in_a_process_of_its_own(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--json", metavar="FILE", help="also write the table as JSON")
    args = parser.parse_args()
    print(
        f"{os.cpu_count()} cores, {platform.machine()}, numpy {np.__version__}; batches of {BATCH}, {BATCHES} of them"
    )
    print("    groups | MiB built  loaded | file MiB  save s  load s | batch ms: best  median")
    table = []
    for groups in args.groups:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "history.parquet")
            row = {"groups": groups, **in_a_process_of_its_own(build, groups, path)}
            row |= {"file_mib": os.path.getsize(path) / 2**20, **in_a_process_of_its_own(load, groups, path)}
        table.append(row)
        print(
            "{groups:>10} | {built_mib:>10.0f} {loaded_mib:>7.0f} | {file_mib:>8.0f} "
            "{save_s:>7.1f} {load_s:>7.1f} | {batch_best_ms:>14.1f} {batch_median_ms:>7.1f}".format(**row),
            flush=True,
        )
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
