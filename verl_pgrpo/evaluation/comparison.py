# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A model's scores per preference group, and the difference between two models, paired by prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation import statistics as st
from verl_pgrpo.evaluation.samples import Sample, check_same_prompts, to_frame
from verl_pgrpo.moments import Floats

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
    """Return a model's numbers: a line per preference group, and summaries over the groups; NaN where unknown.

    `docs/evaluation.md` defines each number.
    """
    rng = np.random.default_rng(seed)
    responses = scores.responses.groupby("preference_group")["value"]
    counts, spreads = responses.size(), responses.std()
    lines, drawn = [], []
    for group, prompts in scores.prompts.groupby("preference_group"):
        values = prompts["value"].to_numpy()
        means, [low], [high] = st.bootstrap_mean(values[None], resamples, rng)
        drawn.append(means[0])
        line = {"group": group, "prompts": len(values), "responses": int(counts[group]), "mean": values.mean()}
        lines.append({**line, "low": low, "high": high, "std": spreads[group]})
    observed, resampled = np.array([line["mean"] for line in lines]), np.stack(drawn, axis=-1)
    summary: dict[str, dict[str, Any]] = {
        name: {"value": float(function(observed)), **st.percentile_interval(function(resampled))}
        for name, function in st.SUMMARIES.items()
    }
    summary["worst_group"]["group"] = lines[int(observed.argmin())]["group"]
    totals = {name: sum(line[name] for line in lines) for name in ("prompts", "responses")}
    return {"name": scores.name, **totals, "unscored": scores.unscored, "groups": lines, **summary}


def compare(baseline: Scores, model: Scores, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """Return the model minus the baseline over their common prompts: overall, per preference group, and in summary.

    `p` is that of the paired permutation test; `statistics.correct` adds `p_holm`. NaN where unknown.

    Raises:
        DataError: They share no prompt, or a prompt_id has another prompt or group in each.
    """
    ours, theirs = baseline.prompts, model.prompts
    both = ours.merge(theirs, on="prompt_id", suffixes=("", "_other"))
    check_same_prompts(both, baseline.name, model.name)
    rng = np.random.default_rng(seed)

    def line(rows: pd.DataFrame) -> tuple[dict[str, Any], Floats]:
        one, two = rows["value"].to_numpy(), rows["value_other"].to_numpy()
        means, low, high = st.bootstrap_mean(np.stack([one, two, two - one]), resamples, rng)
        p = st.sign_flip_test(two - one, resamples, rng)
        found = {"prompts": len(rows), "difference": (two - one).mean(), "low": low[2], "high": high[2], "p": p}
        return found, means[:2]

    lines, drawn = [], []
    for group, rows in both.groupby("preference_group"):
        found, means = line(rows)
        lines.append({"group": group, **found})
        drawn.append(means)
    one, two = both.groupby("preference_group")[["value", "value_other"]].mean().to_numpy().T
    drawn_one, drawn_two = np.stack(drawn, axis=-1)
    summary = {
        name: {
            "difference": float(function(two) - function(one)),
            **st.percentile_interval(function(drawn_two) - function(drawn_one)),
        }
        for name, function in st.SUMMARIES.items()
    }
    unmatched = len(ours) + len(theirs) - 2 * len(both)
    names = {"baseline": baseline.name, "model": model.name, "unmatched": unmatched}
    return {**names, "overall": line(both)[0], "groups": lines, **summary}
