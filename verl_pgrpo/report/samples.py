# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Responses of the arms side by side: to the same prompt where they had the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from verl_pgrpo.evaluation.rollouts import read_dump
from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.loading import values_of

LONGEST = 1200  # characters of a text
RESPONSES = 2  # per arm and prompt
FROM_START, FROM_END = 1, 2  # prompts per group from the first and from the last fifth of the steps


def groups_to_show(comparison: Comparison, wanted: Sequence[int] = ()) -> list[int]:
    """Choose groups: all if there are few; else those asked for, the worst, the most changed and the largest."""
    largest = np.argsort(-comparison.share, kind="stable").tolist()
    found = [*wanted, comparison.focus]
    if len(comparison.labels) > 12:
        found += [comparison.worst(arm) for arm in range(len(comparison.arms))]
        if comparison.ours is not None:
            change, _ = comparison.change(comparison.ours)
            moved = [g for g in change.argsort().tolist() if comparison.ranked[g] and np.isfinite(change[g])]
            found += [*moved[-1:], *moved[:1]]
        largest = largest[:3]
    return list(dict.fromkeys([*found, *largest]))[:24]


def find_samples(comparison: Comparison, chosen: Sequence[int]) -> dict[int, list[dict[str, Any]]]:
    """Find samples of the chosen groups in the first run of each arm.

    Returns:
        By group a list of `step`, `prompt`, and `responses`: by arm those that it had, each with `text`, `score` and
        `value`, which is compared (None if that is the score).
    """
    dumps = {
        arm: (run.folder.dumps.files, run.groups)
        for arm, run in enumerate(arm.runs[0] for arm in comparison.arms)
        if run.groups is not None and run.folder.dumps is not None
    }
    found: dict[int, list[dict[str, Any]]] = {group: [] for group in chosen}
    for steps, wanted in ((comparison.first, FROM_START), (comparison.last[::-1], FROM_END)):
        shared: dict[int, list[dict[str, Any]]] = {group: [] for group in chosen}  # of prompts that all arms had
        alone: dict[int, dict[int, dict[str, Any]]] = {group: {} for group in chosen}  # else the first of each arm
        for step in steps.tolist():
            frames = {arm: read_dump(files[step], groups) for arm, (files, groups) in dumps.items() if step in files}
            for group in (group for group in chosen if len(shared[group]) < wanted):
                rows = {arm: rows[rows["group"] == comparison.labels[group]] for arm, rows in frames.items()}
                prompts = [set(own["input"]) for own in rows.values()]
                common = sorted(set.intersection(*prompts)) if prompts and len(prompts) == len(dumps) else []
                for prompt in common[: wanted - len(shared[group])]:
                    shared[group].append(_sample(comparison, step, prompt, rows))
                for arm, own in rows.items():
                    if len(own) and arm not in alone[group]:
                        alone[group][arm] = _sample(comparison, step, own["input"].iloc[0], {arm: own})
            if all(len(samples) >= wanted for samples in shared.values()):
                break
        for group in chosen:
            found[group] += shared[group] or list(alone[group].values())
    return {group: samples for group, samples in found.items() if samples}


def _sample(comparison: Comparison, step: int, prompt: str, rows: dict[int, pd.DataFrame]) -> dict[str, Any]:
    responses = {}
    for arm, own in rows.items():
        same = own[own["input"] == prompt].head(RESPONSES)
        compared = comparison.value not in ("score", "standardized")
        values = values_of(same, comparison.value).tolist() if compared else [None] * len(same)
        responses[arm] = [
            {"text": _short(text), "score": float(score), "value": value}
            for text, score, value in zip(same["output"], same["score"], values, strict=True)
        ]
    return {"step": step, "prompt": _short(prompt), "responses": responses}


def _short(text: Any) -> str:
    text, rest = str(text), len(str(text)) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]} … ({rest:,} more characters)"
