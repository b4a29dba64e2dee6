# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl trains on the marks of a judge that it serves itself, with random groups: the README's commands, on the CPU."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from tests.conftest import ROOT
from verl_pgrpo.rewards.personas import noise

pytestmark = [pytest.mark.e2e, pytest.mark.stress]  # the reward model path is verl's; `make test` has the rest


def test_a_judge_and_random_groups_through_verl(tmp_path: Path) -> None:
    readme = (ROOT / "recipes" / "personas" / "README.md").read_text()
    [block] = re.findall(r"^Without a GPU.*?\n\n((?:    .*\n)+)", readme, re.MULTILINE | re.DOTALL)
    programs = f'python() {{ "{sys.executable}" "$@"; }}; verl-pgrpo() {{ python -m verl_pgrpo.cli "$@"; }}'
    script = "\n".join(["set -eo pipefail", programs, block.replace("data/personas_judge", str(tmp_path))])
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "RUN_DIR": str(tmp_path / "run")}
    run = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=900
    )
    assert run.returncode == 0, (run.stdout[-3000:], run.stderr[-3000:])

    dumps = [(tmp_path / "run" / "rollouts" / f"{step}.jsonl").read_text() for step in (1, 2)]
    rollouts = [json.loads(line) for dump in dumps for line in dump.splitlines()]
    assert len(rollouts) == 128
    # A judge that did not answer in time gives NaN, and the row is left out of the history.
    scored = [one for one in rollouts if math.isfinite(one["score"])]
    assert len(scored) > 64
    marks = set()
    for one in scored:
        truth = json.loads(one["gts"])
        mark = 10 * ((one["score"] - truth["offset"]) / truth["scale"] - noise(one["output"], one["gts"]))
        assert mark == pytest.approx(round(mark), abs=1e-4), "offset + scale * (mark + noise), the marks whole numbers"
        marks.add(round(mark))
    assert marks <= set(range(11))
    assert len(marks) > 1, "one answer is marked higher than another"

    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    last = {line["step"]: line["data"] for line in map(json.loads, lines)}[2]
    judged = [value for name, value in last.items() if re.fullmatch(r"val-aux/personas/\w+/judged/mean@1", name)]
    assert len(judged) == 7
    assert sum(judged) > 0, "the judge answers, and mostly with numbers"

    rows = pd.read_parquet(tmp_path / "train.parquet")
    drawn = {f"train/{info['index']}": info["random_group"] for info in rows["extra_info"]}
    counts = Counter(drawn[json.loads(one["gts"])["row"]] for one in scored)
    history = {name.split("/")[2]: n for name, n in last.items() if re.fullmatch(r"pgrpo/group/\w+/count", name)}
    assert history == counts, "the history is of the random groups"
    assert counts != Counter(json.loads(one["gts"])["persona"] for one in scored)
