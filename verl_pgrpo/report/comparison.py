# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Compare the arms of an experiment: final value of each preference group, the worst group, and inequality.

An arm is a variant (`grpo`, `pgrpo`, a control); its runs are seeds. *Ends at* is the mean over the last fifth of the
steps that all runs have. Users rate on different scales. Without a known utility, a group is therefore compared with
itself: its mean reward is standardized by its mean and standard deviation at the start of the baseline arm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from verl_pgrpo.evaluation.rollouts import GroupLookup
from verl_pgrpo.evaluation.statistics import gini
from verl_pgrpo.moments import Floats, Integers
from verl_pgrpo.report.pooling import ENOUGH, ConfidenceBand, Window
from verl_pgrpo.report.run_folder import RunFolder

FEW_GROUPS = 20  # with more groups, the page shows the mean of the worst tenth in addition to the worst group
CELLS = ["step", "group", "count", "rows", "value", "m2"]


@dataclass(frozen=True)
class Run:
    """One run that was read.

    Attributes:
        folder: where its files are.
        cells: one row per step and preference group (a label): `count` responses with mean `value`. `rows` is the
            number of values that are known, each the mean of count / rows responses, and `m2` the sum of their squared
            deviations. Values are finite.
        groups: how to look up the preference groups in its dumps; None if the values are from its metrics.
        unknown: responses left out because their preference group is unknown.
        missing: values left out because they are not finite.
        other_groups: the run normalized by other groups than those compared, so its history is not shown.
    """

    folder: RunFolder
    cells: pd.DataFrame
    groups: GroupLookup | None = None
    unknown: int = 0
    missing: int = 0
    other_groups: bool = False


@dataclass(frozen=True)
class Arm:
    """Runs that differ in their seed."""

    label: str
    estimator: str | None
    runs: list[Run] = field(default_factory=list)

    @property
    def title(self) -> str:
        return {"grpo": "GRPO", "pgrpo": "P-GRPO"}.get(self.label, self.label)


class Comparison:
    """The numbers behind the page.

    Attributes:
        arms: the arms; `baseline` is the index of the one that others are compared with (GRPO unless named), `ours` of
            the one in question (P-GRPO), None with a single arm.
        labels: the G preference groups. All arrays over groups are in this order.
        value: what is compared: "utility", "score", "standardized" or a field of the dumps.
        cells: the cells of all runs, with columns `arm`, `seed` and codes of groups; standardized if `value` is.
        steps, first, last: all steps, and the first and the last fifth of those that all runs have.
        cut: some runs are longer than others. disjoint: without common steps, each run ends at its own last fifth.
        start: the baseline's steps that "standardized" refers to: `first`, or without common steps its own first fifth.
        responses, share: (G,) number and share of each group's responses.
        windows: per arm and seed the last fifth.
        seeds: per arm (seeds, G), what each group ends at in each run; `ends` the mean over seeds, (G,).
        ranked: (G,) the groups that are compared with each other: with at least `enough` responses in every arm. If no
            group has any in every arm (`shared` is False), those of the baseline.
        by_tenths: whether there are so many of them that the worst tenth is more informative than the worst.
        focus: index of the group that is worst off in the baseline arm.
        notable: all groups: first the one in focus, then the worst of each arm, then the others, the largest first.
    """

    def __init__(self, arms: list[Arm], value: str, baseline: str | None = None) -> None:
        self.arms, self.value = arms, value
        self.runs = [run for arm in arms for run in arm.runs]
        self.labels: list[str] = list(dict.fromkeys(label for run in self.runs for label in run.cells["group"]))
        self.baseline, self.ours = self._roles(baseline)
        size, code = len(self.labels), {label: i for i, label in enumerate(self.labels)}
        self.cells = pd.concat(
            run.cells.assign(arm=i, seed=seed, group=[code[label] for label in run.cells["group"]])
            for i, arm in enumerate(arms)
            for seed, run in enumerate(arm.runs)
        )
        self.steps = np.unique(self.cells["step"])
        spans = self.cells.groupby(["arm", "seed"])["step"].agg(["min", "max"])
        start, end = spans["min"].max(), spans["max"].min()
        common = self.steps[(self.steps >= start) & (self.steps <= end)]
        self.disjoint = not len(common)
        self.cut = not self.disjoint and bool(end < self.steps[-1])
        self.first, self.last = _fifths(self.steps if self.disjoint else common)
        own = np.unique(self.cells["step"][self.cells["arm"] == self.baseline])
        self.start = _fifths(own)[0] if self.disjoint else self.first
        self.responses: Floats = np.bincount(self.cells["group"], self.cells["count"], size).astype(float)
        self.share = self.responses / self.responses.sum()
        known_from = self._standardize() if value == "standardized" else np.full(size, np.inf)
        self.windows = [
            [self._last_window(i, seed) for seed in range(len(arm.runs))] for i, arm in enumerate(self.arms)
        ]
        self.seeds: list[Floats] = [np.array([window.mean for window in arm]) for arm in self.windows]
        self.ends = [pd.DataFrame(values).mean().to_numpy() for values in self.seeds]  # ignores NaN
        # Responses in the last fifth, over all seeds, in the arm that has the fewest for the group.
        counts = [np.sum([window.count for window in arm], axis=0) for arm in self.windows]
        fewest = np.min([*counts, known_from], axis=0)
        self.enough = _enough(fewest)
        ranked: NDArray[np.bool_] = fewest >= self.enough
        self.shared = bool(ranked.any())
        self.ranked = ranked if self.shared else np.isfinite(self.ends[self.baseline])
        self.by_tenths = int(self.ranked.sum()) > FEW_GROUPS
        self.focus = self.worst(self.baseline)
        largest = np.argsort(-self.share, kind="stable").tolist()
        self.notable: list[int] = list(dict.fromkeys([self.focus, *map(self.worst, range(len(arms))), *largest]))

    def _roles(self, wanted: str | None) -> tuple[int, int | None]:
        def is_ours(i: int) -> tuple[bool, bool, bool]:
            arm = self.arms[i]
            return arm.estimator == "pgrpo", arm.label == "pgrpo", "random" not in arm.runs[0].folder.group_key

        def is_base(i: int) -> tuple[bool, bool]:
            return self.arms[i].label == wanted, "grpo" in (self.arms[i].estimator, self.arms[i].label)

        # The most likely by these criteria; the first if there is a tie.
        ours_last = sorted(range(len(self.arms)), key=is_ours)
        base = max(ours_last, key=is_base)
        return base, max((i for i in range(len(self.arms)) if i != base), key=is_ours, default=None)

    def _standardize(self) -> Floats:
        """Convert `cells` to units of the baseline's start; return how many responses these are based on, (G,).

        A group with few rewards there still has its own mean, because scales differ between groups, but uses the pooled
        standard deviation within all groups.
        """
        at_start = (self.cells["arm"] == self.baseline) & self.cells["step"].isin(self.start)
        start = Window.pool(self.cells[at_start], len(self.labels))
        within = start.std_within if start.std_within > 1e-9 else 1.0
        scale = np.where((start.count >= ENOUGH) & (start.std > 1e-9), start.std, within)
        code = self.cells["group"].to_numpy()
        self.cells["value"] = (self.cells["value"] - start.mean[code]) / scale[code]
        self.cells["m2"] /= scale[code] ** 2
        self.cells = self.cells[self.cells["value"].notna()]
        return start.count

    def _last_window(self, arm: int, seed: int) -> Window:
        cells = self.cells[(self.cells["arm"] == arm) & (self.cells["seed"] == seed)]
        last = _fifths(np.unique(cells["step"]))[1] if self.disjoint and len(cells) else self.last
        return Window.pool(cells[cells["step"].isin(last)], len(self.labels))

    def means(self, arm: int, steps: Integers) -> Floats:
        """(G,) mean over the seeds of an arm in some steps."""
        cells = self.cells[(self.cells["arm"] == arm) & self.cells["step"].isin(steps)]
        windows = [Window.pool(own, len(self.labels)).mean for _, own in cells.groupby("seed")]
        return pd.DataFrame(windows, columns=range(len(self.labels)), dtype=float).mean().to_numpy()

    def worst(self, arm: int) -> int:
        """Index of the ranked group that ends lowest in an arm."""
        known = self.ranked & np.isfinite(self.ends[arm])
        return int(np.argmin(np.where(known, self.ends[arm], np.inf)))

    def change(self, arm: int) -> tuple[Floats, Floats]:
        """(G,) where an arm ends minus where the baseline ends, and the standard error of the difference.

        The error is that over seeds if both arms have 3 or more. Otherwise it is that over responses, which ignores
        how much seeds differ.
        """
        arms = (arm, self.baseline)
        errors = []
        for i in arms:
            if min(len(self.seeds[j]) for j in arms) >= 3:
                errors.append(pd.DataFrame(self.seeds[i]).sem().to_numpy())
            else:
                within = np.array([window.error for window in self.windows[i]])
                errors.append(np.sqrt((within**2).sum(axis=0)) / len(within))
        return self.ends[arm] - self.ends[self.baseline], np.hypot(*errors)

    def gained_and_lost(self, arm: int) -> tuple[int, int, int]:
        """Number of ranked groups that moved up, and down, by more than twice the standard error; and by less.

        A group whose standard error is unknown is in none of them.
        """
        change, error = (values[self.ranked] for values in self.change(arm))
        sure = np.isfinite(error) & (np.abs(change) > 2 * error)
        gained, lost = int((sure & (change > 0)).sum()), int((sure & (change < 0)).sum())
        return gained, lost, int((np.isfinite(error) & ~sure).sum())

    def summary(self, arm: int) -> dict[str, ConfidenceBand]:
        """Mean, worst, worst tenth (of many groups), gap and Gini over the ranked groups, each counting the same."""
        rows = [values[self.ranked & np.isfinite(values)] for values in self.seeds[arm]]
        rows = [values for values in rows if len(values)] or [np.array([np.nan])]
        found = {"mean": [values.mean() for values in rows], "worst": [values.min() for values in rows]}
        if self.by_tenths:
            found["worst tenth"] = [np.sort(values)[: math.ceil(len(values) / 10)].mean() for values in rows]
        found["gap"] = [np.ptp(values) for values in rows]
        found["gini"] = [float(gini(values)) for values in rows]
        return {name: ConfidenceBand.over_seeds(np.array(values)) for name, values in found.items()}


def _enough(fewest: Floats) -> int:
    """Return how many responses a group needs to be ranked.

    10 if all of up to 20 groups, or half of more groups, have them; else fewer. A single response is not enough unless
    there are fewer than 20 groups with two.
    """
    size = len(fewest)
    needed = size if size <= FEW_GROUPS else size / 2
    found = next((m for m in (ENOUGH, 5, 2) if (fewest >= m).sum() >= needed), 1)
    return 2 if found == 1 and (fewest >= 2).sum() >= FEW_GROUPS else found


def _fifths(steps: Integers) -> tuple[Integers, Integers]:
    count = math.ceil(len(steps) / 5)
    return steps[:count], steps[-count:]
