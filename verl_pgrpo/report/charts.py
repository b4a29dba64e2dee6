# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Line charts, drawn by matplotlib as SVG elements for the page.

matplotlib's inline styles become attributes, which the page's CSS can override, for dark screens and for readable text
on phones. Charts contain numbers only; names are part of the page, which escapes them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from verl_pgrpo.report.narrative import number

# Okabe & Ito: distinct with every common color blindness and in gray. Each arm also has its own dash pattern.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ((7, 4), (), (2, 3), (10, 3, 2, 3), (12, 4), (4, 2))

_STYLE = {
    "font.size": 12,
    "svg.fonttype": "none",
    "svg.hashsalt": "verl-pgrpo",
    "lines.scale_dashes": False,
    "path.simplify_threshold": 0.2,
}
_CLASSES = "marked|band|raw|line|dots|end|grid"


@dataclass(frozen=True)
class Line:
    """One curve: steps and values (NaN where unknown), its band and its style."""

    color: str
    dash: tuple[int, ...]
    x: ArrayLike
    y: ArrayLike
    low: ArrayLike | None = None
    high: ArrayLike | None = None
    raw: tuple[ArrayLike, ArrayLike] | None = None
    dots: bool = False  # draw `raw` as dots, not as a line
    end: float | None = None  # the number at the end of the curve


@dataclass(frozen=True)
class Frame:
    """Size of a chart (in CSS pixels) and the range of its axes. `span`: steps to shade."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 520
    height: int = 290
    left: int = 42
    right: int = 60
    top: int = 10
    bottom: int = 28
    span: tuple[float, float] | None = None

    def px(self, steps: ArrayLike) -> NDArray[np.float64]:
        """Horizontal position of steps in the chart."""
        part = (np.asarray(steps, float) - self.x[0]) / (self.x[1] - self.x[0])
        return self.left + part * (self.width - self.left - self.right)


@dataclass(frozen=True)
class Chart:
    """A chart on the page. `summary` is what a screen reader reads; `header` and `rows` are the numbers behind it."""

    title: str
    summary: str
    svg: Markup
    note: str = ""
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def draw(frame: Frame, lines: Sequence[Line]) -> Markup:
    """Draw curves and return the content of an SVG element with the viewBox `0 0 width height`."""
    with rc_context(_STYLE):
        figure = Figure(figsize=(frame.width / 72, frame.height / 72))
        width, height = frame.width - frame.left - frame.right, frame.height - frame.top - frame.bottom
        axes = figure.add_axes(
            (frame.left / frame.width, frame.bottom / frame.height, width / frame.width, height / frame.height)
        )
        plot(axes, frame, lines)
        _label_ends(axes, frame, lines)
        file = io.StringIO()
        figure.savefig(
            file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")), transparent=True
        )
    return _plain_svg(file.getvalue())


def plot(axes: Axes, frame: Frame, lines: Sequence[Line]) -> None:
    """Plot curves into axes, with the frame's range, ticks and shaded steps. Sizes of the frame are not used."""
    axes.set(xlim=frame.x, ylim=frame.y, facecolor="none")
    axes.spines[:].set_visible(False)
    axes.tick_params(pad=5, bottom=False, left=False)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(axis="y", gid="grid", lw=1, color="#dddddd")
    if frame.span is not None:
        shortest = (frame.x[1] - frame.x[0]) / 200
        end = max(frame.span[1], frame.span[0] + shortest)
        axes.axvspan(frame.span[0], end, gid="marked", lw=0, color="#555555", alpha=0.08)
    for line in lines:
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=line.color, lw=0, alpha=0.17, gid="band")
        if line.raw is not None and line.dots:
            axes.scatter(*line.raw, s=8, color=line.color, lw=0, alpha=0.35, gid="dots")
        elif line.raw is not None:
            axes.plot(*line.raw, color=line.color, lw=1, alpha=0.25, gid="raw")
    for line in sorted(lines, key=lambda line: bool(line.dash)):  # dashes on top: both show where lines coincide
        axes.plot(
            line.x, line.y, color=line.color, lw=2.4, dashes=line.dash or (None, None), gid="line",
            solid_capstyle="round",
        )  # fmt: skip


def value_range(values: NDArray[np.float64], is_share: bool) -> tuple[float, float]:
    """The y axis for these values: from 0 to a round number for shares, else around all but the outliers."""
    known = values[np.isfinite(values)]
    if is_share or not len(known):
        highest = known.max() if len(known) else 1.0
        return 0.0, next((top for top in (0.1, 0.2, 0.3, 0.4, 0.6) if highest <= top), 1.0)
    low, high = np.quantile(known, [0.002, 0.998]) if len(known) > 2000 else (known.min(), known.max())
    margin = 0.06 * (high - low) or max(abs(float(high)), 1.0) * 0.1
    return float(low - margin), float(high + margin)


def _label_ends(axes: Axes, frame: Frame, lines: Sequence[Line]) -> None:
    """Write the numbers at the ends of the curves, at least 14 pixels apart."""
    scale = (frame.y[1] - frame.y[0]) / (frame.height - frame.top - frame.bottom)  # value per pixel
    labels = sorted((line.end, line.color) for line in lines if line.end is not None and np.isfinite(line.end))
    heights = [min(max(end, frame.y[0]), frame.y[1]) / scale for end, _ in labels]
    for i in range(1, len(heights)):
        heights[i] = max(heights[i], heights[i - 1] + 14)
    for i in reversed(range(len(heights))):  # move labels down that were pushed out at the top
        heights[i] = min(heights[i], frame.y[1] / scale - 14 * (len(heights) - 1 - i))
    for (end, color), height in zip(labels, heights, strict=True):
        at: dict[str, Any] = {
            "xy": (1, height * scale),
            "xycoords": ("axes fraction", "data"),
            "textcoords": "offset points",
        }
        axes.annotate("●", xytext=(4, -4), color=color, fontsize=12, gid="dots", **at)
        axes.annotate(number(end), xytext=(15, -4), fontsize=13, weight="bold", gid="end", **at)


def _plain_svg(text: str) -> Markup:
    """The content of matplotlib's SVG with attributes in place of styles, and classes in place of most ids."""

    def attributes(match: re.Match[str]) -> str:
        pairs = [pair.partition(":") for pair in match[1].split(";") if pair.strip()]
        kept = [(name.strip(), value.strip()) for name, _, value in pairs if not name.strip().startswith("font")]
        return " ".join(f'{name}="{value}"' for name, value in kept)

    text = text[text.index(">", text.index("<svg ")) + 1 : text.rindex("</svg>")]
    text = re.sub(r'style="([^"]*)"', attributes, re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL))
    text = re.sub(rf'id="({_CLASSES})"', r'class="\1"', text)
    text = re.sub(r' id="[\w.]+_\d+"|<!--.*?-->| transform="rotate\(-0 [^"]*"', "", text, flags=re.DOTALL)
    # A tenth of a pixel is enough. Numbers between tags are labels.
    text = re.sub(r'"[^"]*"', lambda match: re.sub(r"(\.\d)\d{2,}", r"\1", match[0]), text)
    return Markup(re.sub(r"\s+", " ", text))
