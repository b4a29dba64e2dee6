# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The history that P-GRPO normalizes by, compared with current rewards; and groups with a short history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from verl_pgrpo.errors import HistoryFileError
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.moments import Floats
from verl_pgrpo.monitoring import metric_label
from verl_pgrpo.report.comparison import Run
from verl_pgrpo.report.loading import group_metrics

FEW = 30  # rewards; with fewer, a mean is off by more than a fifth of a standard deviation


@dataclass(frozen=True)
class HistorySnapshot:
    """The last known reward history of a run.

    Attributes:
        count: (G,) number of rewards of each group, 0 where unknown.
        source: the file, or "the last logged metrics", which have only the largest groups.
        step: the training step.
        cold: share of the last step's responses that were normalized by a short history; NaN if not logged.
    """

    count: Floats
    source: str
    step: int
    cold: float

    def few(self) -> list[int]:
        """Indices of groups with few rewards, the fewest first."""
        order = np.argsort(self.count, kind="stable")
        return [int(group) for group in order if 0 < self.count[group] < FEW]

    def sizes(self) -> list[tuple[str, int]]:
        """Number of groups by their number of rewards."""
        names = ["none", "1", "2 to 9", "10 to 29", "30 to 99", "100 to 999", "1,000 or more"]
        counts = np.histogram(self.count, bins=[0, 1, 2, 10, 30, 100, 1000, np.inf])[0].tolist()
        return list(zip(names, counts, strict=True))

    @classmethod
    def read(cls, run: Run, labels: Sequence[str], problems: list[str]) -> HistorySnapshot | None:
        """Read the newest checkpoint's history, else the last metrics. Return None if the run has no history.

        A file that cannot be read is reported in `problems`.
        """
        cold = run.folder.log.series("pgrpo/cold_fraction")
        last_cold = float(cold.iloc[-1]) if len(cold) else float("nan")
        if run.folder.history is not None:
            step, file = run.folder.history
            try:
                return cls(GroupHistoryManager.load(file).statistics(labels).count, str(file), step, last_cold)
            except HistoryFileError as error:
                problems.append(str(error))
        logged = group_metrics(run.folder.log, "count")
        if not logged:
            return None
        names = [_metric_name(run, label) for label in labels]
        counts = [float(logged[name].iloc[-1]) if name in logged else 0.0 for name in names]
        step = max(int(count.index[-1]) for count in logged.values())
        return cls(np.array(counts), "the last logged metrics", step, last_cold)


def history_metrics(run: Run, label: str) -> pd.DataFrame:
    """Return a group's logged history over the steps: columns `mean`, `std` and `reward` (the mean of the batch)."""
    prefix = f"pgrpo/group/{_metric_name(run, label)}"
    return pd.DataFrame({what: run.folder.log.series(f"{prefix}/{what}") for what in ("mean", "std", "reward")})


def _metric_name(run: Run, label: str) -> str:
    """A label that was read from metrics is such a name already; `metric_label` would shorten a long one again."""
    return label if f"pgrpo/group/{label}/count" in run.folder.log.frame else metric_label(label)
