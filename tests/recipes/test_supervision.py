# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""run_on_cluster.py without a cluster: size of a run, waiting for nodes, lost nodes, stalls, signals, exit statuses."""

from __future__ import annotations

import os
import shlex
import signal
import time
from pathlib import Path

import pytest

from tests.recipes.launches import launch_modules

cluster, cluster_nodes = launch_modules("run_on_cluster", "nodes")


def test_the_size_is_what_ray_has():
    nodes = {"x": ("192.0.2.1", 8), "y": ("192.0.2.2", 8)}
    assert cluster_nodes.run_size(nodes, {}) == {"NNODES": "2", "NGPUS_PER_NODE": "8"}
    assert cluster_nodes.run_size(nodes, {"NGPUS_PER_NODE": "4"})["NGPUS_PER_NODE"] == "4"
    assert cluster_nodes.run_size(nodes, {"JUDGE": "some/model"})["NNODES"] == "1"
    for bad in ({"JUDGE": "some/model", "JUDGE_NNODES": "2"}, {"NGPUS_PER_NODE": "9"}):
        with pytest.raises(cluster_nodes.ClusterError):
            cluster_nodes.run_size(nodes, bad)
    with pytest.raises(cluster_nodes.ClusterError, match="different numbers of GPUs"):
        cluster_nodes.run_size({**nodes, "z": ("192.0.2.3", 4)}, {})


def test_waiting_ends_with_the_names_of_missing_nodes():
    names = {"192.0.2.1": "alpha", "192.0.2.2": "beta", "192.0.2.3": "gamma"}

    def poll(timeout: float) -> cluster_nodes.Nodes:
        time.sleep(0.05)
        return {"x": ("192.0.2.1", 8)}

    with pytest.raises(cluster_nodes.ClusterError, match=r"1 of 3 .* missing: beta \(192.0.2.2\), gamma"):
        cluster_nodes.wait_for_nodes(poll, 3, names, limit=0.5, stopped=lambda: False)


BOTH = {"x": ("192.0.2.1", 1), "y": ("192.0.2.2", 1)}
ONE = {"x": ("192.0.2.1", 1)}


def supervise(script: str, poll=None, received: list[int] | None = None, needed: int = 2, grace: float = 1.0, **more):
    def both(timeout: float) -> cluster_nodes.Nodes:
        time.sleep(0.05)
        return BOTH

    return cluster.supervise(
        ["bash", "-c", script], os.environ, BOTH, poll or both, {}, received or [], needed, grace, **more
    )


def test_the_status_is_the_runs():
    assert supervise("exit 0") == 0
    assert supervise("exit 3", grace=0.2) == 3
    assert supervise("kill -KILL $$", grace=0.2) == 137


def test_a_lost_node_or_head_ends_a_run_that_hangs(capsys: pytest.CaptureFixture[str]):
    def headless(timeout: float) -> cluster_nodes.Nodes:
        raise cluster_nodes.ClusterError("Ray's head is gone")

    started = time.monotonic()
    assert supervise("sleep 100", lambda timeout: ONE) == cluster.RETRY
    assert supervise("sleep 100", headless) == cluster.RETRY
    assert time.monotonic() - started < 60
    assert "lost 192.0.2.2" in capsys.readouterr().err
    assert supervise("sleep 0.5", lambda timeout: ONE, needed=1) == 0, "a spare node"
    assert supervise("sleep 0.5", lambda timeout: ONE, grace=20.0) == 0, "the run ended well"


def test_a_node_that_the_run_missed_before_ray_is_found_afterwards():
    failed = time.monotonic() + 0.5

    def poll(timeout: float) -> cluster_nodes.Nodes:
        time.sleep(0.05)
        return BOTH if time.monotonic() < failed else ONE

    assert supervise("exit 1", poll, grace=10.0) == cluster.RETRY


def test_a_run_without_progress_is_ended_to_be_started_again(tmp_path: Path):
    file = tmp_path / "metrics.jsonl"
    key = "ray_kwargs.ray_init.runtime_env.env_vars.VERL_FILE_LOGGER_PATH"
    values = {key: str(file), "trainer.logger": '["console","file"]'}
    check = cluster.stall_check(values, 1)
    assert supervise(f"for i in 1 2 3 4 5 6 7; do touch {file}; sleep 0.4; done", stalled=check) == 0
    assert supervise("sleep 30; exit 0", stalled=cluster.stall_check(values, 1)) == cluster.RETRY
    assert not cluster.stall_check(values, 0)(), "0: never"
    old = time.time() - 100
    os.utime(file, (old, old))
    assert not cluster.stall_check(values, 60)(), "a file of an earlier start"
    assert not cluster.stall_check({**values, "trainer.logger": '["console"]'}, 1)(), "no file, no evidence"


def test_a_signal_reaches_the_whole_run(tmp_path: Path):
    received: list[int] = []
    # A shell that waits for a child, as recipes/_common.sh does, forwards no signal by itself.
    child = f"trap 'touch {tmp_path}/signalled; exit 0' TERM; touch {tmp_path}/up; while :; do sleep 0.1; done"

    def poll(timeout: float) -> cluster_nodes.Nodes:
        time.sleep(0.05)
        if (tmp_path / "up").exists():
            received.append(signal.SIGTERM)
        return BOTH

    status = cluster.supervise(
        ["bash", "-c", f"bash -c {shlex.quote(child)}; true"], os.environ, BOTH, poll, {}, received, 2, 20.0
    )
    assert status == 128 + signal.SIGTERM
    assert (tmp_path / "signalled").exists()
