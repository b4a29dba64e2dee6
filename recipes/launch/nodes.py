# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Nodes of a Ray cluster: watch which are alive, wait for them, and derive the size of a run."""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

Nodes = dict[str, tuple[str, int]]  # node id: (address, GPUs)


class ClusterError(Exception):
    """The cluster or the request does not fit the run. The message says why."""


class NodeWatcher:
    """Live nodes with GPUs, reported by a separate process: Ray ends connected processes when its head is gone."""

    TIMEOUT = 90.0  # seconds without a report; Ray gives its own head 60

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._reports, sender = context.Pipe(duplex=False)
        self._process = context.Process(target=_report_nodes, args=(sender,), daemon=True)
        self._process.start()
        sender.close()
        self._last_report = time.monotonic()

    def poll(self, timeout: float) -> Nodes | None:
        """Return the next report, waiting up to `timeout` seconds; None if there is none yet.

        Raises:
            ClusterError: the head of the Ray cluster is gone.
        """
        try:
            nodes = self._reports.recv() if self._reports.poll(timeout) else None
        except EOFError:
            raise ClusterError("cannot reach Ray's head (its error is above)") from None
        now = time.monotonic()
        if nodes is not None:
            self._last_report = now
        elif now - self._last_report > self.TIMEOUT:
            raise ClusterError(f"Ray's head has not answered for {self.TIMEOUT:.0f} s")
        return nodes

    def stop(self) -> None:
        self._process.kill()
        self._process.join()


def _report_nodes(reports: Connection) -> None:
    """Send the live nodes with GPUs every two seconds."""
    import ray

    os.dup2(2, 1)  # Ray prints messages about failing nodes to stdout
    # `auto`: the cluster at RAY_ADDRESS, which Ray sets for its jobs.
    ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR)
    while True:
        nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU", 0) >= 1]
        reports.send({node["NodeID"]: (node["NodeManagerAddress"], int(node["Resources"]["GPU"])) for node in nodes})
        time.sleep(2.0)


def log(text: str) -> None:
    print(f"launch: {text}", file=sys.stderr, flush=True)


def wait_for_nodes(
    poll: Callable[[float], Nodes | None],
    wanted: int | None,
    names: Mapping[str, str],
    limit: float,
    stopped: Callable[[], bool],
    settle: float = 10.0,
) -> Nodes:
    """Wait for `wanted` nodes, or until their number is stable.

    Args:
        poll: returns live nodes, waiting up to the given seconds; None if nothing changed.
        wanted: number of nodes; None: all that come, until none has joined for `settle` seconds.
        names: names of the expected nodes by address, for messages; may be empty.
        limit: seconds to wait.
        stopped: return True to stop waiting.

    Raises:
        ClusterError: the limit has passed. Names the missing nodes.
    """
    started = changed = time.monotonic()
    seen: Nodes = {}
    while not stopped():
        now = poll(1.0)
        if now is not None and set(now) != set(seen):
            seen, changed = now, time.monotonic()
            present = ", ".join(sorted(node_name(address, names) for address, _ in seen.values())) or "none"
            log(f"{len(seen)} of {wanted or 'all'} nodes after {changed - started:.0f} s: {present}")
        if len(seen) >= wanted if wanted is not None else seen and time.monotonic() - changed > settle:
            return seen
        if time.monotonic() - started > limit:
            addresses = {address for address, _ in seen.values()}
            missing = ", ".join(node_name(address, names) for address in names if address not in addresses)
            raise ClusterError(
                f"only {len(seen)} of {wanted or 'at least 1'} nodes with GPUs joined Ray within {limit:.0f} s"
                + (f"; missing: {missing}" if missing else "")
                + ". See their part of the log, or allow more time with JOIN_LIMIT=<seconds>."
            )
    return seen


def node_name(address: str, names: Mapping[str, str]) -> str:
    return f"{names[address]} ({address})" if names.get(address, address) != address else address


def run_size(nodes: Nodes, environment: Mapping[str, str]) -> dict[str, str]:
    """Return NNODES and NGPUS_PER_NODE for a run on these nodes.

    Raises:
        ClusterError: nodes of different sizes, or none left after the judge's.
    """
    sizes = {gpus for _, gpus in nodes.values()}
    per_node = positive_int(environment, "NGPUS_PER_NODE")
    if per_node is None and len(sizes) > 1:
        raise ClusterError(
            f"the nodes have different numbers of GPUs: {sorted(nodes.values())} (address, GPUs). verl needs equal "
            "ones: remove some, or set NGPUS_PER_NODE to what all of them have."
        )
    if per_node is not None and per_node > min(sizes):
        raise ClusterError(f"NGPUS_PER_NODE={per_node}, but Ray has {sorted(nodes.values())} (address, GPUs)")
    count = positive_int(environment, "NNODES") or len(nodes) - judge_nodes(environment)
    if count < 1:
        raise ClusterError(f"{len(nodes)} nodes: none left to train on, as JUDGE uses {judge_nodes(environment)}")
    return {"NNODES": str(count), "NGPUS_PER_NODE": str(per_node or sizes.pop())}


def judge_nodes(environment: Mapping[str, str]) -> int:
    """Return the number of the judge's nodes, which come on top of the run's (recipes/_method.sh)."""
    return positive_int(environment, "JUDGE_NNODES") or 1 if environment.get("JUDGE") else 0


def positive_int(environment: Mapping[str, str], key: str) -> int | None:
    """Return a variable as an integer >= 1; None if it is not set.

    Raises:
        ClusterError: any other value.
    """
    text = environment.get(key)
    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise ClusterError(f"{key} must be an integer >= 1 (got {text!r})")
    return None if text is None else int(text)
