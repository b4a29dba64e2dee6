# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The report: one HTML page that needs nothing but itself.

Labels, prompts and responses are text of strangers: Jinja escapes all of it, what the page's script reads is JSON
without `<`, and a Content-Security-Policy lets no other script run and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

import verl_pgrpo
from verl_pgrpo.report import words
from verl_pgrpo.report.comparison import Comparison, Spread
from verl_pgrpo.report.figures import Figures
from verl_pgrpo.report.past import FEW, Past, lag
from verl_pgrpo.report.samples import Asked
from verl_pgrpo.report.settings import as_json, differences, settings, versions
from verl_pgrpo.report.smoothing import Curves

TEMPLATES = Path(__file__).parent / "templates"
PICKED_CHARACTERS = 900_000  # of the curves of all groups, two a point
TABLE_ROWS = 6000
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
_LEVELS = 36 * 36 - 2
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")  # not tab and newline; lone surrogates


@dataclass(frozen=True)
class Page:
    """What the page is made of."""

    compared: Comparison
    samples: dict[int, list[Asked]]
    pasts: list[Past | None]  # of each arm's first run
    command: str
    problems: list[str] = field(default_factory=list)
    title: str = "What each preference group got"


def render(page: Page) -> str:
    """The whole page."""
    style, script = ((TEMPLATES / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, finalize=lambda value: value if isinstance(value, Markup) else clean(value),
    )  # fmt: skip
    environment.filters.update(number=words.number, percent=words.percent, spread=words.spread_text)
    template = environment.get_template("page.html.j2")
    context = _context(page)
    return template.render(
        **context,
        policy=f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'",
        style=Markup(style),
        script=Markup(script),
        data=Markup(as_json(context["picked"])),
    )


def write(html: str, out: Path) -> None:
    """Under its name the page is whole or not there."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with open(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(html)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, out)
    except BaseException:
        os.unlink(temporary)
        raise


def clean(value: Any) -> Any:
    """Text without control characters, which HTML does not allow."""
    return _CONTROL.sub("\ufffd", value.replace("\r\n", "\n")) if isinstance(value, str) else value


def _context(page: Page) -> dict[str, Any]:
    compared = page.compared
    curves = Curves(compared)
    figures = Figures(compared, curves)
    named = [*dict.fromkeys([compared.focus, *(compared.worst(a) for a in range(len(compared.arms)))])]
    largest = np.argsort(-compared.share, kind="stable").tolist()
    past_groups = list(dict.fromkeys([*named, *largest]))[:6]
    small = figures.small()
    pasts = [(arm.title, past) for arm, past in zip(compared.arms, page.pasts, strict=True) if past is not None]
    return {
        "page": page,
        "compared": compared,
        "headline": words.headline(compared),
        "findings": words.findings(compared),
        "cautions": words.cautions(compared),
        "meaning": words.value_meaning(compared),
        "value_name": words.value_name(compared),
        "band": words.band_meaning(compared),
        "legend": [
            {"name": arm.title, "color": figures.color(i), "dash": figures.dash(i), "seeds": len(arm.runs), "arm": i}
            for i, arm in enumerate(compared.arms)
        ],
        "summaries": [(arm.title, len(arm.runs), compared.summary(i)) for i, arm in enumerate(compared.arms)],
        "main": figures.main(),
        "small": small,
        "group_rows": _group_rows(page)[:TABLE_ROWS],
        "picked": _picked(compared, curves, figures),
        "picked_frame": figures.picked_frame(),
        "past": figures.past(past_groups),
        "cold": figures.cold(),
        "lags": _lags(compared, past_groups),
        "pasts": [(title, past, past.few(), _sizes(past)) for title, past in pasts],
        "few": FEW,
        "settings": settings(compared),
        "differences": differences(compared),
        "versions": versions(),
        "made_by": f"verl-pgrpo {verl_pgrpo.__version__}",
    }


def _group_rows(page: Page) -> list[dict[str, Any]]:
    """A line per group, the worst of the baseline first."""
    compared = page.compared
    change = None if compared.ours is None else compared.change(compared.ours)
    past = next((past for past in page.pasts if past is not None), None)
    return [
        {
            "group": group,
            "label": compared.labels[group],
            "share": float(compared.share[group]),
            "responses": int(compared.responses[group]),
            "ends": [float(values[group]) for values in compared.ends],
            "change": None if change is None else float(change[0][group]),
            "error": None if change is None else float(change[1][group]),
            "rewards": None if past is None else int(past.count[group]),
            "ranked": bool(compared.ranked[group]),
        }
        for group in _group_order(compared)
    ]


def _picked(compared: Comparison, curves: Curves, figures: Figures) -> dict[str, Any]:
    """Every group's curves, two characters a point, for the chart of the group that the reader picks."""
    seeds = [len(arm.runs) for arm in compared.arms]
    lines = sum(3 if count > 1 else 1 for count in seeds)
    order = _group_order(compared)[:TABLE_ROWS]
    points = int(np.clip(PICKED_CHARACTERS // (2 * lines * len(order)), 8, len(curves.at)))
    places = np.unique(np.linspace(0, len(curves.at) - 1, points).round().astype(int))
    frame = figures.picked_frame()
    rows = {}
    for group in order:
        parts = []
        for arm in range(len(compared.arms)):
            curve = curves.group(arm, group)
            parts += [_encoded(v[places], figures.y) for v in (curve.line, curve.low, curve.high) if v is not None]
        rows[str(group)] = parts
    return {
        "x": np.round(frame.px(curves.at[places]), 1).tolist(),
        "top": frame.top,
        "bottom": frame.height - frame.bottom,
        "levels": _LEVELS,
        "bands": [count > 1 for count in seeds],
        "arms": [arm.title for arm in compared.arms],
        "curves": rows,
        "focus": compared.focus,
    }


def _group_order(compared: Comparison) -> list[int]:
    """Ranked groups first, the worst of the baseline before the others."""
    ends = compared.ends[compared.baseline]
    order: list[int] = np.argsort(np.where(compared.ranked, ends, np.inf), kind="stable").tolist()
    return order


def _encoded(values: np.ndarray, y: tuple[float, float]) -> str:
    """Places between the ends of the y axis as two digits of base 36; `zz` for what is not known."""
    part = np.clip((values - y[0]) / (y[1] - y[0]), 0.0, 1.0)
    known = np.isfinite(part)
    level = np.where(known, np.round(np.where(known, part, 0.0) * _LEVELS), 36 * 36 - 1).astype(int)
    return "".join(_DIGITS[one // 36] + _DIGITS[one % 36] for one in level.tolist())


def _lags(compared: Comparison, groups: list[int]) -> list[tuple[str, list[float]]]:
    """How far each group's rewards lie above its history, per arm with one; none where nothing is known."""
    arms = [arm.runs[0] for arm in compared.arms]
    rows = [
        (compared.labels[group], [lag(run, compared.labels[group], compared.last) for run in arms]) for group in groups
    ]
    return [row for row in rows if any(value == value for value in row[1])]


def _sizes(past: Past) -> list[tuple[str, int]]:
    """How many groups have how many rewards."""
    edges = [0, 1, 2, 10, 30, 100, 1000, np.inf]
    names = ["none", "1", "2 to 9", "10 to 29", "30 to 99", "100 to 999", "1,000 and more"]
    counts = np.histogram(past.count, bins=edges)[0].tolist()
    return list(zip(names, counts, strict=True))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def facts(page: Page) -> dict[str, Any]:
    """The numbers behind the headline and the tables, for programs; what is not known is None."""
    compared = page.compared
    gained = (None, None, None) if compared.ours is None else compared.gained_and_lost(compared.ours)
    return {
        "headline": words.headline(compared),
        "value": compared.value,
        "meaning": words.value_meaning(compared),
        "steps": [int(compared.steps[0]), int(compared.steps[-1])],
        "last_fifth": [int(compared.last[0]), int(compared.last[-1])],
        "groups": len(compared.labels),
        "ranked": int(compared.ranked.sum()),
        "focus": compared.labels[compared.focus],
        "baseline": compared.arms[compared.baseline].label,
        "ours": None if compared.ours is None else compared.arms[compared.ours].label,
        "gained": gained[0],
        "lost": gained[1],
        "unmoved": gained[2],
        "arms": [
            {
                "label": arm.label,
                "estimator": arm.estimator,
                "runs": [str(run.folder.path) for run in arm.runs],
                "worst_group": compared.labels[compared.worst(i)],
                **{name.replace(" ", "_"): _spread(spread) for name, spread in compared.summary(i).items()},
            }
            for i, arm in enumerate(compared.arms)
        ],
        "by_group": [
            {
                "group": row["label"],
                "share": row["share"],
                "responses": row["responses"],
                "ranked": row["ranked"],
                "ends": {arm.label: _known(end) for arm, end in zip(compared.arms, row["ends"], strict=True)},
            }
            for row in _group_rows(page)
        ],
        "cautions": words.cautions(compared) + page.problems,
    }


def _spread(spread: Spread) -> dict[str, float | None]:
    return {"mean": _known(spread.mean), "low": _known(spread.low), "high": _known(spread.high)}


def _known(value: float | None) -> float | None:
    return None if value is None or value != value else value
