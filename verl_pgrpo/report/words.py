# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What the numbers say, in sentences; and what a reader must know to take them for what they are."""

from __future__ import annotations

import math

import numpy as np

from verl_pgrpo.report.comparison import ENOUGH, Comparison, Spread


def number(value: float | None, digits: int = 2) -> str:
    """A dash for what is not known; never "-0.00"."""
    if value is None or not math.isfinite(value):
        return "-"
    text = f"{value:,.{digits}f}"
    return text.lstrip("-") if not text.strip("-0.,") else text


def percent(value: float) -> str:
    return f"{value:.0%}" if value >= 0.095 else f"{value:.1%}" if value >= 0.00095 else f"{value:.2%}"


def spread_text(spread: Spread) -> str:
    """`0.61 (0.55 to 0.66)`"""
    if spread.low is None or spread.high is None:
        return number(spread.mean)
    return f"{number(spread.mean)} ({number(spread.low)} to {number(spread.high)})"


def value_name(compared: Comparison) -> str:
    return {
        "utility": "utility",
        "score": "reward",
        "standardized": "reward, standardized",
    }.get(compared.value, compared.value)


def value_meaning(compared: Comparison) -> str:
    """What is compared, in one sentence."""
    if compared.value == "utility":
        return "Utility is what an answer is worth to the user, 0 useless to 1 perfect; it is not the noisy reward."
    if compared.value == "score":
        return "The value is the mean reward as the run saw it; groups may use different scales."
    if compared.value == "standardized":
        base = compared.arms[compared.baseline]
        rewards = "rewards"
        if any(run.responses.source == "validation" for run in base.runs):
            rewards = "validations' mean rewards"  # how many responses each is of is not logged
        return (
            f"Users rate on scales of their own, so a group's value is its mean reward minus the mean of its {rewards} "
            f"in steps {compared.first[0]:,} to {compared.first[-1]:,} of {base.title}, in units of the standard "
            f"deviation of those {rewards}: 0 is where the group began (of fewer than {ENOUGH} {rewards} there: in "
            "units of the mean spread within groups)."
        )
    return f"The value is the mean of the field {compared.value!r} of the rollouts."


def headline(compared: Comparison) -> str:
    """The one sentence: what became of the group that is worst off."""
    focus, base, ours = compared.focus, compared.baseline, compared.ours
    name, share = compared.labels[focus], percent(float(compared.share[focus]))
    before, end = compared.arms[base].title, number(float(compared.ends[base][focus]))
    if ours is None:
        return f"With {before} the worst group, {name} ({share} of the responses), {_ends_at(compared, end)}."
    now, title = number(float(compared.ends[ours][focus])), compared.arms[ours].title
    said = (
        f"The group that {before} serves worst, {name} ({share} of the responses), {_ends_at(compared, now)} "
        f"with {title}, against {end} with {before}."
    )
    worst = compared.worst(ours)
    if worst != focus and compared.ends[ours][worst] < compared.ends[base][focus]:
        said += (
            f" But {title} leaves another group worse off than that: {compared.labels[worst]}, "
            f"{number(float(compared.ends[ours][worst]))}, against {number(float(compared.ends[base][worst]))}."
        )
    return said


def _ends_at(compared: Comparison, end: str) -> str:
    if compared.value == "standardized":
        return f"ends at {end} standard deviations from its start"
    return f"ends at a mean {value_name(compared)} of {end}"


def findings(compared: Comparison) -> list[str]:
    """What else is to be said at once: the worst group under the other arm, the mean, who gained and who lost."""
    ours, base = compared.ours, compared.baseline
    if ours is None:
        summary = compared.summary(base)
        return [
            f"Mean over groups: {spread_text(summary['mean'])}; between best and worst: {spread_text(summary['gap'])}."
        ]
    worst, (mine, theirs) = compared.worst(ours), (compared.arms[ours].title, compared.arms[base].title)
    summaries = compared.summary(ours), compared.summary(base)
    lines = []
    if worst != compared.focus:
        lines.append(
            f"The worst group with {mine} is {compared.labels[worst]} ({percent(float(compared.share[worst]))}): "
            f"{number(float(compared.ends[ours][worst]))} (with {theirs}: {number(float(compared.ends[base][worst]))})."
        )
    else:
        lines.append(f"It is the worst group with {mine}, too.")
    means = [number(summary["mean"].mean) for summary in summaries]
    gaps = [number(summary["gap"].mean) for summary in summaries]
    lines.append(f"Mean over groups: {means[0]} with {mine}, {means[1]} with {theirs}.")
    lines.append(f"Between the best and the worst group: {gaps[0]} with {mine}, {gaps[1]} with {theirs}.")
    if "worst tenth" in summaries[0]:
        tenths = [number(summary["worst tenth"].mean) for summary in summaries]
        lines.append(f"Mean of the worst tenth of the groups: {tenths[0]} with {mine}, {tenths[1]} with {theirs}.")
    gained, lost, others = compared.gained_and_lost(ours)
    lines.append(
        f"{gained:,} of {int(compared.ranked.sum()):,} groups gained, {lost:,} lost, {others:,} did not move by more "
        "than twice the standard error."
    )
    return lines


def cautions(compared: Comparison) -> list[str]:
    """What the numbers do not say."""
    lines = []
    seeds = [len(arm.runs) for arm in compared.arms]
    if min(seeds) == 1:
        lines.append("An arm has a single run: another seed may give other numbers. Give several runs of an arm.")
    ranked = int(compared.ranked.sum())
    where = "the last fifth of every arm"
    if compared.value == "standardized":
        where += f" and the first fifth of {compared.arms[compared.baseline].title}"
    if ranked < len(compared.labels):
        lines.append(
            f"Ranked are the {ranked:,} of {len(compared.labels):,} groups with at least {_counted(compared.enough)} "
            f"in {where}; of the others too little is known."
        )
    elif compared.enough < ENOUGH:
        lines.append(
            f"Some groups have as few as {_counted(compared.enough)} in the last fifth: each alone is uncertain."
        )
    if "worst tenth" in compared.summary(compared.baseline) and compared.enough < ENOUGH:
        lines.append("Of many groups with few responses the worst is so in part by chance; the worst tenth says more.")
    if compared.disjoint:
        lines.append("The runs have no step in common; each is taken at the last fifth of its own.")
    elif compared.cut:
        lines.append(
            f"The runs are of different length; all are compared at steps {compared.last[0]:,} to "
            f"{compared.last[-1]:,}."
        )
    for arm in compared.arms:
        for run in arm.runs:
            found = run.responses
            if found.unknown:
                share = percent(found.unknown / (found.unknown + len(found.steps)))
                lines.append(
                    f"{arm.title}: {found.unknown:,} responses ({share}) of {run.folder.path} are of no known "
                    "preference group and are left out."
                )
            missing = int((~np.isfinite(found.value)).sum())
            if missing:
                rows = "response" if found.source == "rollouts" else "logged mean"
                what = "reward" if compared.value in ("score", "standardized") else value_name(compared)
                lines.append(
                    f"{arm.title}: {_counted(missing, rows)} ({percent(missing / len(found.value))}) of "
                    f"{run.folder.path} without a finite {what} {'is' if missing == 1 else 'are'} left out."
                )
            if run.other_groups:
                lines.append(
                    f"{arm.title}: the reward history of {run.folder.path} is of other groups than those compared, and "
                    "is not shown."
                )
            if found.source != "rollouts":
                lines.append(
                    f"{arm.title}: {run.folder.path} has no rollouts that can be read; its groups are known from its "
                    f"{found.source} only."
                )
    return lines


def _counted(count: int, what: str = "response") -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def band_meaning(compared: Comparison) -> str:
    """What the bands show; empty without any."""
    seeds = {arm.title: len(arm.runs) for arm in compared.arms}
    if max(seeds.values()) < 2:
        return ""
    said = ", ".join(f"{title} {count}" for title, count in seeds.items())
    kinds = {
        "smallest to largest" if count < 5 else "95 % interval of the mean" for count in seeds.values() if count > 1
    }
    if len(kinds) > 1:
        kinds = {"smallest to largest below 5 seeds, 95 % interval of the mean from 5 on"}
    return f"Lines are means over seeds, bands: {kinds.pop()} (seeds: {said})."
