# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`make quickstart`, small: what it prints and draws, that a second call reuses it, and that Ctrl-C leaves nothing."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.e2e
COMMAND = [sys.executable, str(ROOT / "recipes" / "personas" / "quickstart.py")]


def environment(folder, **values: str) -> dict[str, str]:
    ignored = {"RANDOM_GROUPS": "1", "MODEL_PATH": "other"}
    return {**os.environ, **ignored, "RUNS": str(folder), "N": "4", "NOISE": "0", "STEPS": "3", **values}


def left_over() -> list[Path]:
    """Shared memory and sockets of runs that are over. A run of another test, even a killed one, has its TMPDIR."""
    paths = [*Path("/dev/shm").iterdir(), *Path("/tmp").glob("rl-colocate-zmq*")]
    ids = {path: re.search("v[0-9a-f]{7}", path.name) for path in paths}
    runs = Path(tempfile.gettempdir())
    return [path for path, run in ids.items() if run and not (runs / f"vcpu-{run[0]}").exists() and path.exists()]


def test_quickstart_trains_compares_and_is_reused(tmp_path):
    first = subprocess.run(
        COMMAND, env=environment(tmp_path), capture_output=True, text=True, timeout=1200, check=False
    )
    assert first.returncode == 0, first.stderr[-3000:] + first.stdout[-3000:]
    for word in ("P-GRPO end", "playful_electronic", "mean over groups", "worst group", "early", "middle"):
        assert word in first.stdout
    picture = tmp_path / "quickstart" / "report.png"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 20_000
    page = tmp_path / "quickstart" / "report.html"
    assert first.stdout.splitlines()[-1].endswith(str(page))
    html = page.read_text(encoding="utf-8")
    assert first.stdout.splitlines()[-2] in html  # the headline
    assert "actor_rollout_ref.rollout.n: 4" in html  # the configuration, from the run's log
    assert "History against current reward" in html
    (metrics,) = (tmp_path / "quickstart").glob("*/grpo/metrics.jsonl")
    steps = [json.loads(line)["data"] for line in metrics.read_text().splitlines()]
    assert len(steps) == 3
    for step in steps:  # after the first step, with synced weights: vLLM agrees with the policy
        assert step["training/rollout_probs_diff_max"] < 1e-6
        assert 0 < step["actor/grad_norm"] < 100
    assert left_over() == []

    second = subprocess.run(COMMAND, env=environment(tmp_path), capture_output=True, text=True, timeout=60, check=False)
    assert second.returncode == 0
    assert second.stdout.count("finished earlier, reused") == 2
    assert second.stdout.splitlines()[-15:-7] == first.stdout.splitlines()[-15:-7]  # the table


def test_interrupt_leaves_nothing_running(tmp_path):
    run = subprocess.Popen(
        COMMAND, env=environment(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    family: list[psutil.Process] = []
    deadline = time.monotonic() + 300
    while not any("ray::" in name for name in map(_command_line, family)) and time.monotonic() < deadline:
        family = psutil.Process(run.pid).children(recursive=True)
        assert run.poll() is None
        time.sleep(1)
    assert len(family) > 5
    run.send_signal(signal.SIGINT)
    output, _ = run.communicate(timeout=90)
    assert run.returncode != 0
    assert "nothing is left running" in output
    assert not any(map(_is_alive, family))
    assert left_over() == []


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_folder_in_which_another_call_trains_is_left_alone(tmp_path):
    folder = tmp_path / "quickstart" / "n4-noise0-steps3-seed0"
    (folder / "grpo").mkdir(parents=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = subprocess.run(COMMAND, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert "another call still trains" in run.stderr
    assert (folder / "grpo").exists()


def test_wrong_settings_are_named(tmp_path):
    for values, message in (({"N": "3"}, "does not divide"), ({"NOISE": "-1"}, "must not be negative")):
        run = subprocess.run(COMMAND, env=environment(tmp_path, **values), capture_output=True, text=True, check=False)
        assert run.returncode != 0
        assert message in run.stderr
