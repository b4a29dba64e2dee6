# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The report's page in a real browser: drawn, reachable by keyboard, no wider than a phone, nothing fetched or run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.browser import Browser, browser, find_browser
from tests.fixtures_report import write_run
from verl_pgrpo.cli import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_browser() is None, reason="no chromium or google-chrome on PATH"),
]

EVIL = "<script>document.documentElement.dataset.owned = 1</script>"
PHONE, DESKTOP = (360, 2400, True), (1280, 2400, False)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three kinds of page: seven groups and three seeds, 3,000 groups, three groups of hostile text."""
    folder = tmp_path_factory.mktemp("report")
    for estimator in ("grpo", "pgrpo"):
        for seed in range(3):
            write_run(folder / f"seven/{estimator}-{seed}", estimator, seed)
        write_run(folder / f"many/{estimator}", estimator, groups=3000, steps=20, prompts=3000, n=1, utility=False)
        write_run(folder / f"evil/{estimator}", estimator, groups=3, prefix=f'"><b>{EVIL}', output=EVIL)
    made = {}
    for kind in ("seven", "many", "evil"):
        made[kind] = folder / f"{kind}.html"
        runs = [str(run) for run in sorted((folder / kind).iterdir())]
        assert main(["report", *runs, "-o", str(made[kind])]) == 0
    return made


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("browser")) as one:
        yield one


@pytest.mark.parametrize("kind", ["seven", "many", "evil"])
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
    assert pixels.std() > 20
    for color in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):  # both arms are there, in Okabe and Ito's blue and red
        assert (np.abs(pixels - color).max(axis=2) < 8).sum() > 100
    small = "[...document.querySelectorAll('svg.big text')].map(t => t.getBoundingClientRect().height)"
    assert min(chromium.value(small)) >= 10  # a phone's reader can read the axes


def test_hostile_text_stays_text(pages, chromium):
    chromium.open(pages["evil"], *DESKTOP)
    assert chromium.value("document.documentElement.dataset.owned") is None
    assert EVIL in chromium.value("document.querySelector('blockquote').textContent")
    assert EVIL in chromium.value("document.querySelector('h1').textContent")
    assert chromium.value("document.querySelectorAll('script').length") == 2
    # And were one to slip through, the page's policy would not run it.
    chromium.errors.clear()
    add = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))"
    chromium.value(f"{add}; fetch('https://example.org').catch(() => 0); 0")
    assert chromium.value("document.title") != "1"
    assert any("Content Security Policy" in error for error in chromium.errors)
    chromium.errors.clear()


def test_a_group_is_chosen_with_the_keyboard(pages, chromium):
    chromium.open(pages["many"], *DESKTOP)
    picked, line = (
        "document.documentElement.dataset.picked",
        "document.querySelector('[data-line=\"1\"]').getAttribute('d')",
    )
    rows = chromium.value("[...document.querySelectorAll('#groups tbody th')].map(cell => cell.textContent)")
    assert len(rows) > 2000
    assert chromium.value(picked) == rows[0]
    before = chromium.value(line)
    chromium.value("document.getElementById('filter').focus()")
    chromium.press("Tab")  # the table can be scrolled, so it is a stop; then the heads of its columns
    for _ in range(20):
        if chromium.value("document.activeElement.closest('tbody') !== null"):
            break
        chromium.press("Tab")
    assert chromium.value("document.activeElement.textContent") == rows[0]
    chromium.press("ArrowDown")
    chromium.press("ArrowDown")
    assert chromium.value(picked) == chromium.value("document.activeElement.textContent") == rows[2]
    assert chromium.value("document.getElementById('picked-name').textContent") == rows[2]
    assert chromium.value(line) != before
    chromium.press("End")
    assert chromium.value(picked) == rows[-1]
    chromium.press("Home")
    assert chromium.value(picked) == rows[0]
    chromium.press("ArrowUp")
    assert chromium.value("document.activeElement.id") == "filter"
    chromium.type("group123")
    body = "[...document.querySelectorAll('#groups tbody tr')]"
    found = chromium.value(f"{body}.filter(row => !row.hidden).map(row => row.cells[0].textContent)")
    assert 1 < len(found) < 12
    assert all("group123" in name for name in found)
    chromium.press("Enter")
    assert chromium.value(picked) == found[0]
    assert "Ends at: GRPO" in chromium.value("document.getElementById('picked-says').textContent")


def test_headings_sort(pages, chromium):
    chromium.open(pages["seven"], *DESKTOP)
    column = "[...document.querySelectorAll('#groups tbody tr')].map(row => parseFloat(row.cells[2].dataset.v))"
    click = "document.querySelectorAll('#groups thead button')[2].click()"
    for order in (1, -1):
        chromium.value(click)
        values = chromium.value(column)
        assert values == sorted(values, reverse=order < 0)
    assert chromium.value("document.querySelectorAll('#groups thead th')[2].ariaSort") == "descending"


def test_the_chosen_curve_is_that_of_the_small_chart(pages, chromium):
    """What the script unpacks is what the page drew: the same group, in both, ends at the same height of its frame."""
    chromium.open(pages["seven"], *DESKTOP)
    ends = chromium.value(
        "['.multiples figure.focus svg', '#picked svg'].map(where => {"
        " const svg = document.querySelector(where), grid = svg.querySelector('.grid').getBBox();"
        " return [...svg.querySelectorAll('.line')].map(line => {"
        "  const end = line.getPointAtLength(line.getTotalLength()); return (end.y - grid.y) / grid.height; })})"
    )
    assert len(ends[0]) == len(ends[1]) == 2
    assert np.allclose(ends[0], ends[1], atol=0.01)


def test_every_chart_says_what_it_shows_and_all_can_be_told_apart(pages, chromium):
    chromium.open(pages["seven"], *DESKTOP)
    charts = "[...document.querySelectorAll('svg')].filter(svg => svg.getAttribute('aria-hidden') !== 'true')"
    labels = chromium.value(f"{charts}.map(svg => [svg.getAttribute('role'), svg.getAttribute('aria-label') || ''])")
    assert {role for role, _ in labels} == {"img"}
    assert sum("ends at" in label for _, label in labels) >= 10
    styles = chromium.value(
        "[...document.querySelectorAll('.figures figure:first-child .line')]"
        ".map(line => line.getAttribute('stroke') + line.getAttribute('stroke-dasharray'))"
    )
    dashes = {re.sub(r"#\w{6}", "", style) for style in styles}
    assert len(styles) == len(set(styles)) == len(dashes) == 2  # by the pattern alone, too
    assert chromium.value("document.querySelectorAll('.figures figure .band').length") == 6  # three seeds are a band
    tables = chromium.value("document.querySelectorAll('.figures figure table').length")
    assert tables == 3


def test_the_page_is_of_one_piece(pages):
    for page in pages.values():
        html = page.read_text(encoding="utf-8")
        assert not re.search(r"\b(src|href)=[\"'](?!#)", html)
        assert "url(" not in html
        assert "http" not in re.sub(r"http-equiv", "", html)
        assert len(html) < 4_000_000
        data = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
        assert data is not None
        assert json.loads(data[1])["arms"] == ["GRPO", "P-GRPO"]
