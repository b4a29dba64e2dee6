# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The page in a real browser: it renders, works with the keyboard and on a phone, and fetches and runs nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.report.browser import Browser, browser, find_browser
from tests.report.runs import write_run
from verl_pgrpo.report.loading import load_runs
from verl_pgrpo.report.page import make_report, render

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(find_browser() is None, reason="no chromium or google-chrome on PATH"),
]

EVIL = "<script>document.documentElement.dataset.owned = 1</script>"
PHONE, DESKTOP = (360, 2400, True), (1280, 2400, False)
ROWS = "[...document.querySelectorAll('#groups tbody tr')]"
PICKED = "document.documentElement.dataset.picked"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three pages: three groups and three seeds, 3,000 groups, three groups of hostile text."""
    folder = tmp_path_factory.mktemp("report")
    for estimator in ("grpo", "pgrpo"):
        for seed in range(3):
            write_run(folder / f"few/{estimator}-{seed}", estimator, seed, groups=3, steps=20)
        write_run(folder / f"many/{estimator}", estimator, groups=3000, steps=10, prompts=3000, n=1, utility=False)
        write_run(folder / f"evil/{estimator}", estimator, groups=3, steps=5, prefix=f'"><b>{EVIL}', output=EVIL)
    for kind in ("few", "many", "evil"):
        runs = [str(run) for run in sorted((folder / kind).iterdir())]
        (folder / f"{kind}.html").write_text(render(make_report(load_runs(runs))), encoding="utf-8")
    return {kind: folder / f"{kind}.html" for kind in ("few", "many", "evil")}


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.mark.parametrize("kind", ["few", "many", "evil"])
@pytest.mark.parametrize("window", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_is_drawn_without_errors_or_requests(pages, chromium, tmp_path, kind, window):
    from PIL import Image

    chromium.errors.clear()
    chromium.requests.clear()
    chromium.open(pages[kind], *window)
    wide, inside = chromium.value("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= inside
    assert chromium.errors == []
    assert chromium.requests == [pages[kind].resolve().as_uri()]
    chromium.screenshot(tmp_path / "page.png")
    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"), dtype=float)
    for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # both arms
        assert (np.abs(pixels - color).max(axis=2) < 8).sum() > 100
    heights = chromium.value(
        "[...document.querySelectorAll('svg.big text')].map(t => t.getBoundingClientRect().height)"
    )
    assert min(heights) >= 10  # readable axes, on a phone too


def test_hostile_text_stays_text(pages, chromium):
    chromium.open(pages["evil"], *DESKTOP)
    assert chromium.value("document.documentElement.dataset.owned") is None
    assert EVIL in chromium.value("document.querySelector('blockquote').textContent")
    assert EVIL in chromium.value("document.querySelector('h1').textContent")
    assert chromium.value("document.querySelectorAll('script').length") == 2
    # The page's policy blocks a script that slips through, and every request.
    chromium.errors.clear()
    add = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))"
    chromium.value(f"{add}; fetch('https://example.org').catch(() => 0); 0")
    assert chromium.value("document.title") != "1"
    assert any("Content Security Policy" in error for error in chromium.errors)


def test_a_group_is_chosen_with_the_keyboard(pages, chromium):
    chromium.open(pages["many"], *DESKTOP)
    line = "document.querySelector('[data-line=\"1\"]').getAttribute('d')"
    names = chromium.value(f"{ROWS}.map(row => row.cells[0].textContent)")
    assert len(names) > 2000
    assert chromium.value(PICKED) == names[0]
    before = chromium.value(line)
    chromium.value("document.getElementById('filter').focus()")
    for _ in range(20):  # the scrollable table, the headings, then a row
        chromium.press("Tab")
        if chromium.value("document.activeElement.closest('tbody') !== null"):
            break
    assert chromium.value("document.activeElement.textContent") == names[0]
    chromium.press("ArrowDown")
    chromium.press("ArrowDown")
    assert chromium.value(PICKED) == chromium.value("document.activeElement.textContent") == names[2]
    assert chromium.value("document.getElementById('picked-name').textContent") == names[2]
    assert chromium.value(line) != before
    chromium.press("End")
    assert chromium.value(PICKED) == names[-1]
    chromium.press("Home")
    chromium.press("ArrowUp")
    assert chromium.value("document.activeElement.id") == "filter"
    chromium.type("group123")
    found = chromium.value(f"{ROWS}.filter(row => !row.hidden).map(row => row.cells[0].textContent)")
    assert 1 < len(found) < 12
    assert all("group123" in name for name in found)
    chromium.press("Enter")
    assert chromium.value(PICKED) == found[0]


def test_headings_sort_and_charts_are_described_and_drawn_alike_by_script_and_matplotlib(pages, chromium):
    chromium.open(pages["few"], *DESKTOP)
    for order in (1, -1):
        chromium.value("document.querySelectorAll('#groups thead button')[2].click()")
        values = chromium.value(f"{ROWS}.map(row => parseFloat(row.cells[2].dataset.v))")
        assert values == sorted(values, reverse=order < 0)
    charts = "[...document.querySelectorAll('svg')].filter(svg => svg.getAttribute('aria-hidden') !== 'true')"
    labels = chromium.value(f"{charts}.map(svg => [svg.getAttribute('role'), svg.getAttribute('aria-label') || ''])")
    assert {role for role, _ in labels} == {"img"}
    assert sum("ends at" in label for _, label in labels) >= 6
    lines = "[...document.querySelectorAll('.figures figure:first-child .line path')]"
    dashes = chromium.value(f"{lines}.map(line => line.getAttribute('stroke-dasharray'))")
    assert len(dashes) == len(set(dashes)) == 2, "arms differ without color"
    assert chromium.value("document.querySelectorAll('.figures figure .band').length") == 6  # three charts, two arms
    ends = chromium.value(
        "['.multiples figure.focus svg', '#picked svg'].map(where => {"
        " const svg = document.querySelector(where), frame = svg.querySelector('.marked').getBBox();"
        " return [...svg.querySelectorAll('.line path')].map(line => {"
        "  const end = line.getPointAtLength(line.getTotalLength());"
        "  return [(end.x - frame.x) / frame.width, (end.y - frame.y) / frame.height]; })})"
    )
    assert np.shape(ends) == (2, 2, 2)
    assert np.allclose(ends[0], ends[1], atol=0.01)


def test_a_page_is_one_file(pages):
    for page in pages.values():
        html = page.read_text(encoding="utf-8")
        assert not re.search(r"""\b(src|href)=["'](?!#)|url\((?!#)|\sstyle=|https?:""", html)
        assert len(html) < 4_000_000
        data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
        assert json.loads(data[1])["arms"] == ["GRPO", "P-GRPO"]
