# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Signs that a run's normalisation is not what its user has in mind, said once and by name.

Only the largest preference groups (`WATCHED`) are watched, so that a step costs the same however many there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from verl_pgrpo.factor import Factor
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.results import AdvantageResult, GroupStatistics

__all__ = ["DOMINANT_SHARE", "LAG_STANDARD_ERRORS", "STARVED_EXPECTED", "WATCHED", "HistoryWatch"]

WATCHED = 1000
# A group of which so many rewards were to be expected, by its share, and none came: chance has e^-100 for that if every
# response were drawn by itself, and still e^-12 if eight of one prompt come together.
STARVED_EXPECTED = 100
DOMINANT_SHARE = 0.9
ENOUGH = 256  # rewards, before a share means anything
# The mean of a group's last steps lies so many of its standard errors off the mean that it is normalised by. Responses
# of one prompt are alike, so that the true standard error may be two or three times as large.
LAG_STANDARD_ERRORS = 10.0
LAG_STEPS = 10


class HistoryWatch:
    """Follows the steps of one run.

    Args:
        history: the run's history.
        sizes: rows per preference group in the training set; None where that is unknown, and what the history has seen
            so far then stands for it.
    """

    def __init__(self, history: GroupHistoryManager, sizes: Mapping[str, int] | None = None) -> None:
        self._history = history
        if sizes is None:
            names, self._share = history.largest(WATCHED), None
        else:
            names = sorted(sizes, key=lambda name: -sizes[name])[:WATCHED]
            self._share = np.array([sizes[name] for name in names]) / max(sum(sizes.values()), 1)
        self._number = {name: number for number, name in enumerate(names)}
        self._unseen = np.zeros(WATCHED)  # rewards of all groups since this one's last
        self._recent: deque[NDArray[np.float64]] = deque(maxlen=LAG_STEPS)
        self._step = np.zeros((2, WATCHED))  # rewards of each group in this step, and their sum
        self._rows = 0
        self._said: set[tuple[str, str]] = set()

    def add(self, groups: Sequence[str] | Factor[str], rewards: ArrayLike, result: AdvantageResult) -> None:
        """One batch's rows, as they went to `GroupHistoryManager.advantages`."""
        kept = ~result.skipped
        labels, values = Factor.of(groups).take(kept), np.asarray(rewards, dtype=np.float64)[kept]
        if self._share is None:
            for level in labels.levels[: WATCHED - len(self._number)]:
                self._number.setdefault(level, len(self._number))
        numbers = np.array([self._number.get(level, -1) for level in labels.levels], dtype=np.int64)
        seen = numbers >= 0
        for row, weights in enumerate((None, values)):
            self._step[row, numbers[seen]] += np.bincount(labels.codes, weights=weights)[seen]
        self._rows += len(values)

    def flush(self) -> list[str]:
        """End of a training step: what there is to warn of, each group once for each reason."""
        if not self._rows or not self._number:
            return []
        self._unseen = np.where(self._step[0] > 0, 0.0, self._unseen + self._rows)
        self._recent.append(self._step)
        self._step, self._rows = np.zeros((2, WATCHED)), 0
        names = list(self._number)
        statistics = self._history.statistics(names)
        return [
            line
            for line in (
                self._starved(names, statistics),
                self._dominant(names, statistics),
                self._lagging(names, statistics),
            )
            if line
        ]

    def _starved(self, names: list[str], statistics: GroupStatistics) -> str:
        unseen = self._unseen[: len(names)]
        past = self._history.total_count - unseen  # without a training set its share until then must do
        share = statistics.count / past if self._share is None else self._share
        rows = np.flatnonzero(share * unseen >= STARVED_EXPECTED)
        found = self._new("starved", [names[row] for row in rows.tolist()])
        return found and (
            f"no reward of preference group {found} for so long that over {STARVED_EXPECTED} were to be expected: its "
            "prompts may be filtered out, fail in the rollout, or be missing from the sampler."
        )

    def _dominant(self, names: list[str], statistics: GroupStatistics) -> str:
        total, largest = self._history.total_count, int(np.argmax(statistics.count))
        share = statistics.count[largest] / total
        found = self._new("dominant", [names[largest]]) if total >= ENOUGH and share > DOMINANT_SHARE else ""
        return found and (
            f"preference group {found} holds {share:.1%} of all {total} rewards: the normalisation is nearly that of "
            "one group for all. Is group_key the right column?"
        )

    def _lagging(self, names: list[str], statistics: GroupStatistics) -> str:
        count, total = np.sum(self._recent, axis=0)[:, : len(names)]
        with np.errstate(divide="ignore", invalid="ignore"):
            errors = np.abs(total / count - statistics.mean) / (statistics.std / np.sqrt(count))
        # A history that is hardly longer than these steps has no past to lag behind in.
        rows = np.flatnonzero((errors > LAG_STANDARD_ERRORS) & (statistics.std > 0) & (statistics.count >= 2 * count))
        rows = rows[np.argsort(-errors[rows])]
        found = self._new("lagging", [names[row] for row in rows.tolist()])
        half_life = self._history.config.half_life
        remedy = (
            "statistics=exponential with a half_life of a few steps' rewards of a group"
            if half_life is None
            else f"a half_life shorter than {half_life:g}"
        )
        return found and (
            f"the reward history of preference group {found} lags its rewards of the last {len(self._recent)} steps by "
            f"up to {errors[rows[0]]:.0f} standard errors (warned above {LAG_STANDARD_ERRORS:g}): its advantages lean "
            f"to one side. Consider {remedy}."
        )

    def _new(self, reason: str, names: list[str]) -> str:
        """Those not yet warned of for this reason, as text; the first five by name."""
        fresh = [name for name in names if (reason, name) not in self._said]
        self._said.update((reason, name) for name in fresh)
        more = f" and {len(fresh) - 5} more" if len(fresh) > 5 else ""
        return ", ".join(f"{name!r:.80}" for name in fresh[:5]) + more
