# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Describe the results and their limitations in sentences."""

from __future__ import annotations

import math

import numpy as np

from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.pooling import ENOUGH, ConfidenceBand


def number(value: float | None, digits: int = 2) -> str:
    """Format a number; a dash if it is unknown, never "-0.00"."""
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:,.{digits}f}" if abs(value) < 1e9 else f"{value:.{digits}e}"
    return text.lstrip("-") if not text.strip("-0.,") else text


def percent(value: float) -> str:
    """Format a share with two significant digits at most."""
    return f"{value:.0%}" if value >= 0.095 or value == 0 else f"{value:.1%}" if value >= 0.00095 else f"{value:.2%}"


def with_band(band: ConfidenceBand) -> str:
    """Format a mean and its band: `0.61 (0.55 to 0.66)`."""
    mean, low, high = (float(bound) for bound in (band.mean, band.low, band.high))
    return f"{number(mean)} ({number(low)} to {number(high)})" if math.isfinite(low) else number(mean)


def counted(count: int, what: str = "response") -> str:
    """`1 response`, `2 responses`"""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def value_name(comparison: Comparison) -> str:
    """Name of what is compared."""
    names = {"score": "reward", "standardized": "reward, standardized"}
    return names.get(comparison.value, comparison.value)


def value_meaning(comparison: Comparison) -> str:
    """Explain what is compared, in one sentence."""
    if comparison.value == "utility":
        return "Utility is what a response is worth to the user, from 0 (useless) to 1 (perfect), without rating noise."
    if comparison.value == "score":
        return "The value is the mean reward as in training; groups may use different scales."
    if comparison.value == "standardized":
        base = comparison.arms[comparison.baseline]
        whose = " (the first fifth of its own steps)" if comparison.disjoint else ""
        return (
            f"Users rate on different scales. A group's value is therefore its mean reward minus the mean of its "
            f"rewards in steps {comparison.start[0]:,} to {comparison.start[-1]:,} of {base.title}{whose}, divided by "
            f"their standard deviation: 0 is where the group started. Groups with fewer than {ENOUGH} rewards in these "
            "steps are divided by the standard deviation within all groups."
        )
    return f"The value is the mean of the field {comparison.value!r} of the rollouts."


def headline(comparison: Comparison) -> str:
    """State in one sentence what happened to the group that is worst off."""
    focus, base, ours = comparison.focus, comparison.baseline, _arm_in_question(comparison)
    name, share = comparison.labels[focus], percent(float(comparison.share[focus]))
    title, end = comparison.arms[base].title, number(float(comparison.ends[base][focus]))
    if ours is None:
        return f"The worst-off group with {title}, {name} ({share} of the responses), {_ends_at(comparison, end)}."
    our_title, our_end = comparison.arms[ours].title, number(float(comparison.ends[ours][focus]))
    text = (
        f"The worst-off group with {title}, {name} ({share} of the responses), {_ends_at(comparison, our_end)} with "
        f"{our_title}, compared with {end} with {title}."
    )
    worst = comparison.worst(ours)
    if worst != focus and comparison.ends[ours][worst] < comparison.ends[base][focus]:
        text += (
            f" But {our_title} leaves another group even worse off: {comparison.labels[worst]} ends at "
            f"{number(float(comparison.ends[ours][worst]))}, compared with "
            f"{number(float(comparison.ends[base][worst]))}."
        )
    return text


def _arm_in_question(comparison: Comparison) -> int | None:
    """`comparison.ours`, or None if it has no ranked group."""
    ours = comparison.ours
    return None if ours is None or np.isnan(comparison.ends[ours][comparison.ranked]).all() else ours


def _ends_at(comparison: Comparison, end: str) -> str:
    if comparison.value == "standardized":
        return f"ends {end} standard deviations from its start"
    return f"ends at a mean {value_name(comparison)} of {end}"


def findings(comparison: Comparison) -> list[str]:
    """State the other main results: worst group of the other arm, mean, gap, who gained and who lost."""
    ours, base = _arm_in_question(comparison), comparison.baseline
    theirs = comparison.summary(base)
    if ours is None:
        return [f"Mean over groups: {with_band(theirs['mean'])}. Best minus worst: {with_band(theirs['gap'])}."]
    worst, mine = comparison.worst(ours), comparison.summary(ours)
    our_title, title = comparison.arms[ours].title, comparison.arms[base].title
    if worst == comparison.focus:
        lines = [f"It is also the worst-off group with {our_title}."]
    else:
        lines = [
            f"The worst-off group with {our_title} is {comparison.labels[worst]} "
            f"({percent(float(comparison.share[worst]))}): {number(float(comparison.ends[ours][worst]))} "
            f"(with {title}: {number(float(comparison.ends[base][worst]))})."
        ]
    names = {"mean": "Mean over groups", "gap": "Best minus worst group", "worst tenth": "Mean of the worst tenth"}
    for key, name in names.items():
        if key in mine:
            values = number(float(mine[key].mean)), number(float(theirs[key].mean))
            lines.append(f"{name}: {values[0]} with {our_title}, {values[1]} with {title}.")
    gained, lost, unmoved = comparison.gained_and_lost(ours)
    ranked = int(comparison.ranked.sum())
    unknown = ranked - gained - lost - unmoved
    lines.append(
        f"{gained:,} of {ranked:,} groups gained, {lost:,} lost, and {unmoved:,} changed by less than twice the "
        f"standard error{f', which is unknown for {unknown:,}' if unknown else ''}."
    )
    return lines


def cautions(comparison: Comparison) -> list[str]:
    """State the limitations of the results."""
    lines = []
    if any(len(arm.runs) == 1 for arm in comparison.arms):
        lines.append(
            "At least one arm has a single run. Another seed may give other numbers; use several runs per arm."
        )
    ranked, groups, enough = int(comparison.ranked.sum()), len(comparison.labels), comparison.enough
    base, where = comparison.arms[comparison.baseline].title, "the last fifth of every arm"
    if comparison.value == "standardized":
        where += f" and in the first fifth of {base}"
    if not comparison.shared:
        lines.append(
            f"No group has responses in {where}; the arms may use different groups. Those of {base} are ranked."
        )
    elif ranked < groups:
        lines.append(
            f"Only the {ranked:,} of {groups:,} groups with at least {counted(enough)} in {where} are ranked; the "
            "others have too few."
        )
    elif enough < ENOUGH:
        lines.append(f"Some groups have as few as {counted(enough)} in the last fifth, so their values are uncertain.")
    if comparison.by_tenths and enough < ENOUGH:
        lines.append("With many groups and few responses, the worst group is partly chance; see the worst tenth.")
    if comparison.disjoint:
        lines.append("The runs have no common steps; each ends at the last fifth of its own steps.")
    elif comparison.cut:
        last = comparison.last
        lines.append(f"The runs differ in length; all are compared at steps {last[0]:,} to {last[-1]:,}.")
    for arm in comparison.arms:
        for run in arm.runs:
            where, known = f"{arm.title} ({run.folder.path})", float(run.cells["count"].sum())
            if run.unknown:
                share = percent(run.unknown / (run.unknown + run.missing + known))
                lines.append(f"{where}: {counted(run.unknown)} ({share}) without a known preference group left out.")
            if run.missing:
                what = "reward" if comparison.value in ("score", "standardized") else value_name(comparison)
                noun = "logged mean" if run.groups is None else "response"
                lines.append(f"{where}: {counted(run.missing, noun)} without a finite {what} left out.")
            if run.other_groups:
                lines.append(f"{where}: normalized by other groups than those compared, so its history is not shown.")
            if run.groups is None:
                lines.append(f"{where}: no readable rollouts, so its values are from its metrics only.")
    return lines


def band_meaning(comparison: Comparison) -> str:
    """Explain the bands; empty if there are none."""
    seeds = {arm.title: len(arm.runs) for arm in comparison.arms}
    several = [count for count in seeds.values() if count > 1]
    if not several:
        return ""
    kinds = ["smallest to largest"] * (min(several) < 5) + ["95 % interval of the mean"] * (max(several) >= 5)
    kind = kinds[0] if len(kinds) == 1 else f"{kinds[0]} below 5 seeds, {kinds[1]} from 5 on"
    counts = ", ".join(f"{title} {count}" for title, count in seeds.items())
    return f"Lines are means over seeds and bands show the {kind} (seeds: {counts})."
