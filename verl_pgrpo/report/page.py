# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Render the report as one self-contained HTML page.

Labels, prompts and responses come from users and models: Jinja escapes all of it, the data for the page's script is
JSON without `<`, and a Content-Security-Policy allows no other script and no request.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import verl_pgrpo
from verl_pgrpo.errors import DataError
from verl_pgrpo.report import configuration, narrative
from verl_pgrpo.report.charts import draw
from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.curves import Curves
from verl_pgrpo.report.figures import Figures
from verl_pgrpo.report.history_snapshot import FEW, HistorySnapshot
from verl_pgrpo.report.samples import find_samples, groups_to_show

TEMPLATES = Path(__file__).parent / "templates"
TABLE_ROWS = 6000
HISTORY_CHARTS = 6  # groups
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # not allowed in HTML; tab and newline are


@dataclass(frozen=True)
class Report:
    """All data for the page and for `--json`.

    Attributes:
        samples: by index of the group.
        snapshots: reward history of the first run of each arm.
        problems: descriptions of what could not be read.
    """

    comparison: Comparison
    samples: dict[int, list[dict[str, Any]]]
    snapshots: list[HistorySnapshot | None]
    problems: list[str] = field(default_factory=list)

    @cached_property
    def cautions(self) -> list[str]:
        return narrative.cautions(self.comparison) + self.problems

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """A row per group, the ranked ones first, the worst of the baseline before the others."""
        comparison = self.comparison
        change = None if comparison.ours is None else comparison.change(comparison.ours)
        snapshot = next((one for one in self.snapshots if one is not None), None)
        order = np.argsort(np.where(comparison.ranked, comparison.ends[comparison.baseline], np.inf), kind="stable")
        return [
            {
                "group": group,
                "label": comparison.labels[group],
                "share": float(comparison.share[group]),
                "responses": int(comparison.responses[group]),
                "ends": [float(values[group]) for values in comparison.ends],
                "change": None if change is None else float(change[0][group]),
                "error": None if change is None else float(change[1][group]),
                "history": None if snapshot is None else int(snapshot.count[group]),
                "ranked": bool(comparison.ranked[group]),
            }
            for group in order.tolist()
        ]


def make_report(comparison: Comparison, samples_of: Sequence[str] = ()) -> Report:
    """Add samples and reward histories to a comparison.

    Args:
        samples_of: groups whose samples are always shown.

    Raises:
        DataError: no such group.
    """
    for name in samples_of:
        if name not in comparison.labels:
            raise DataError(f"--samples-of {name!r}: not one of the {len(comparison.labels):,} groups")
    chosen = groups_to_show(comparison, [comparison.labels.index(name) for name in samples_of])
    problems = [problem for run in comparison.runs for problem in run.folder.problems]
    snapshots = [HistorySnapshot.read(arm.runs[0], comparison.labels, problems) for arm in comparison.arms]
    return Report(comparison, find_samples(comparison, chosen), snapshots, problems)


def render(report: Report) -> str:
    """Render the page."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_without_control,
    )
    environment.filters.update(number=narrative.number, percent=narrative.percent)
    comparison = report.comparison
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    figures = Figures(comparison, Curves(comparison))
    table = report.rows[:TABLE_ROWS]
    return environment.get_template("page.html.j2").render(
        report=report,
        comparison=comparison,
        figures=figures,
        narrative=narrative,
        legend=[
            {"title": arm.title, "color": figures.color(i), "dash": " ".join(map(str, figures.dash(i)))}
            for i, arm in enumerate(comparison.arms)
        ],
        summaries=[comparison.summary(i) for i in range(len(comparison.arms))],
        small=figures.small(),
        rows=table,
        axes=draw(figures.picked_frame, []),
        history=figures.history(comparison.notable[:HISTORY_CHARTS]),
        snapshots=[(arm.title, one) for arm, one in zip(comparison.arms, report.snapshots, strict=True) if one],
        few=FEW,
        configuration=configuration,
        package=f"verl-pgrpo {verl_pgrpo.__version__}",
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),
        script=Markup(script),
        data=figures.picked([row["group"] for row in table]),
    )


def as_dict(report: Report) -> dict[str, Any]:
    """The numbers behind the headline and the tables, for programs; NaN where unknown."""
    comparison = report.comparison
    ours, arms = comparison.ours, comparison.arms
    gained, lost, unmoved = (None, None, None) if ours is None else comparison.gained_and_lost(ours)
    return {
        "headline": narrative.headline(comparison),
        "value": comparison.value,
        "meaning": narrative.value_meaning(comparison),
        "steps": [int(comparison.steps[0]), int(comparison.steps[-1])],
        "last_fifth": [int(comparison.last[0]), int(comparison.last[-1])],
        "groups": len(comparison.labels),
        "ranked": int(comparison.ranked.sum()),
        "focus": comparison.labels[comparison.focus],
        "baseline": arms[comparison.baseline].label,
        "ours": None if ours is None else arms[ours].label,
        "gained": gained,
        "lost": lost,
        "unmoved": unmoved,
        "arms": [
            {
                "label": arm.label,
                "estimator": arm.estimator,
                "runs": [str(run.folder.path) for run in arm.runs],
                "worst_group": comparison.labels[comparison.worst(i)],
                **{name.replace(" ", "_"): band.bounds() for name, band in comparison.summary(i).items()},
            }
            for i, arm in enumerate(arms)
        ],
        "by_group": [
            {
                "group": row["label"],
                **{name: row[name] for name in ("share", "responses", "ranked", "change", "error", "history")},
                "ends": {arm.label: end for arm, end in zip(arms, row["ends"], strict=True)},
            }
            for row in report.rows
        ],
        "cautions": report.cautions,
    }


def _without_control(value: Any) -> Any:
    return _CONTROL.sub("\ufffd", value.replace("\r\n", "\n")) if type(value) is str else value


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
