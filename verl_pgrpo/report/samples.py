# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the arms answered to a group's users, side by side: to the same prompt where they were asked the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.dumps import dump_files, read_step
from verl_pgrpo.report.responses import Groups, value_of

LONGEST = 1200  # characters of a text that are shown
ANSWERS = 2  # of an arm to a prompt
PROMPTS = {"first": 1, "last": 2}  # of a group, from the first and from the last fifth of the steps

Rows = dict[str, dict[str, list[dict[str, Any]]]]  # by group and prompt


@dataclass(frozen=True)
class Answer:
    text: str
    score: float
    value: float | None


@dataclass(frozen=True)
class Asked:
    """A prompt in a step, and what each arm (by number) answered. `same`: all arms were asked it in this step."""

    part: str
    step: int
    prompt: str
    same: bool
    answers: dict[int, list[Answer]]


def chosen_groups(compared: Comparison, wanted: Sequence[int] = ()) -> list[int]:
    """Whose samples are shown: all of few groups; else those asked for, the worst, the largest, the most moved."""
    if len(compared.labels) <= 12:
        others = sorted(range(len(compared.labels)), key=lambda group: -compared.share[group])
        return list(dict.fromkeys([*wanted, compared.focus, *others]))
    found = [*wanted, compared.focus, *(compared.worst(arm) for arm in range(len(compared.arms)))]
    if compared.ours is not None:
        change, _ = compared.change(compared.ours)
        moved = [g for g in change.argsort().tolist() if compared.ranked[g] and change[g] == change[g]]
        found += [*moved[-1:], *moved[:1]]
    return list(dict.fromkeys([*found, *(-compared.share).argsort()[:3].tolist()]))[:24]


def find_samples(compared: Comparison, groups_of: Sequence[Groups | None], chosen: list[int]) -> dict[int, list[Asked]]:
    """Samples of the chosen groups from the first run of each arm, the first fifth of the steps before the last.

    Args:
        groups_of: of each arm's first run, where its responses' preference groups stand; None without dumps.
    """
    files = [
        {int(file.stem): file for file in dump_files(arm.runs[0].folder.rollouts)}
        if groups is not None and arm.runs[0].folder.rollouts is not None
        else {}
        for arm, groups in zip(compared.arms, groups_of, strict=True)
    ]
    found: dict[int, list[Asked]] = {group: [] for group in chosen}
    for part, steps in (("first", compared.first.tolist()), ("last", compared.last.tolist()[::-1])):
        kept: dict[int, list[Asked]] = {group: [] for group in chosen}
        alone: dict[int, dict[int, Asked]] = {group: {} for group in chosen}
        for step in steps:
            missing = [group for group in chosen if len(kept[group]) < PROMPTS[part]]
            if not missing:
                break
            read = {
                arm: _rows(files[arm][step], groups)
                for arm, groups in enumerate(groups_of)
                if groups is not None and step in files[arm]
            }
            for group in missing:
                _take(compared, part, step, group, read, kept[group], alone[group], sum(map(bool, files)))
        for group in chosen:
            found[group] += kept[group] or list(alone[group].values())
    return {group: asked for group, asked in found.items() if asked}


def _take(
    compared: Comparison,
    part: str,
    step: int,
    group: int,
    read: dict[int, Rows],
    kept: list[Asked],
    alone: dict[int, Asked],
    arms: int,
) -> None:
    """Prompts of one step that all arms were asked; failing that, the first that each arm was."""
    prompts = {arm: rows.get(compared.labels[group], {}) for arm, rows in read.items()}
    if len(prompts) == arms:
        first = next(iter(prompts.values()), {})
        for prompt in first:
            if len(kept) < PROMPTS[part] and all(prompt in other for other in prompts.values()):
                answers = {arm: _answers(compared, other[prompt]) for arm, other in prompts.items()}
                kept.append(Asked(part, step, _short(prompt), arms > 1, answers))
    for arm, other in prompts.items():
        if other and arm not in alone:
            prompt, rows = next(iter(other.items()))
            alone[arm] = Asked(part, step, _short(prompt), False, {arm: _answers(compared, rows)})


def _rows(file: Path, groups: Groups) -> Rows:
    step = read_step(file, groups)
    found: Rows = {}
    for group, row in zip(step.groups, step.rows, strict=True):
        found.setdefault(group, {}).setdefault(str(row.get("input", "")), []).append(row)
    return found


def _answers(compared: Comparison, rows: list[dict[str, Any]]) -> list[Answer]:
    shown = []
    for row in rows[:ANSWERS]:
        value = None if compared.value in ("score", "standardized") else value_of(row, compared.value)
        shown.append(Answer(_short(str(row["output"])), float(row["score"]), value))
    return shown


def _short(text: str) -> str:
    rest = len(text) - LONGEST
    return text if rest <= 0 else f"{text[:LONGEST]} … ({rest:,} more characters)"
