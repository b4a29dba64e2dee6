# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Responses of the arms side by side: to the same prompt where they had the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd

from verl_pgrpo.evaluation.rollouts import Groups, read_dump
from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.loading import values_of

LONGEST = 1200  # characters of a text
RESPONSES = 2  # per arm and prompt
PROMPTS = {"first": 1, "last": 2}  # per group, from the first and from the last fifth of the steps


@dataclass(frozen=True)
class Response:
    """A response, its reward, and what is compared (None if that is the reward)."""

    text: str
    score: float
    value: float | None


@dataclass(frozen=True)
class Sample:
    """A prompt of a step and the responses of each arm (by index). `shared`: all arms had this prompt in this step."""

    part: str
    step: int
    prompt: str
    shared: bool
    responses: dict[int, list[Response]]


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


def find_samples(
    comparison: Comparison, groups_of: Sequence[Groups | None], chosen: Sequence[int]
) -> dict[int, list[Sample]]:
    """Find samples of the chosen groups in the first run of each arm.

    Args:
        groups_of: for the first run of each arm, how to look up groups in its dumps (None without dumps).
    """
    dumps = {
        arm: (run.folder.dumps.files, groups)
        for arm, (run, groups) in enumerate(zip((arm.runs[0] for arm in comparison.arms), groups_of, strict=True))
        if groups is not None and run.folder.dumps is not None
    }

    @lru_cache(maxsize=1)
    def read(step: int) -> dict[int, pd.DataFrame]:
        return {arm: read_dump(files[step], groups) for arm, (files, groups) in dumps.items() if step in files}

    found: dict[int, list[Sample]] = {group: [] for group in chosen}
    for part, steps in (("first", comparison.first.tolist()), ("last", comparison.last.tolist()[::-1])):
        shared: dict[int, list[Sample]] = {group: [] for group in chosen}
        alone: dict[int, dict[int, Sample]] = {group: {} for group in chosen}  # by arm, if no prompt is shared
        for step in steps:
            missing = [group for group in chosen if len(shared[group]) < PROMPTS[part]]
            for group in missing:
                own = {arm: rows[rows["group"] == comparison.labels[group]] for arm, rows in read(step).items()}
                prompts = {arm: dict.fromkeys(rows["input"]) for arm, rows in own.items()}
                common = [p for p in next(iter(prompts.values()), ()) if all(p in other for other in prompts.values())]
                for prompt in common[: PROMPTS[part] - len(shared[group])] if len(own) == len(dumps) else ():
                    responses = {arm: _responses(comparison, rows, prompt) for arm, rows in own.items()}
                    shared[group].append(Sample(part, step, _short(prompt), len(dumps) > 1, responses))
                for arm, prompt in ((arm, next(iter(own_prompts))) for arm, own_prompts in prompts.items() if own_prompts):
                    if arm not in alone[group]:
                        responses = {arm: _responses(comparison, own[arm], prompt)}
                        alone[group][arm] = Sample(part, step, _short(prompt), False, responses)
            if not missing:
                break
        for group in chosen:
            found[group] += shared[group] or list(alone[group].values())
    return {group: samples for group, samples in found.items() if samples}


def _responses(comparison: Comparison, rows: pd.DataFrame, prompt: str) -> list[Response]:
    rows = rows[rows["input"] == prompt].head(RESPONSES)
    same = comparison.value in ("score", "standardized")
    values = [None] * len(rows) if same else values_of(rows, comparison.value).tolist()
    return [
        Response(_short(text), float(score), value)
        for text, score, value in zip(rows["output"], rows["score"], values, strict=True)
    ]


def _short(text: str) -> str:
    text, rest = str(text), len(str(text)) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]} … ({rest:,} more characters)"
