# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What P-GRPO normalises by, beside what a group earns now; and groups whose history is short."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from verl_pgrpo.errors import HistoryFileError
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.metrics import metric_label
from verl_pgrpo.report.comparison import Run
from verl_pgrpo.report.responses import by_group
from verl_pgrpo.report.run_folder import Series

Floats = NDArray[np.float64]
FEW = 30  # rewards: below, a mean is off by more than a fifth of a standard deviation


@dataclass(frozen=True)
class Past:
    """The last known history of a run: per group of the labels its rewards, their mean and std, (G,) each.

    Zero and NaN where the group is not known. `read_from` says from what: a checkpoint, or the last metrics, which name
    only the largest groups.
    """

    count: Floats
    mean: Floats
    std: Floats
    read_from: str
    step: int

    def few(self) -> list[int]:
        """Groups with few rewards, the fewest first."""
        order = np.argsort(self.count, kind="stable")
        return [int(g) for g in order if 0 < self.count[g] < FEW]


def last_history(run: Run, labels: Sequence[str], problems: list[str]) -> Past | None:
    """From the newest checkpoint, else from the metrics; None for a run without a history.

    A damaged file is reported in `problems` and passed over: the page is not training.
    """
    file = run.folder.history
    if file is not None:
        try:
            found = GroupHistoryManager.load(file).statistics(labels)
            return Past(found.count, found.mean, found.std, str(file), int(file.parent.name.rpartition("_")[2]))
        except HistoryFileError as error:
            problems.append(str(error))
    counts = by_group(run.series, "count")
    if not counts:
        return None
    names = [metric_label(label) for label in labels]
    means, stds = by_group(run.series, "mean"), by_group(run.series, "std")
    columns = [
        np.array([table[name][1][-1] if name in table else missing for name in names])
        for table, missing in ((counts, 0.0), (means, np.nan), (stds, np.nan))
    ]
    return Past(
        columns[0], columns[1], columns[2], "the last logged metrics", max(int(s[-1]) for s, _ in counts.values())
    )


def logged(run: Run, label: str) -> tuple[Series, Series, Series] | None:
    """Of a group, over steps: its history's mean and std, and its mean reward in the batch; None if not logged."""
    name = metric_label(label)
    found = [run.series.get(f"pgrpo/{name}/{what}") for what in ("mean", "std", "reward")]
    mean, std, reward = found
    return None if mean is None or std is None or reward is None else (mean, std, reward)


def lag(run: Run, label: str, steps: NDArray[np.int64]) -> float:
    """How far a group's rewards in these steps lie above the mean of its history, in its standard deviations."""
    series = logged(run, label)
    if series is None:
        return float("nan")
    (_, mean), (_, std), (at, reward) = series
    now = reward[np.isin(at, steps)]
    return float((now.mean() - mean[-1]) / std[-1]) if len(now) and std[-1] > 0 else float("nan")
