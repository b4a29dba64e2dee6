# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a training step reports about its preference groups, as the flat numbers that every logger takes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from verl_pgrpo.factor import Factor
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.results import AdvantageResult

__all__ = ["StepMetrics", "metric_label"]

_RESERVED = {"worst_group", "other_groups"}
_PER_ROW = ("reward", "advantage", "scale", "shift")


def metric_label(group: str) -> str:
    """A label that every logger accepts in a metric's name: at most 48 of [A-Za-z0-9_. -], unique per group."""
    plain = re.sub(r"[^A-Za-z0-9_. -]", "_", group)[:48].strip()
    if plain == group and plain.strip(".") and plain not in _RESERVED:
        return plain
    digest = hashlib.sha256(group.encode()).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else digest


class StepMetrics:
    """Collects the batches of one training step; `flush` gives its metrics and starts the next step.

    The largest groups are logged by name. Counts only grow, and only those of a step's own groups, so the largest are
    found among the step's groups and the largest so far: the cost is in the step's size, not in the number of groups.
    """

    def __init__(self, history: GroupHistoryManager) -> None:
        self._history = history
        self._named = history.largest(history.config.max_logged_groups)
        self._groups: list[str] = []  # the groups of each batch, one behind the other
        self._sums: list[np.ndarray] = []  # for each of them: what `_PER_ROW` names, cold rows, rows
        self._skipped = 0

    def add(self, groups: Sequence[str] | Factor[str], rewards: ArrayLike, result: AdvantageResult) -> None:
        """One batch's rows, as they went to `GroupHistoryManager.advantages`."""
        kept = ~result.skipped
        labels = Factor.of(groups).take(kept)
        none = np.full(len(kept), np.nan)
        scale = none if result.scale is None else result.scale
        shift = none if result.shift is None else result.shift
        per_row = (np.asarray(rewards, dtype=np.float64), result.advantages, scale, shift, result.cold, kept)
        self._groups += labels.levels
        self._sums.append(np.stack([np.bincount(labels.codes, weights=values[kept]) for values in per_row]))
        self._skipped += len(kept) - int(kept.sum())

    def flush(self) -> dict[str, float]:
        """Metrics of the step: `pgrpo/<group>/*`, the worst group, the gap, cold rows, the total so far."""
        metrics: dict[str, float] = {
            "pgrpo/observed_total": float(self._history.total_count),
            "pgrpo/groups": float(self._history.num_groups),
        }
        if self._history.config.nonfinite == "skip":
            metrics["pgrpo/nonfinite_skipped"] = float(self._skipped)
        names = Factor.of(self._groups)
        present = {group: number for number, group in enumerate(names.levels)}
        means: np.ndarray = np.empty((len(_PER_ROW), 0))
        size: np.ndarray = np.empty(0)
        if present:
            sums = np.concatenate(self._sums, axis=1)
            *totals, cold, size = (np.bincount(names.codes, weights=row) for row in sums)
            means = np.stack(totals) / size
            metrics["pgrpo/worst_group/reward"] = float(means[0].min())
            metrics["pgrpo/reward_gap"] = float(means[0].max() - means[0].min())
            metrics["pgrpo/cold_fraction"] = float(cold.sum() / size.sum())
        self._add_named(metrics, present, means, size)
        self._groups, self._sums, self._skipped = [], [], 0
        return metrics

    def _add_named(
        self, metrics: dict[str, float], present: dict[str, int], means: np.ndarray, size: np.ndarray
    ) -> None:
        candidates = list(dict.fromkeys([*self._named, *present]))
        statistics = self._history.statistics(candidates)
        order = np.argsort(-statistics.count, kind="stable")[: self._history.config.max_logged_groups].tolist()
        self._named = [candidates[i] for i in order]
        for i in order:
            prefix = f"pgrpo/{metric_label(candidates[i])}"
            metrics[f"{prefix}/count"] = float(statistics.count[i])
            metrics[f"{prefix}/mean"] = float(statistics.mean[i])
            metrics[f"{prefix}/std"] = float(statistics.std[i])
            if candidates[i] in present:
                _put(metrics, prefix, means[:, present[candidates[i]]])

        others = self._history.num_groups - len(self._named)
        if others > 0:
            prefix = "pgrpo/other_groups"
            metrics[f"{prefix}/groups"] = float(others)
            metrics[f"{prefix}/count"] = self._history.total_count - float(statistics.count[order].sum())
            named = set(self._named)
            rest = [place for group, place in present.items() if group not in named]
            if rest:
                _put(metrics, prefix, (means[:, rest] * size[rest]).sum(axis=1) / size[rest].sum())


def _put(metrics: dict[str, float], prefix: str, values: np.ndarray) -> None:
    for name, value in zip(_PER_ROW, values.tolist(), strict=True):
        if value == value:  # scale and shift need generation groups
            metrics[f"{prefix}/{name}"] = value
