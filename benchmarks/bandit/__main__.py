# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The command.

    python -m benchmarks.bandit --quick                                    # a minute: two settings, fewer seeds
    python -m benchmarks.bandit --jobs 2 --write docs/benchmarks.md --picture docs/bandit.png        # all

`--write` replaces what lies between `<!-- bandit:STUDY -->` and `<!-- /bandit:STUDY -->` in that file.
"""

from __future__ import annotations

import argparse
import datetime
import multiprocessing
import os
import platform
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import torch

from benchmarks.bandit import studies, tables
from benchmarks.bandit.task import Setting
from benchmarks.bandit.train import FINAL, SEARCH, TUNING

Study = tuple[list[Setting], str, range, range, Callable[[tables.Results], str]]


def grid(results: tables.Results) -> str:
    some = ["RLOO", "pgrpo", "pgrpo exponential, 128", "pgrpo blended", "pgrpo, random groups", "oracle"]
    parts = ["All 48 settings together:", tables.summary(results), "By what the settings share:"]
    parts += [tables.slices(results, some), tables.edges(results), "P-GRPO's options against the paper's method:"]
    options = [entrant.name for entrant in studies.ENTRANTS if entrant.name.startswith("pgrpo ")]
    parts += [tables.halves(results, [*options, "grpo", "oracle"], "pgrpo"), "Every setting:"]
    parts.append(tables.by_setting(results, some[1:4], ("reward", "mood", "n", "noise")))
    return "\n\n".join(parts)


def close_ups(results: tables.Results) -> str:
    return "\n\n".join(f"{str(setting).capitalize()}:\n\n{tables.close_up(o)}" for setting, o in results.items())


def people(results: tables.Results) -> str:
    return tables.by_setting(results, [e.name for e in studies.PEOPLE_ENTRANTS[1:]], ("people", "overlap"))


def adam(results: tables.Results) -> str:
    names = [entrant.name for entrant in studies.ADAM_ENTRANTS[1:]]
    return "\n\n".join([tables.by_setting(results, names, ("reward", "mood", "n")), tables.edges(results)])


def moods(results: tables.Results) -> str:
    return tables.by_setting(results, ["pgrpo", "pgrpo blended"], ("reward", "mood", "prompt_variance"))


def candidates(results: tables.Results) -> str:
    return tables.halves(results, [e.name for e in studies.CANDIDATES if e.name != "pgrpo"], "pgrpo")


STUDIES: dict[str, Study] = {
    "grid": (studies.GRID, "ENTRANTS", TUNING, FINAL, grid),
    "close-ups": (studies.CLOSE_UPS, "ENTRANTS", TUNING, FINAL, close_ups),
    "ablations": (studies.ABLATION_SETTINGS, "ABLATIONS", TUNING, FINAL, partial(tables.versus, over="pgrpo")),
    "people": (studies.PEOPLE_GRID, "PEOPLE_ENTRANTS", TUNING, FINAL, people),
    "adam": (studies.ADAM, "ADAM_ENTRANTS", TUNING, FINAL, adam),
    "moods": (studies.MOODS, "MOOD_ENTRANTS", TUNING, FINAL, moods),
    "candidates": ([s for s in studies.GRID if s.n < 16], "CANDIDATES", TUNING, SEARCH, candidates),
}
QUICK: Study = (studies.QUICK, "ENTRANTS", TUNING[:8], FINAL[:20], close_ups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--quick", action="store_true", help="two settings and fewer seeds")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--write", metavar="FILE", help="a Markdown file with a place for each table")
    parser.add_argument("--picture", metavar="FILE", help="of the grid")
    args = parser.parse_args()
    chosen = {"quick": QUICK} if args.quick else {name: STUDIES[name] for name in args.study}
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name, (settings, entrants, tuning, final, show) in chosen.items():
            start = time.time()
            run = partial(studies.run, entrants=entrants, tuning=tuning, final=final)
            results = dict(zip(settings, pool.map(run, settings), strict=True))
            text = f"{provenance(name, tuning, final)}\n\n{show(results)}"
            print(f"\n{text}\n\n{time.time() - start:.0f} s", flush=True)
            if args.write:
                write(Path(args.write), name, text)
            if args.picture and name == "grid":
                from benchmarks.bandit.picture import draw_grid

                draw_grid(results, args.picture)


def provenance(study: str, tuning: range, final: range) -> str:
    command = "--quick" if study == "quick" else f"--study {study}"
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__.partition('+')[0]}"
    return (
        f"`python -m benchmarks.bandit {command}`, {datetime.date.today()}, {machine}. Step sizes chosen on seeds "
        f"{tuning[0]} to {tuning[-1]}; shown are seeds {final[0]} to {final[-1]} with 95 % intervals (Student's t; "
        "differences paired by seed, bold where the interval does not hold 0)."
    )


def write(path: Path, name: str, text: str) -> None:
    begin, end = f"<!-- bandit:{name} -->\n", f"<!-- /bandit:{name} -->"
    page = path.read_text(encoding="utf-8")
    page, found = re.subn(f"(?s){re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}{text}\n{end}", page)
    if not found:
        raise SystemExit(f"{path} has no place {begin.strip()} ... {end}")
    path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
