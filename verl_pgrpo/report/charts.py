# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Line charts as numbers and paths that the page's templates draw as SVG: no library, in the page or here."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

# Okabe & Ito: told apart with every common colour blindness, and in grey. Each arm has a dash pattern of its own too.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("7 4", "", "2 3", "10 3 2 3", "12 4", "4 2")


@dataclass(frozen=True)
class Mark:
    """What is drawn for one arm: a line, and where known a band around it and the raw values behind it."""

    name: str
    color: str
    dash: str
    line: str
    band: str = ""
    raw: str = ""
    dots: tuple[tuple[float, float], ...] = ()
    end: tuple[float, float] | None = None  # where its number is written
    end_text: str = ""


@dataclass(frozen=True)
class Frame:
    """Places values in a drawing of `width` by `height`."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = 520
    height: int = 290
    left: int = 42
    right: int = 60
    top: int = 10
    bottom: int = 28
    span: tuple[float, float] | None = None  # steps that are marked: those of which the numbers at the ends are

    def px(self, value: ArrayLike) -> NDArray[np.float64]:
        span = (self.x[1] - self.x[0]) or 1.0
        return self.left + (np.asarray(value, float) - self.x[0]) / span * (self.width - self.left - self.right)

    def py(self, value: ArrayLike) -> NDArray[np.float64]:
        """Values outside the frame are drawn at its edge."""
        part = np.clip((np.asarray(value, float) - self.y[0]) / (self.y[1] - self.y[0]), 0.0, 1.0)
        return self.height - self.bottom - part * (self.height - self.top - self.bottom)

    def path(self, x: ArrayLike, y: ArrayLike) -> str:
        """An SVG path through the points that are known; it breaks where one is not."""
        parts, pen = [], "M"
        for px, py in zip(self.px(x).tolist(), self.py(y).tolist(), strict=True):
            if math.isfinite(py):
                parts.append(f"{pen}{px:.1f} {py:.1f}")
            pen = "L" if math.isfinite(py) else "M"
        if len(parts) == 1:  # a lone point is a line of no length, which round ends make visible
            parts.append("h0")
        return "".join(parts)

    def area(self, x: ArrayLike, low: ArrayLike, high: ArrayLike) -> str:
        known = np.isfinite(np.asarray(low, float)) & np.isfinite(np.asarray(high, float))
        if not known.any():
            return ""
        at, below, above = (np.asarray(values, float)[known] for values in (x, low, high))
        return self.path(at, above) + "L" + self.path(at[::-1], below[::-1])[1:] + "Z"

    @property
    def marked(self) -> tuple[float, float] | None:
        """Where the marked steps begin in the drawing, and how wide they are."""
        if self.span is None:
            return None
        begin, end = (float(self.px(step)) for step in self.span)
        return begin, max(end - begin, 2.0)

    @property
    def ticks_x(self) -> list[tuple[float, str]]:
        values = [v for v in nice_ticks(*self.x, count=5) if v == int(v)]
        return [(float(self.px(v)), f"{int(v):,}") for v in values]

    @property
    def ticks_y(self) -> list[tuple[float, str]]:
        values = nice_ticks(*self.y, count=5)
        return [(float(self.py(v)), tick_text(v, values)) for v in values]


@dataclass(frozen=True)
class Chart:
    """A chart and the table behind it. `summary` is what a screen reader says in its place."""

    id: str
    title: str
    summary: str
    frame: Frame
    marks: list[Mark]
    note: str = ""
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within [low, high], about so many."""
    span = high - low
    if not span > 0:
        return [low]
    step = 10.0 ** math.floor(math.log10(span / count))
    step *= next((m for m in (1, 2, 5) if span / (step * m) <= count + 0.5), 10)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_text(value: float, ticks: Sequence[float]) -> str:
    step = min((b - a for a, b in itertools.pairwise(ticks)), default=1.0)
    return f"{value:,.{max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0}f}"


def value_range(values: NDArray[np.float64], share: bool) -> tuple[float, float]:
    """The y axis for these values: 0 to 1 if they are shares, else all but the farthest outliers, with some air."""
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0, 1.0
    if share and known.min() >= 0 and known.max() <= 1:
        return 0.0, 1.0
    low, high = np.quantile(known, [0.002, 0.998]) if len(known) > 2000 else (known.min(), known.max())
    air = 0.06 * (high - low) or max(abs(float(high)), 1.0) * 0.1
    return float(low - air), float(high + air)


def spread_labels(marks: list[Mark], frame: Frame, gap: float = 14.0) -> list[Mark]:
    """Keep the numbers at the ends of near curves apart."""
    from dataclasses import replace

    placed: list[Mark] = []
    floor = frame.top + 4.0
    for mark in sorted((m for m in marks if m.end), key=lambda m: m.end[1] if m.end else 0.0):
        assert mark.end is not None
        y = max(mark.end[1], floor)
        placed.append(replace(mark, end=(mark.end[0], y)))
        floor = y + gap
    over = floor - gap - (frame.height - frame.bottom + 4.0)
    for i in range(len(placed) - 1, -1, -1):  # pushed out at the bottom: push back up
        end = placed[i].end
        assert end is not None
        limit = frame.height - frame.bottom + 4.0 - gap * (len(placed) - 1 - i)
        if over > 0 and end[1] > limit:
            placed[i] = replace(placed[i], end=(end[0], limit))
    by_name = {mark.name: mark for mark in placed}
    return [by_name.get(mark.name, mark) for mark in marks]
