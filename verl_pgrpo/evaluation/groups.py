# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A model's scores per preference group, and two models' against each other, paired by prompt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.evaluation import statistics as st
from verl_pgrpo.evaluation.samples import Sample
from verl_pgrpo.evaluation.statistics import Floats

RESAMPLES = 9999
SIGNIFICANT = 1 - st.LEVEL


@dataclass(frozen=True)
class Scores:
    """One number of a model's responses. `prompts` maps preference group and prompt id to that prompt's responses,
    `texts` a prompt's id to what it says."""

    name: str
    prompts: dict[str, dict[str, Floats]]
    texts: dict[str, str]

    @classmethod
    def of(cls, name: str, samples: Iterable[Sample], value: str = "score") -> Scores:
        """Raises DataError where a response lacks the number, or a prompt_id has two prompts or groups."""
        groups: dict[str, str] = {}
        texts: dict[str, str] = {}
        found: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for sample in samples:
            number = sample.value(value)
            if number is None:
                there = ", ".join(sorted({"score", *sample.values} if sample.score is not None else sample.values))
                raise DataError(
                    f"{name}: the response to prompt {sample.prompt_id} has no number {value!r} (--value); "
                    f"it has {there or 'none: it was not scored'}"
                )
            if groups.setdefault(sample.prompt_id, sample.preference_group) != sample.preference_group:
                raise DataError(
                    f"{name}: prompt {sample.prompt_id} is of preference group {groups[sample.prompt_id]!r} and of "
                    f"{sample.preference_group!r}"
                )
            if texts.setdefault(sample.prompt_id, sample.prompt) != sample.prompt:
                raise DataError(
                    f"{name}: prompt_id {sample.prompt_id} has two prompts: {texts[sample.prompt_id]!r:.60} and "
                    f"{sample.prompt!r:.60}"
                )
            found[sample.preference_group][sample.prompt_id].append(number)
        return cls(name, {group: {p: np.array(v) for p, v in found[group].items()} for group in sorted(found)}, texts)

    @property
    def group_of(self) -> dict[str, str]:
        """The preference group of each prompt."""
        return {prompt: group for group, prompts in self.prompts.items() for prompt in prompts}

    def means(self, group: str, ids: Iterable[str] | None = None) -> Floats:
        """(prompts,) mean over each prompt's responses, of the prompts given or all."""
        prompts = self.prompts[group]
        return np.array([prompts[one].mean() for one in (prompts if ids is None else ids)])


def describe(scores: Scores, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """A model's numbers: a line per preference group, and what sums them up. `docs/evaluation.md` defines each."""
    rng = np.random.default_rng(seed)
    lines: list[dict[str, Any]] = []
    drawn, means = [], []
    for group, prompts in scores.prompts.items():
        values = scores.means(group)
        boot = st.bootstrap_means(values[:, None], resamples, rng)
        responses = np.concatenate(list(prompts.values()))
        low, high = _ends(st.mean_interval(values, boot[:, 0]))
        spread = float(responses.std(ddof=1)) if len(responses) > 1 else None
        line = {"group": group, "prompts": len(values), "responses": len(responses), "mean": float(values.mean())}
        lines.append({**line, "low": low, "high": high, "std": spread})
        drawn.append(boot[:, 0])
        means.append(values.mean())
    enough = all(line["prompts"] >= st.FEWEST for line in lines)
    summary = _summaries(np.array(means), np.stack(drawn, axis=-1) if enough else None)
    summary["worst_group"]["group"] = lines[int(np.argmin(means))]["group"]
    total = {name: sum(line[name] for line in lines) for name in ("prompts", "responses")}
    return {"name": scores.name, **total, "groups": lines, **summary}


def compare(baseline: Scores, model: Scores, seed: int = 0, resamples: int = RESAMPLES) -> dict[str, Any]:
    """The model minus the baseline over the prompts that both have, in all, per preference group and in summary.

    `p` is of the paired permutation test; `p_holm` is filled in by `correct`.

    Raises:
        DataError: they share no prompt, or one prompt has another text or group in each.
    """
    ours, theirs = baseline.group_of, model.group_of
    common = ours.keys() & theirs.keys()
    if not common:
        raise DataError(f"{baseline.name} and {model.name} share no prompt_id: were they evaluated on the same data?")
    for prompt in sorted(common):
        if ours[prompt] != theirs[prompt]:
            raise DataError(
                f"prompt {prompt} is of preference group {ours[prompt]!r} in {baseline.name} and of {theirs[prompt]!r} "
                f"in {model.name}"
            )
        if baseline.texts[prompt] != model.texts[prompt]:
            raise DataError(
                f"prompt_id {prompt} is another prompt in {baseline.name} than in {model.name}: other data?"
            )
    rng = np.random.default_rng(seed)
    flips = np.random.default_rng([seed, 1])
    shared = {group: [p for p in prompts if p in common] for group, prompts in baseline.prompts.items()}
    shared = {group: ids for group, ids in shared.items() if ids}
    # The smallest p that can come out must survive the correction for so many groups.
    permutations = max(resamples, 200 * len(shared))
    lines: list[dict[str, Any]] = []
    drawn, means, every = [], [], []
    for group, ids in shared.items():
        values = np.stack([baseline.means(group, ids), model.means(group, ids)], axis=1)
        difference = values[:, 1] - values[:, 0]
        boot = st.bootstrap_means(values, resamples, rng)
        low, high = _ends(st.mean_interval(difference, boot[:, 1] - boot[:, 0]))
        line = {"group": group, "prompts": len(ids), "difference": float(difference.mean()), "low": low, "high": high}
        lines.append({**line, "p": st.sign_flip_test(difference, permutations, flips), "p_holm": None})
        drawn.append(boot)
        means.append(values.mean(axis=0))
        every.append(difference)
    table = np.array(means)  # (groups, 2)
    enough = all(line["prompts"] >= st.FEWEST for line in lines)
    both = np.stack(drawn, axis=1) if enough else None  # (resamples, groups, 2)
    pooled = np.concatenate(every)
    low, high = _ends(st.mean_interval(pooled, st.bootstrap_means(pooled[:, None], resamples, rng)[:, 0]))
    overall = {"prompts": len(pooled), "difference": float(pooled.mean()), "low": low, "high": high}
    return {
        "baseline": baseline.name,
        "model": model.name,
        "unmatched": len(ours.keys() ^ theirs.keys()),
        "overall": {**overall, "p": st.sign_flip_test(pooled, permutations, flips)},
        "groups": lines,
        **_differences(table, both),
    }


def correct(comparisons: Sequence[dict[str, Any]]) -> None:
    """Fill in `p_holm` and `significant` over all preference groups of all comparisons: they are one family."""
    lines = [line for comparison in comparisons for line in comparison["groups"]]
    for line, corrected in zip(lines, st.holm([line["p"] for line in lines]), strict=True):
        line["p_holm"] = corrected
        line["significant"] = None if corrected is None else bool(corrected < SIGNIFICANT)


def _summaries(means: Floats, drawn: Floats | None) -> dict[str, dict[str, Any]]:
    """Of (groups,) means and their (resamples, groups) bootstrap."""
    found = {}
    for name, function in st.SUMMARIES.items():
        low, high = _ends(None if drawn is None else st.percentile_interval(function(drawn)))
        found[name] = {"value": float(function(means)), "low": low, "high": high}
    return found


def _differences(means: Floats, drawn: Floats | None) -> dict[str, dict[str, Any]]:
    """Second column minus first, of (groups, 2) means and their (resamples, groups, 2) bootstrap."""
    found = {}
    for name, function in st.SUMMARIES.items():
        moved = None if drawn is None else function(drawn[..., 1]) - function(drawn[..., 0])
        low, high = _ends(None if moved is None else st.percentile_interval(moved))
        found[name] = {"difference": float(function(means[:, 1]) - function(means[:, 0])), "low": low, "high": high}
    return found


def _ends(interval: st.Interval | None) -> tuple[float | None, float | None]:
    return interval if interval is not None else (None, None)
