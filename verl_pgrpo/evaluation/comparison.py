# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A model's scores per preference group, and the difference between two models, paired by prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation import statistics as st
from verl_pgrpo.evaluation.samples import Sample, check_same_prompts, to_frame
from verl_pgrpo.evaluation.statistics import Floats

RESAMPLES = 9999


@dataclass(frozen=True)
class Scores:
    """One number (the column `value`) of a model's responses; `unscored` counts the responses without it."""

    name: str
    responses: pd.DataFrame
    unscored: int

    @classmethod
    def from_samples(cls, name: str, samples: Sequence[Sample], value: str = "score") -> Scores:
        """Raise DataError if no response has the number `value`."""
        frame = to_frame(samples, value)
        kept = frame.dropna(subset="value").astype({"value": float})
        if kept.empty:
            names = {name for s in samples for name in ("score", *s.values) if s.value(name) is not None}
            found = ", ".join(sorted(names)) or "no numbers: they were not scored, or every score is NaN"
            raise DataError(f"{name}: the responses have no number {value!r} (--value); they have {found}")
        return cls(name, kept, len(frame) - len(kept))

    @property
    def prompts(self) -> pd.DataFrame:
        """A row per prompt: prompt_id, preference_group, prompt, and the mean value over its responses."""
        columns = {"preference_group": "first", "prompt": "first", "value": "mean"}
        return self.responses.groupby("prompt_id", sort=False).agg(columns).reset_index()


def describe(scores: Scores, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return a model's numbers: a line per preference group, and summaries over the groups.

    `docs/evaluation.md` defines each number.
    """
    rng = np.random.default_rng(seed)
    responses = scores.responses.groupby("preference_group")["value"]
    counts, spreads = responses.size(), responses.std()
    lines: list[dict[str, Any]] = []
    means = []
    for group, prompts in scores.prompts.groupby("preference_group"):
        values = prompts["value"].to_numpy()
        boot, low, high = _bootstrap(values[None], resamples, rng)
        line = {"group": group, "prompts": len(values), "responses": int(counts[group]), "mean": float(values.mean())}
        lines.append({**line, "low": low, "high": high, "std": _finite(spreads[group])})
        means.append(boot)
    observed = np.array([line["mean"] for line in lines])
    drawn = _stack(means)
    summary: dict[str, dict[str, Any]] = {}
    for name, function in st.SUMMARIES.items():
        low, high = (None, None) if drawn is None else st.percentile_interval(function(drawn[0]))
        summary[name] = {"value": float(function(observed)), "low": low, "high": high}
    summary["worst_group"]["group"] = lines[int(observed.argmin())]["group"]
    totals = {name: sum(line[name] for line in lines) for name in ("prompts", "responses")}
    return {"name": scores.name, **totals, "unscored": scores.unscored, "groups": lines, **summary}


def compare(baseline: Scores, model: Scores, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return the model minus the baseline over their common prompts: overall, per preference group, and in summary.

    `p` is the paired permutation test's; `statistics.correct` fills in `p_holm`.

    Raises:
        DataError: They share no prompt, or a prompt_id has another prompt or group in each.
    """
    ours, theirs = baseline.prompts, model.prompts
    both = ours.merge(theirs, on="prompt_id", suffixes=("", "_other"))
    check_same_prompts(both, baseline.name, model.name)
    rng = np.random.default_rng(seed)

    def line(rows: pd.DataFrame) -> tuple[dict[str, Any], Floats | None]:
        one, two = rows["value"].to_numpy(), rows["value_other"].to_numpy()
        boot, low, high = _bootstrap(np.stack([one, two, two - one]), resamples, rng)
        p = st.sign_flip_test(two - one, resamples, rng)
        difference = {"prompts": len(rows), "difference": float((two - one).mean()), "low": low, "high": high, "p": p}
        return difference, boot

    lines, drawn, means = [], [], []
    for group, rows in both.groupby("preference_group"):
        difference, boot = line(rows)
        lines.append({"group": group, **difference, "p_holm": None})
        drawn.append(None if boot is None else boot[:2])
        means.append(rows[["value", "value_other"]].mean())
    table = np.array(means)  # (groups, 2)
    resampled = _stack(drawn)
    summary = {}
    for name, function in st.SUMMARIES.items():
        low, high = (None, None)
        if resampled is not None:
            low, high = st.percentile_interval(function(resampled[1]) - function(resampled[0]))
        moved = float(function(table[:, 1]) - function(table[:, 0]))
        summary[name] = {"difference": moved, "low": low, "high": high}
    unmatched = len(ours) + len(theirs) - 2 * len(both)
    names = {"baseline": baseline.name, "model": model.name, "unmatched": unmatched}
    return {**names, "overall": line(both)[0], "groups": lines, **summary}


def _bootstrap(
    values: Floats, resamples: int, rng: np.random.Generator
) -> tuple[Floats | None, float | None, float | None]:
    """Resampled means of (rows, prompts) values and the interval of the last row; None for too few prompts."""
    if values.shape[-1] < st.MIN_PROMPTS:
        return None, None, None
    means, low, high = st.bootstrap_mean(values, resamples, rng)
    return means, _finite(low[-1]), _finite(high[-1])


def _stack(means: Sequence[Floats | None]) -> Floats | None:
    """Resampled means by group as (rows, resamples, groups); None if a group has too few prompts for them."""
    found = [one for one in means if one is not None]
    return np.stack(found, axis=-1) if len(found) == len(means) else None


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
