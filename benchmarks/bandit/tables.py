# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Format outcomes as Markdown tables. Utilities are in hundredths."""

from __future__ import annotations

import numpy as np

from benchmarks.bandit.measures import MEASURES, Floats, half_width, measures, reached, signed, signed_pair
from benchmarks.bandit.task import Setting
from benchmarks.bandit.train import STEP_SIZES, Outcome

Results = dict[Setting, dict[str, Outcome]]


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def gain(outcomes: dict[str, Outcome], name: str, over: str = "grpo") -> Floats:
    """(seeds, measures) of one entrant minus those of another, each with its own step size."""
    return measures(outcomes[name]) - measures(outcomes[over])


def mean_gain(results: Results, name: str, over: str = "grpo") -> Floats:
    """The same, averaged over settings for each seed."""
    return np.mean([gain(outcomes, name, over) for outcomes in results.values()], 0)


def close_up(outcomes: dict[str, Outcome]) -> str:
    """All measures of all entrants in one setting."""
    rows = []
    for name, outcome in outcomes.items():
        values = measures(outcome)[:, :4]
        cells = [f"{mean:.1f} ± {half:.1f}" for mean, half in zip(values.mean(0), half_width(values), strict=True)]
        steps = reached(outcome.curves, outcomes["grpo"].curves)
        at_grpos = measures(outcome, at_grpos=True) - measures(outcomes["grpo"])
        there = f"{steps:.0f}" if np.isfinite(steps) else "never"
        rows.append(
            [name, f"{outcome.step_size:.3g}", *cells, there, signed_pair(gain(outcomes, name)), signed_pair(at_grpos)]
        )
        if name == "grpo":
            rows[-1][-2:] = ["", ""]
    head = [
        "estimator",
        "step size",
        *MEASURES[:4],
        "steps to grpo's end",
        "minus grpo: mean / worst",
        "at grpo's step size",
    ]
    return table(head, rows)


def summary(results: Results) -> str:
    """All entrants over all settings: gains over grpo, and in how many settings the worst group is clearly better."""
    rows = []
    for name in next(iter(results.values())):
        if name == "grpo":
            continue
        overall = mean_gain(results, name)
        at_grpos = np.mean([measures(o[name], at_grpos=True) - measures(o["grpo"]) for o in results.values()], 0)
        worst = np.array([gain(outcomes, name)[:, 1] for outcomes in results.values()]).T
        clear = np.abs(worst.mean(0)) > half_width(worst)
        up, down = (int((clear & (sign * worst.mean(0) > 0)).sum()) for sign in (1, -1))
        cells = [signed(overall[:, k]) for k in range(4)]
        rows.append([name, *cells, signed_pair(at_grpos), f"{up} / {down}"])
    counted = f"worst better / worse, of {len(results)}"
    return table(["minus grpo", *MEASURES[:4], "mean / worst at grpo's step size", counted], rows)


def safety(results: Results, over: str = "grpo", only: str | None = None) -> str:
    """Every entrant's gains over one of them: the average, the worst setting, and the settings that are clearly worse.

    Mean over groups / worst group / mean weighted by the groups' shares. Clearly worse: by more than the interval.
    """
    columns = [MEASURES.index(name) for name in ("mean", "worst", "weighted")]
    rows = []
    names = [name for name in next(iter(results.values())) if name != over]
    for name in names if only is None else [only]:
        # (seeds, settings, 3)
        gains = np.stack([gain(outcomes, name, over)[:, columns] for outcomes in results.values()], 1)
        mean, half = gains.mean(0), half_width(gains)
        average = " / ".join(signed(gains.mean(1)[:, k]) for k in range(3))
        lowest = " / ".join(f"{value:+.1f}" for value in mean.min(0))
        better, worse = (" / ".join(map(str, (s * mean > half).sum(0))) for s in (1, -1))
        rows.append([name, average, lowest, better, worse])
    counts = [f"clearly {which}, of {len(results)}" for which in ("better", "worse")]
    return table([f"minus {over}: mean / worst / weighted", "average", "worst setting", *counts], rows)


def clearly_worse(results: Results, name: str, over: str) -> str:
    """The settings in which an entrant is clearly worse than another in the mean or the worst group."""
    lines = []
    for setting, outcomes in results.items():
        gains = gain(outcomes, name, over)[:, :2]
        if (-gains.mean(0) > half_width(gains)).any():
            lines.append(f"- {setting}: {signed_pair(gains)}")
    return f"Clearly worse than {over!r}, {name!r} ({len(lines)} of {len(results)} settings):\n\n" + "\n".join(lines)


def halves(results: Results, names: list[str], over: str) -> str:
    """Gains over one entrant, mean / worst, on all settings and on those with and without mood."""
    parts = {f"all {len(results)} settings": results}
    for mood in (0.0, 1.0):
        parts[f"mood {mood:g}"] = {s: outcomes for s, outcomes in results.items() if s.mood == mood}
    rows = [[name, *(signed_pair(mean_gain(part, name, over)) for part in parts.values())] for name in names]
    return table([f"minus {over}", *parts], rows)


def slices(results: Results, names: list[str]) -> str:
    """Gains over grpo, mean / worst, averaged over the settings that share a property."""
    rows = []
    for title, keep in {
        **{
            f"{reward}, mood {mood:g}": {"reward": reward, "mood": mood}
            for reward in ("dense", "sparse")
            for mood in (0.0, 1.0)
        },
        **{f"n = {n}, mood {mood:g}": {"n": n, "mood": mood} for mood in (0.0, 1.0) for n in (2, 4, 8, 16)},
        **{
            f"noise {noise:g}, mood {mood:g}": {"noise": noise, "mood": mood}
            for mood in (0.0, 1.0)
            for noise in (0.0, 0.3, 1.0)
        },
    }.items():
        part = {s: o for s, o in results.items() if all(getattr(s, key) == value for key, value in keep.items())}
        rows.append([title, *(signed_pair(mean_gain(part, name)) for name in names)])
    return table(["settings", *names], rows)


def by_setting(results: Results, names: list[str], keys: tuple[str, ...], over: str = "grpo") -> str:
    """Every setting: the mean / worst of one entrant, and the others' gains over it."""
    rows = []
    for setting, outcomes in results.items():
        base = measures(outcomes[over]).mean(0)
        labels = [value if isinstance(value, str) else f"{value:.2g}" for value in (getattr(setting, k) for k in keys)]
        rows.append(
            [*labels, f"{base[0]:.0f} / {base[1]:.0f}", *(signed_pair(gain(outcomes, name, over)) for name in names)]
        )
    return table([*(key.replace("_", " ") for key in keys), over, *names], rows)


def versus(results: Results, over: str, area: bool = False) -> str:
    """Every entrant (rows) minus `over`, mean / worst, in every setting (columns): at the end or over all steps."""
    columns = [2, 3] if area else [0, 1]
    names = [name for name in next(iter(results.values())) if name != over]
    rows = [
        [name, *(signed_pair(gain(outcomes, name, over)[:, columns]) for outcomes in results.values())]
        for name in names
    ]
    settings = [f"{s}, {s.optimizer}" if s.optimizer == "adam" else str(s) for s in results]
    return table([f"minus {over}", *settings], rows)


def edges(results: Results) -> str:
    """Count the chosen step sizes at an end of the range, beyond which there may be a better one."""
    at_end = [
        outcome.step_size in (STEP_SIZES[setting.optimizer][0], STEP_SIZES[setting.optimizer][-1])
        for setting, outcomes in results.items()
        for outcome in outcomes.values()
    ]
    return f"{sum(at_end)} of {len(at_end)} chosen step sizes lie at an end of the range that was tried."
