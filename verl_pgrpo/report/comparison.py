# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Arms of an experiment compared: what each preference group ends at, who is worst off, how unequal it is.

An arm is what was tried (`grpo`, `pgrpo`, a control); its runs are seeds. *Ends at* is a mean over the last fifth of
the steps that all runs have. Rewards are on scales of the users' own, so where no utility is known a group is compared
with itself: its mean reward in units of the mean and standard deviation that it had at the start of the baseline arm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from verl_pgrpo.report.responses import Responses
from verl_pgrpo.report.run_folder import RunFolder, Series

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

ENOUGH = 10  # responses in a window, from which on a mean and a standard deviation say something
T_975 = (2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23, 2.20, 2.18, 2.16, 2.14, 2.13)  # Student's t, from 5 seeds on
FEW_GROUPS = 20  # up to so many, the worst is a group; of more, the worst tenth says more
POINTS = 120  # of a curve


@dataclass(frozen=True)
class Run:
    """One run that was read. `other_groups`: it normalised by others than those compared, whose history is left out."""

    folder: RunFolder
    series: dict[str, Series]
    responses: Responses
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


@dataclass(frozen=True)
class Spread:
    """A number over seeds: the mean, and a band around it (None with one seed)."""

    mean: float
    low: float | None
    high: float | None

    @classmethod
    def of(cls, values: Floats) -> Spread:
        if not np.isfinite(values).any():
            return cls(math.nan, None, None)
        low, high = band(values[:, None])
        one = np.isfinite(values).sum() < 2
        return cls(float(np.nanmean(values)), None if one else float(low[0]), None if one else float(high[0]))


def band(values: Floats) -> tuple[Floats, Floats]:
    """(seeds, ...) to lower and upper: smallest and largest below 5 seeds, else Student's 95 % interval of the mean."""
    seeds = len(values)
    # A column that no seed knows stays NaN, without a warning of numpy's.
    known = np.isfinite(values).any(axis=0)
    filled = np.where(known, values, 0.0)
    if seeds < len(T_975) and seeds < 5:
        low, high = np.nanmin(filled, axis=0), np.nanmax(filled, axis=0)
    else:
        t = T_975[min(seeds - 5, len(T_975) - 1)]
        mean, half = np.nanmean(filled, axis=0), t * np.nanstd(filled, axis=0, ddof=1) / math.sqrt(seeds)
        low, high = mean - half, mean + half
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


def mean_over_seeds(values: Floats) -> Floats:
    """(seeds, ...) to the mean of those that are known; NaN where none is."""
    known = np.isfinite(values)
    with np.errstate(invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=0) / known.sum(axis=0)


@dataclass(frozen=True)
class Window:
    """Of one run's steps in a window, per preference group; (G,) each.

    `count` are responses, `rows` the numbers they are known from: fewer where a row of a log is the mean of several.
    `std` (with Bessel's correction) is that of responses all the same, told by how far means of so many lie apart.
    """

    count: Floats
    rows: Floats
    mean: Floats
    std: Floats

    @property
    def within(self) -> float:
        """The standard deviation within groups, of all groups together; NaN where none has two rows."""
        freedom = np.where(np.isfinite(self.std), self.rows - 1, 0.0)
        total = float(freedom.sum())
        return math.sqrt(float(freedom @ np.nan_to_num(self.std) ** 2) / total) if total > 0 else math.nan

    @property
    def error(self) -> Floats:
        """The mean's standard error. Few rows may lie close by chance: their std is that within groups, at least."""
        std = np.where(self.rows < ENOUGH, np.fmax(self.std, self.within), self.std)
        with np.errstate(divide="ignore", invalid="ignore"):
            return std / np.sqrt(self.count)

    @classmethod
    def of(cls, responses: Responses, steps: Integers, groups: int, values: Floats) -> Window:
        kept = np.isin(responses.steps, steps) & np.isfinite(values)
        codes, weight, values = responses.groups[kept], responses.weight[kept], values[kept]
        count = np.bincount(codes, weight, groups).astype(np.float64)
        rows = np.bincount(codes, minlength=groups).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(codes, weight * values, groups) / count
            squares = np.bincount(codes, weight * (values - mean[codes]) ** 2, groups)
            std = np.sqrt(squares / (rows - 1))
            return cls(count, rows, mean, np.where(rows > 1, std, np.nan))


class Comparison:
    """Everything that the page says in numbers. `labels` are the G preference groups, `value` what is compared."""

    def __init__(self, arms: list[Arm], labels: list[str], value: str, baseline: str | None = None) -> None:
        self.arms, self.labels, self.value = arms, labels, value
        self.runs = [run for arm in arms for run in arm.runs]
        present = [np.unique(run.responses.steps) for run in self.runs]
        self.steps = np.unique(np.concatenate(present))
        first, last = max(steps[0] for steps in present), min(steps[-1] for steps in present)
        common = self.steps[(self.steps >= first) & (self.steps <= last)]
        self.cut = bool(len(common) and last < self.steps[-1])  # some runs are longer than others
        self.disjoint = not len(common)
        if self.disjoint:
            common = self.steps
        fifth = math.ceil(len(common) / 5)
        self.first, self.last = common[:fifth], common[-fifth:]
        self.baseline, self.ours = self._roles(baseline)
        self.center, self.scale, self.known_from = self._units()
        self.windows = [[self._window(run, self.last) for run in arm.runs] for arm in arms]

    def _roles(self, wanted: str | None) -> tuple[int, int | None]:
        """The arm that others are compared with (the one wanted, else GRPO), and the one in question (else P-GRPO)."""
        numbers = range(len(self.arms))
        ours = [i for i in numbers if self.arms[i].estimator == "pgrpo"]
        plain = [i for i in ours if self.arms[i].label == "pgrpo"] or [
            i for i in ours if "random" not in self.arms[i].runs[0].folder.group_key
        ]
        named = next((i for i in numbers if self.arms[i].label == wanted), None)
        chosen = next((i for i in (*plain, *ours) if i != named), None)
        base = named
        if base is None:
            base = next((i for i in numbers if "grpo" in (self.arms[i].estimator, self.arms[i].label)), None)
        if base is None:
            base = next((i for i in numbers if i != chosen), 0)
        if chosen is None or chosen == base:
            chosen = next((i for i in numbers if i != base), None)
        return base, chosen

    def _units(self) -> tuple[Floats, Floats, Floats]:
        """What a group's mean is compared with, in which unit, and from how many rewards these are known; (G,) each.

        0, 1 and infinitely many but for standardized values. Of a group with few rewards the mean is its own all the
        same, as scales differ between groups; the standard deviation is that within all groups.
        """
        size = len(self.labels)
        if self.value != "standardized":
            return np.zeros(size), np.ones(size), np.full(size, np.inf)
        runs = self.arms[self.baseline].runs
        steps, groups, reward, weight = (
            np.concatenate([getattr(run.responses, name) for run in runs])
            for name in ("steps", "groups", "reward", "weight")
        )
        start = Window.of(Responses(steps, groups, reward, reward, weight, ""), self.first, size, reward)
        within = start.within if start.within > 1e-9 else 1.0
        own = (start.count >= ENOUGH) & (start.std > 1e-9)
        return start.mean, np.where(own, start.std, within), start.count

    def _window(self, run: Run, steps: Integers) -> Window:
        values = run.responses.value if self.value != "standardized" else run.responses.reward
        if self.disjoint:
            own = np.unique(run.responses.steps)
            steps = own[-math.ceil(len(own) / 5) :]
        found = Window.of(run.responses, steps, len(self.labels), values)
        return Window(found.count, found.rows, (found.mean - self.center) / self.scale, found.std / self.scale)

    @cached_property
    def responses(self) -> Floats:
        """(G,) how many responses each group got, in all runs."""
        found = np.zeros(len(self.labels))
        for run in self.runs:
            found += np.bincount(run.responses.groups, run.responses.weight, len(self.labels))
        return found

    @cached_property
    def share(self) -> Floats:
        return self.responses / self.responses.sum()

    @cached_property
    def smallest(self) -> Floats:
        """(G,) how many responses a group got in the last fifth of the arm that gave it fewest, all seeds together.

        Of standardized values also in the first fifth of the baseline, where their units come from.
        """
        ends = [np.sum([window.count for window in arm], axis=0) for arm in self.windows]
        return np.min([*ends, self.known_from], axis=0)

    @cached_property
    def enough(self) -> int:
        """Groups with so many responses in every arm's last fifth are ranked.

        10, if of up to 20 groups all have them, of more half; else fewer. One says nothing, so it counts only where
        there are not even 20 groups with two.
        """
        size = len(self.labels)
        needed = size if size <= FEW_GROUPS else size / 2
        found = next((m for m in (ENOUGH, 5, 2) if (self.smallest >= m).sum() >= needed), 1)
        return 2 if found == 1 and (self.smallest >= 2).sum() >= FEW_GROUPS else found

    @cached_property
    def ranked(self) -> NDArray[np.bool_]:
        found = self.smallest >= self.enough
        return found if found.any() else np.isfinite(self.ends[self.baseline])

    @cached_property
    def seeds(self) -> list[Floats]:
        """Per arm: (seeds, G), what each group ends at in each run."""
        return [np.array([window.mean for window in arm]) for arm in self.windows]

    @cached_property
    def ends(self) -> list[Floats]:
        """Per arm: (G,), the mean over seeds."""
        return [mean_over_seeds(values) for values in self.seeds]

    def worst(self, arm: int) -> int:
        """The group that ends lowest in an arm, of those that are ranked."""
        known = self.ranked & np.isfinite(self.ends[arm])
        return int(np.argmin(np.where(known, self.ends[arm], np.inf)))

    @cached_property
    def focus(self) -> int:
        """The group that the baseline serves worst."""
        return self.worst(self.baseline)

    def change(self, arm: int) -> tuple[Floats, Floats]:
        """(G,) an arm's end minus the baseline's, and the difference's standard error.

        The error is that of the seeds from 3 on, else that of the responses alone, which does not know of other seeds.
        """
        errors = []
        for i in (arm, self.baseline):
            values = self.seeds[i]
            if min(len(self.seeds[arm]), len(self.seeds[self.baseline])) >= 3:
                errors.append(np.std(values, axis=0, ddof=1) / math.sqrt(len(values)))
            else:
                within = np.array([window.error for window in self.windows[i]])
                errors.append(np.sqrt((within**2).sum(axis=0)) / len(values))
        return self.ends[arm] - self.ends[self.baseline], np.sqrt(errors[0] ** 2 + errors[1] ** 2)

    def gained_and_lost(self, arm: int) -> tuple[int, int, int]:
        """Groups that are ranked and moved by more than twice the standard error, up or down; and the others."""
        change, error = (values[self.ranked] for values in self.change(arm))
        sure = np.isfinite(change) & (np.abs(change) > 2 * np.where(np.isfinite(error), error, np.inf))
        gained, lost = int((sure & (change > 0)).sum()), int((sure & (change < 0)).sum())
        return gained, lost, int(self.ranked.sum()) - gained - lost

    def summary(self, arm: int) -> dict[str, Spread]:
        """Over the ranked groups, each counting the same: mean, worst, worst tenth (of many groups), gap, Gini."""
        rows = [values[self.ranked & np.isfinite(values)] for values in self.seeds[arm]]
        rows = [values for values in rows if len(values)] or [np.array([np.nan])]
        found = {
            "mean": [values.mean() for values in rows],
            "worst": [values.min() for values in rows],
            "worst tenth": [np.sort(values)[: math.ceil(len(values) / 10)].mean() for values in rows],
            "gap": [np.ptp(values) for values in rows],
            "gini": [gini(values) for values in rows],
        }
        if self.ranked.sum() <= FEW_GROUPS:
            del found["worst tenth"]
        return {name: Spread.of(np.array(values)) for name, values in found.items()}


def gini(values: Floats) -> float:
    """0: all the same; toward 1: one has it all. NaN where a value is negative, as shares of nothing mean nothing."""
    if not len(values) or values.min() < 0 or values.sum() <= 0:
        return math.nan
    ordered, size = np.sort(values), len(values)
    return float(2 * (np.arange(1, size + 1) @ ordered) / (size * ordered.sum()) - (size + 1) / size)
