# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""run_on_cluster.py without a cluster: size of a run, waiting for nodes, lost nodes, stalls, signals, exit statuses."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.recipes.launches import nodes
from tests.recipes.launches import run_on_cluster as cluster

ONE = {"x": ("192.0.2.1", 8)}
BOTH = {**ONE, "y": ("192.0.2.2", 8)}


def test_the_size_is_what_ray_has():
    assert nodes.run_size(BOTH, {}) == {"NNODES": "2", "NGPUS_PER_NODE": "8"}
    assert nodes.run_size(BOTH, {"NGPUS_PER_NODE": "4"})["NGPUS_PER_NODE"] == "4"
    assert nodes.run_size(BOTH, {"JUDGE": "some/model"})["NNODES"] == "1"
    uneven = {**BOTH, "z": ("192.0.2.3", 4)}
    for alive, bad in ((BOTH, {"JUDGE": "m", "JUDGE_NNODES": "2"}), (BOTH, {"NGPUS_PER_NODE": "9"}), (uneven, {})):
        with pytest.raises(nodes.ClusterError):
            nodes.run_size(alive, bad)


def poll_of(report: Callable[[], nodes.Nodes]) -> Callable[[float], nodes.Nodes]:
    """What watches the cluster, with this report."""

    def poll(timeout: float) -> nodes.Nodes:
        time.sleep(0.05)
        return report()

    return poll


def test_waiting_ends_with_the_names_of_missing_nodes():
    names = {"192.0.2.1": "alpha", "192.0.2.2": "beta", "192.0.2.3": "gamma"}
    with pytest.raises(nodes.ClusterError, match=r"1 of 3 .* missing: beta \(192.0.2.2\), gamma"):
        nodes.wait_for_nodes(poll_of(lambda: ONE), 3, names, limit=0.5, stopped=lambda: False)


def supervise(script: str, report: Callable[[], nodes.Nodes] = lambda: BOTH, **options: Any) -> int:
    """The status of a script on two nodes; those that are reported are alive."""
    options = {"names": {}, "received": [], "needed": 2, "grace": 1.0, **options}
    return cluster.supervise(["bash", "-c", script], os.environ, BOTH, poll_of(report), **options)


def headless() -> nodes.Nodes:
    raise nodes.ClusterError("Ray's head is gone")


@pytest.mark.parametrize(
    ("script", "report", "options", "status"),
    [
        ("exit 0", lambda: BOTH, {}, 0),
        ("exit 3", lambda: BOTH, {"grace": 0.2}, 3),
        ("kill -KILL $$", lambda: BOTH, {"grace": 0.2}, 137),
        ("sleep 1000", lambda: ONE, {}, cluster.RETRY),
        ("sleep 1000", headless, {}, cluster.RETRY),
        pytest.param("sleep 0.5", lambda: ONE, {"needed": 1}, 0, id="a spare node"),
        pytest.param("sleep 0.5", lambda: ONE, {"grace": 20.0}, 0, id="the run ended well"),
    ],
)
def test_a_lost_node_or_head_ends_a_run_that_hangs(script: str, report, options: dict[str, float], status: int):
    started = time.monotonic()
    assert supervise(script, report, **options) == status
    assert time.monotonic() - started < 60


def test_a_node_that_the_run_missed_before_ray_is_found_afterwards(capsys: pytest.CaptureFixture[str]):
    failed = time.monotonic() + 0.5
    assert supervise("exit 1", lambda: BOTH if time.monotonic() < failed else ONE, grace=10.0) == cluster.RETRY
    assert "192.0.2.2" in capsys.readouterr().err


def test_a_run_without_progress_is_ended_to_be_started_again(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    key = "ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH"
    values = {key: str(file), "trainer.logger": '["console","file"]'}
    progress = f"for i in 1 2 3 4 5 6 7 8 9 10 11 12; do touch {file}; sleep 0.5; done"
    assert supervise(progress, stalled=cluster.stall_check(values, 5)) == 0
    assert supervise("sleep 30; exit 0", stalled=cluster.stall_check(values, 5)) == cluster.RETRY
    os.utime(file, (time.time() - 100,) * 2)
    assert not cluster.stall_check(values, 0)(), "0: never"
    assert not cluster.stall_check(values, 60)(), "a file of an earlier start"
    assert not cluster.stall_check({**values, "trainer.logger": '["console"]'}, 1)(), "no file, no evidence"


def test_a_signal_reaches_the_whole_run(tmp_path: Path):
    received: list[int] = []
    # A shell that waits for a child, as recipes/_common.sh does, forwards no signal by itself.
    child = f"trap 'touch {tmp_path}/signalled; exit 0' TERM; touch {tmp_path}/up; while :; do sleep 0.1; done"

    def report() -> nodes.Nodes:
        received.extend([signal.SIGTERM] * (tmp_path / "up").exists())
        return BOTH

    status = supervise(f"bash -c {shlex.quote(child)}; true", report, received=received, grace=20.0)
    assert status == 128 + signal.SIGTERM
    assert (tmp_path / "signalled").exists()
