# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Step metrics and warnings of a P-GRPO run.

Metrics (all numbers; names that every logger of verl accepts):

    pgrpo/group/<name>/{count,mean,std}                   the group's history
    pgrpo/group/<name>/within_std                         with baseline=shrinkage: std around the prompt's mean
    pgrpo/group/<name>/{reward,advantage,scale,shift}     means over this step's responses of the group
    pgrpo/other_groups/{num_groups,count,reward,advantage,scale,shift}
                                                          groups beyond `max_logged_groups`, together
    pgrpo/worst_group/reward, pgrpo/reward_gap            over the groups of this step
    pgrpo/cold_fraction, pgrpo/observed_total, pgrpo/num_groups, pgrpo/nonfinite_skipped
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.groups import describe_code_points, look_alikes, shortened
from verl_pgrpo.history import AdvantageResult, GroupHistoryManager, GroupStatistics
from verl_pgrpo.moments import Moments

__all__ = ["HistoryMonitor", "describe_run", "metric_label"]

_PER_ROW = ["reward", "advantage", "scale", "shift"]
# Only the largest groups are checked for warnings, so a step takes the same time however many groups there are.
_MAX_MONITORED = 1000
# Warn about a group without rewards once this many were expected from its share. With independent draws of every
# response, this happens by chance with probability e^-100; with eight responses per prompt, e^-12.
_EXPECTED_WITHOUT_REWARD = 100
_DOMINANT_SHARE = 0.9
_MIN_REWARDS_FOR_SHARE = 256
# Warn if the mean of a group's recent rewards is this many standard errors from the mean that normalizes it. Responses
# to one prompt are correlated, so the true standard error may be two or three times as large.
_LAG_STANDARD_ERRORS = 10.0
_LAG_STEPS = 10
_SHOWN_GROUPS = 8


def metric_label(group: str) -> str:
    """Return a name for a group that every logger accepts in a metric: at most 57 of [A-Za-z0-9_. -], unique."""
    plain = re.sub(r"[^A-Za-z0-9_. -]", "_", group)[:48].strip()
    if plain == group and plain.strip("."):
        return plain
    digest = hashlib.sha256(group.encode()).hexdigest()[:8]
    return f"{plain}-{digest}" if plain else digest


def describe_run(history: GroupHistoryManager, sizes: Mapping[str, int] | None) -> str:
    """Return the line that a run prints at its start: groups, options and the state of the history.

    Args:
        history: the run's history.
        sizes: training rows per group; None if unknown.
    """
    if sizes is None:
        data = "groups unknown until the first rollout (the dataset is not a table)"
    else:
        total, ordered = sum(sizes.values()), sorted(sizes, key=lambda group: -sizes[group])
        shown = [f"{group!r:.50} {sizes[group]} ({sizes[group] / max(total, 1):.1%})" for group in ordered]
        if len(shown) > _SHOWN_GROUPS + 1:
            shown = [*shown[:_SHOWN_GROUPS], "...", shown[-1]]
        data = f"{len(sizes)} preference groups in {total} training rows: {', '.join(shown)}"
    default = PGRPOConfig().as_dict()
    changed = {key: value for key, value in history.config.as_dict().items() if value != default[key]}
    return (
        f"P-GRPO: rewards are normalized by the reward history of their {history.config.group_key!r}: {data}; history "
        f"so far: {history.total_count} rewards of {history.num_groups} groups; options: {changed or 'all default'}"
    )


class HistoryMonitor:
    """Collects the batches of a training step; reports metrics and prints warnings at its end.

    Args:
        history: the run's history.
        sizes: training rows per group. None if unknown; the history's own counts are then used as shares.
    """

    def __init__(self, history: GroupHistoryManager, sizes: Mapping[str, int] | None = None) -> None:
        self._history = history
        self._logged = history.largest(history.config.max_logged_groups)
        self._batches: list[pd.DataFrame] = []
        self._skipped = 0
        names = history.largest(_MAX_MONITORED) if sizes is None else sorted(sizes, key=lambda name: -sizes[name])
        self._monitored = names[:_MAX_MONITORED]
        total = 0 if sizes is None else max(sum(sizes.values()), 1)
        self._share = None if sizes is None else {name: sizes[name] / total for name in self._monitored}
        self._rewards_since: dict[str, int] = dict.fromkeys(self._monitored, 0)  # rewards of all groups since its last
        self._recent: deque[pd.DataFrame] = deque(maxlen=_LAG_STEPS)
        self._warned: set[tuple[str, str]] = set()
        self._warn_of_look_alikes(self._monitored)

    def add(self, rewards: ArrayLike, result: AdvantageResult) -> None:
        """Record one batch: the rewards (N,) and what `GroupHistoryManager.compute_advantages` returned for them."""
        frame = pd.DataFrame(
            {
                "group": result.groups,
                "reward": np.asarray(rewards, dtype=np.float64),
                "advantage": result.advantages,
                "scale": np.nan if result.scale is None else result.scale,
                "shift": np.nan if result.shift is None else result.shift,
                "cold": result.cold.astype(np.float64),
                "rows": 1,
            }
        )
        frame = frame[~result.skipped]
        codes, _ = pd.factorize(frame["group"].to_numpy(object), sort=True)
        # Sorted rows, because sums are rounded differently in another order. min_count=1 keeps the sum of NaN a NaN.
        order = np.lexsort((*frame[_PER_ROW].to_numpy(np.float64).T, codes))
        self._batches.append(frame.iloc[order].groupby("group", sort=False).sum(min_count=1))
        self._skipped += int(result.skipped.sum())

    def end_step(self) -> dict[str, float]:
        """Print the warnings that are due, each once per group, and return the step's metrics."""
        step = pd.concat(self._batches).groupby(level=0, sort=False).sum(min_count=1) if self._batches else None
        if step is not None and len(step):
            for line in self._warnings(step):
                _warn(line)
        metrics = self._metrics(step)
        self._batches, self._skipped = [], 0
        return metrics

    def _metrics(self, step: pd.DataFrame | None) -> dict[str, float]:
        history = self._history
        metrics = {"pgrpo/observed_total": float(history.total_count), "pgrpo/num_groups": float(history.num_groups)}
        if history.config.on_nonfinite == "skip":
            metrics["pgrpo/nonfinite_skipped"] = float(self._skipped)
        present: list[str] = []
        if step is not None and len(step):
            present = step.index.tolist()
            mean_reward = step["reward"] / step["rows"]
            metrics["pgrpo/worst_group/reward"] = float(mean_reward.min())
            metrics["pgrpo/reward_gap"] = float(mean_reward.max() - mean_reward.min())
            metrics["pgrpo/cold_fraction"] = float(step["cold"].sum() / step["rows"].sum())
        # Counts only grow, and only for groups of this step, so the largest are among these and the largest so far.
        candidates = list(dict.fromkeys([*self._logged, *present]))
        statistics = history.statistics(candidates)
        order = np.argsort(-statistics.count, kind="stable")[: history.config.max_logged_groups]
        self._logged = [candidates[i] for i in order]
        for i in order:
            prefix = f"pgrpo/group/{metric_label(candidates[i])}"
            for name in ("count", "mean", "std"):
                metrics[f"{prefix}/{name}"] = float(getattr(statistics, name)[i])
            if history.config.baseline == "shrinkage" and not np.isnan(statistics.within_std[i]):
                metrics[f"{prefix}/within_std"] = float(statistics.within_std[i])
            if step is not None and candidates[i] in step.index:
                metrics |= _row_means(prefix, step.loc[[candidates[i]]])
        if history.num_groups > len(self._logged):
            metrics["pgrpo/other_groups/num_groups"] = float(history.num_groups - len(self._logged))
            metrics["pgrpo/other_groups/count"] = history.total_count - float(statistics.count[order].sum())
            if step is not None:
                metrics |= _row_means("pgrpo/other_groups", step.loc[~step.index.isin(self._logged)])
        return metrics

    def _warnings(self, step: pd.DataFrame) -> Iterable[str]:
        names, total = self._monitored, self._history.total_count
        if self._share is None and len(names) < _MAX_MONITORED:
            new = [name for name in step.index if name not in self._rewards_since][: _MAX_MONITORED - len(names)]
            names += new
            self._warn_of_look_alikes(names)
        for name in names:
            rows_before = self._rewards_since.get(name, 0)
            self._rewards_since[name] = 0 if name in step.index else rows_before + int(step["rows"].sum())
        self._recent.append(step[["reward", "rows"]])
        if not names:
            return
        statistics = self._history.statistics(names)
        yield from self._without_rewards(names, statistics, total)
        yield from self._dominant(names, statistics, total)
        yield from self._lagging(names, statistics)

    def _without_rewards(self, names: list[str], statistics: GroupStatistics, total: int) -> Iterable[str]:
        since = np.array([self._rewards_since[name] for name in names], dtype=np.float64)
        if self._share is None:
            share = statistics.count / np.maximum(total - since, 1)
        else:
            share = np.array([self._share[name] for name in names])
        groups = self._first_time("without_rewards", np.array(names)[share * since >= _EXPECTED_WITHOUT_REWARD])
        if groups:
            yield (
                f"group {groups} has received no rewards although >{_EXPECTED_WITHOUT_REWARD} were expected by now. "
                "Its prompts may be filtered out, fail in the rollout, or be missing from the sampler."
            )

    def _dominant(self, names: list[str], statistics: GroupStatistics, total: int) -> Iterable[str]:
        largest = int(np.nanargmax(statistics.count))
        share = statistics.count[largest] / total
        if total >= _MIN_REWARDS_FOR_SHARE and share > _DOMINANT_SHARE:
            groups = self._first_time("dominant", [names[largest]])
            if groups:
                yield (
                    f"group {groups} holds {share:.1%} of all {total} rewards, so nearly all responses are normalized "
                    "alike. Is group_key the right column?"
                )

    def _lagging(self, names: list[str], statistics: GroupStatistics) -> Iterable[str]:
        recent = pd.concat(list(self._recent)).groupby(level=0).sum().reindex(names)
        count, mean = recent["rows"].to_numpy(np.float64), (recent["reward"] / recent["rows"]).to_numpy(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.abs(mean - statistics.mean) / (statistics.std / np.sqrt(count))
        # A history that remembers hardly more than these steps cannot lag behind them.
        memory = Moments(half_life=self._history.config.half_life).weight(statistics.count)
        rows = np.flatnonzero((errors > _LAG_STANDARD_ERRORS) & (statistics.std > 0) & (memory >= 2 * count))
        rows = rows[np.argsort(-errors[rows])]
        groups = self._first_time("lagging", [names[row] for row in rows])
        if groups:
            half_life = self._history.config.half_life
            shorter = "a half_life of a few steps' rewards" if half_life is None else f"half_life < {half_life:g}"
            if self._history.config.baseline == "history":
                shorter = f"baseline=shrinkage, which corrects part of it, or {shorter}"
            yield (
                f"the reward history of group {groups} differs from its rewards of the last {len(self._recent)} steps "
                f"by up to {errors[rows[0]]:.0f} standard errors (limit {_LAG_STANDARD_ERRORS:g}), so its advantages "
                f"are biased to one side. Consider {shorter}."
            )

    def _warn_of_look_alikes(self, names: Iterable[str]) -> None:
        for alike in look_alikes(names):
            if self._first_time("look_alikes", [" = ".join(alike)]):
                _warn(f"groups that look alike but differ: {' and '.join(map(describe_code_points, alike))}")

    def _first_time(self, reason: str, names: Iterable[str]) -> str:
        """Return the groups not yet reported for this reason, as text: the first five by name."""
        new = [name for name in names if (reason, name) not in self._warned]
        self._warned.update((reason, name) for name in new)
        return shortened([f"{str(name)!r:.80}" for name in new], most=5)


def _row_means(prefix: str, step: pd.DataFrame) -> dict[str, float]:
    if step.empty:
        return {}
    means = step[_PER_ROW].sum(min_count=1) / step["rows"].sum()
    return {f"{prefix}/{name}": float(value) for name, value in means.items() if value == value}


def _warn(message: str) -> None:
    print(f"P-GRPO warning: {message}", flush=True)
