# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The command.

    python -m benchmarks.bandit --quick                                    # a minute: two settings, fewer seeds
    python -m benchmarks.bandit --jobs 2 --write docs/benchmarks.md --picture docs/bandit.png        # all

`--write` replaces the text between `<!-- bandit:STUDY -->` and `<!-- /bandit:STUDY -->` in that file.
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
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from benchmarks.bandit import studies, tables
from benchmarks.bandit.task import Setting
from benchmarks.bandit.train import CONFIRMATION, FINAL, FRESH, TUNING, Protocol

Study = tuple[list[Setting], str, Protocol, Callable[[tables.Results], str]]


def grid(results: tables.Results) -> str:
    some = ["RLOO", "pgrpo", "pgrpo exponential, 128", "pgrpo blended", "pgrpo, random groups", "oracle"]
    parts = ["All 48 settings together:", tables.summary(results), "By property of the settings:"]
    parts += [tables.slices(results, some), tables.edges(results), "P-GRPO's options against the paper's method:"]
    options = [entrant.name for entrant in studies.ENTRANTS if entrant.name.startswith("pgrpo ")]
    parts += [tables.halves(results, [*options, "grpo", "oracle"], "pgrpo"), "Every setting:"]
    parts.append(tables.by_setting(results, some[1:4], ("reward", "mood", "n", "noise")))
    return "\n\n".join(parts)


def close_ups(results: tables.Results) -> str:
    return "\n\n".join(f"{str(setting).capitalize()}:\n\n{tables.close_up(o)}" for setting, o in results.items())


def people(results: tables.Results) -> str:
    return tables.by_setting(results, [e.name for e in studies.PEOPLE_ENTRANTS[1:]], ("people", "overlap"))


def moods(results: tables.Results) -> str:
    return tables.by_setting(results, ["pgrpo", "pgrpo blended"], ("reward", "mood", "prompt_variance"))


def safe(results: tables.Results) -> str:
    """Gains over grpo, averaged over all settings and in each setting; with equal sampling also over grpo with that."""
    equally = tables.safety(results, studies.EQUALLY, SHRUNK_EQUALLY)
    names = ["pgrpo", "pgrpo blended", "shrinkage, balance 1", "shrinkage, groups sampled equally"]
    keys = ("people", "overlap", "optimizer") if len({s.people for s in results}) > 1 else KEYS
    parts = [tables.safety(results), "With the same sampling:", equally, tables.edges(results)]
    return "\n\n".join([*parts, "Every setting:", tables.by_setting(results, names, keys)])


def confirmation(results: tables.Results) -> str:
    parts = [tables.safety(results), "With the same sampling:", tables.safety(results, studies.EQUALLY, SHRUNK_EQUALLY)]
    return "\n\n".join([*parts, tables.clearly_worse(results, SHRUNK_EQUALLY, studies.EQUALLY), tables.edges(results)])


def confirmation_people(results: tables.Results) -> str:
    keys, share_weighted = ("people", "overlap", "optimizer"), tables.safety(results, studies.HALF, studies.FULL)
    every = tables.by_setting(results, [studies.FULL], keys, over=studies.HALF)
    return "\n\n".join([confirmation(results), "How much balance:", share_weighted, "Every setting:", every])


def by_optimizer(results: tables.Results, over: str) -> str:
    """For each optimizer: gains over one entrant, with and without mood, and over grpo in the worst setting."""
    names = [name for name in next(iter(results.values())) if name != over]
    parts = []
    for optimizer, title in {"adam": "Adam", "sgd": "Plain gradient steps"}.items():
        part = {s: o for s, o in results.items() if s.optimizer == optimizer}
        parts += [f"{title}:", tables.halves(part, names, over), tables.safety(part)]
    return "\n\n".join([*parts, tables.edges(results)])


def small_groups(results: tables.Results) -> str:
    return "\n\n".join(
        ["Over all steps:", tables.versus(results, "pgrpo", area=True), "At the end:", tables.versus(results, "pgrpo")]
    )


KEYS = ("reward", "mood", "n", "noise")
SHRUNK_EQUALLY = "shrinkage, groups sampled equally"
FRESHLY = Protocol(TUNING[:12], FRESH, smooth=True, at_grpos=False)
CONFIRMING = replace(FRESHLY, final=CONFIRMATION)
STUDIES: dict[str, Study] = {
    "grid": (studies.GRID, "ENTRANTS", Protocol(), grid),
    "close-ups": (studies.CLOSE_UPS, "ENTRANTS", Protocol(), close_ups),
    "ablations": (studies.ABLATION_SETTINGS, "ABLATIONS", Protocol(), partial(tables.versus, over="pgrpo")),
    "people": (studies.PEOPLE_GRID, "PEOPLE_ENTRANTS", Protocol(), people),
    "moods": (studies.MOODS, "MOOD_ENTRANTS", Protocol(), moods),
    "safe-adam": (studies.SAFE_ADAM, "SAFE_ENTRANTS", FRESHLY, safe),
    "safe-sgd": (studies.SAFE_SGD, "SAFE_ENTRANTS", FRESHLY, safe),
    "small-groups": (studies.SMALL_GROUPS, "SMALL_GROUPS_ENTRANTS", FRESHLY, small_groups),
    "confirmation-adam": (studies.SAFE_ADAM, "CONFIRMATION_ENTRANTS", CONFIRMING, confirmation),
    "confirmation-sgd": (studies.SAFE_SGD, "CONFIRMATION_ENTRANTS", CONFIRMING, confirmation),
    "confirmation-people": (
        studies.SAFE_PEOPLE,
        "PEOPLE_CONFIRMATION_ENTRANTS",
        CONFIRMING,
        confirmation_people,
    ),
    "ideas": (studies.IDEAS, "IDEAS_ENTRANTS", CONFIRMING, partial(by_optimizer, over="shrinkage")),
    "lag": (studies.LAG, "LAG_ENTRANTS", CONFIRMING, partial(by_optimizer, over="oracle")),
    "safe-people": (studies.SAFE_PEOPLE, "SAFE_ENTRANTS", FRESHLY, safe),
}
QUICK: Study = (studies.QUICK, "ENTRANTS", Protocol(TUNING[:8], FINAL[:20]), close_ups)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", nargs="+", choices=STUDIES, default=list(STUDIES))
    parser.add_argument("--quick", action="store_true", help="two settings and fewer seeds")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--write", metavar="FILE", help="a Markdown file with a place for each table")
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep each setting there; an interrupted study goes on"
    )
    parser.add_argument("--picture", metavar="FILE", help="of the grid")
    args = parser.parse_args()
    chosen = {"quick": QUICK} if args.quick else {name: STUDIES[name] for name in args.study}
    if args.write:
        text = Path(args.write).read_text(encoding="utf-8")
        if missing := [name for name in chosen if f"<!-- bandit:{name} -->" not in text]:
            parser.error(f"--write {args.write}: no line <!-- bandit:{missing[0]} --> for the table")
    if args.picture and "grid" not in chosen:
        parser.error("--picture shows the study grid, which is not chosen")
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        for name, (settings, entrants, protocol, show) in chosen.items():
            start = time.time()
            run = partial(studies.run, folder=args.keep, entrants=entrants, protocol=protocol)
            results = dict(zip(settings, pool.map(run, settings), strict=True))
            text = f"{provenance(name, protocol)}\n\n{show(results)}"
            print(f"\n{text}\n\n{time.time() - start:.0f} s", flush=True)
            if args.write:
                write(Path(args.write), name, text)
            if args.picture and name == "grid":
                from benchmarks.bandit.picture import draw_grid

                draw_grid(results, args.picture)


def provenance(study: str, protocol: Protocol) -> str:
    tuning, final = protocol.tuning, protocol.final
    command = "--quick" if study == "quick" else f"--study {study}"
    machine = f"{os.cpu_count()} cores, {platform.machine()}, torch {torch.__version__.partition('+')[0]}"
    smooth = ", each averaged with its neighbors" if protocol.smooth else ""
    return (
        f"`python -m benchmarks.bandit {command}`, {datetime.date.today()}, {machine}. Step sizes chosen on seeds "
        f"{tuning[0]} to {tuning[-1]}{smooth}; shown are seeds {final[0]} to {final[-1]} with 95 % intervals "
        "(Student's t; differences paired by seed, bold where the interval excludes 0)."
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
