# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The nodes of a Ray cluster: which are alive, waiting for them with a limit, and what a run is told of them."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

SETTLE = 10.0  # seconds without a new node after which all are taken to be there, where nobody said how many
Nodes = dict[str, tuple[str, int]]  # node id: address, GPUs


class ClusterError(Exception):
    """The cluster is not as it should be; the message says in what."""


class Watch:
    """The nodes with GPUs that are alive, as `ray_nodes.py` says."""

    SILENCE = 90.0  # seconds; Ray itself gives its head 60

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("ray_nodes.py"))]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._heard = time.monotonic()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def next(self, timeout: float) -> Nodes | None:
        """What it said last, waiting up to `timeout` seconds for something new; None if there is nothing new."""
        try:
            line = self._lines.get(timeout=timeout)
        except queue.Empty:
            if time.monotonic() - self._heard > self.SILENCE:
                raise ClusterError("Ray's head has not answered for 90 s") from None
            return None
        if line is None:
            raise ClusterError("Ray's head is gone, or was never there (what it said is above)")
        self._heard = time.monotonic()
        return {key: (address, gpus) for key, (address, gpus) in json.loads(line).items()}

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def say(text: str) -> None:
    print(f"launch: {text}", file=sys.stderr, flush=True)


def wait_for_nodes(
    look: Callable[[float], Nodes | None],
    wanted: int | None,
    names: dict[str, str],
    limit: float,
    stopped: Callable[[], bool],
    settle: float = SETTLE,
) -> Nodes:
    """Wait until `wanted` nodes are there; where that is not known, until their number has not changed for a while.

    Args:
        look: the nodes that are alive, waiting so many seconds for news; None if there are none.
        wanted: how many nodes; None: as many as come.
        names: the names of those that must come, by address; may be empty.
        limit: seconds to wait.
        stopped: asked between looks; True ends the waiting.
        settle: seconds without a new node that are enough where `wanted` is None.

    Raises:
        ClusterError: the limit is over; says who is missing.
    """
    started = changed = time.monotonic()
    seen: Nodes = {}
    while not stopped():
        now = look(1.0)
        if now is not None and set(now) != set(seen):
            seen, changed = now, time.monotonic()
            here = ", ".join(sorted(named(address, names) for address, _ in seen.values())) or "none"
            say(f"{len(seen)} of {wanted or 'all'} nodes after {changed - started:.0f} s: {here}")
        if wanted is not None and len(seen) >= wanted:
            return seen
        if wanted is None and seen and time.monotonic() - changed > settle:
            return seen
        if time.monotonic() - started > limit:
            addresses = {address for address, _ in seen.values()}
            missing = [named(address, names) for address in names if address not in addresses]
            raise ClusterError(
                f"only {len(seen)} of {wanted or 'at least 1'} nodes with GPUs joined Ray within {limit:.0f} s"
                + (f"; missing: {', '.join(missing)}" if missing else "")
                + ". Look at their part of the log, or give them more time with JOIN_LIMIT=<seconds>."
            )
    return seen


def named(address: str, names: dict[str, str]) -> str:
    return f"{names[address]} ({address})" if names.get(address, address) != address else address


def shape(nodes: Nodes, environment: dict[str, str]) -> dict[str, str]:
    """NNODES and NGPUS_PER_NODE of the nodes that there are.

    Raises:
        ClusterError: nodes of different size, or too few for the judge's own.
    """
    sizes = {gpus for _, gpus in nodes.values()}
    per_node = number(environment, "NGPUS_PER_NODE")
    if per_node is None and len(sizes) > 1:
        raise ClusterError(
            f"the nodes have different numbers of GPUs: {sorted(nodes.values())} (address, GPUs). verl wants equal "
            "ones: leave some out, or set NGPUS_PER_NODE to what all of them have."
        )
    if per_node is not None and per_node > min(sizes):
        raise ClusterError(f"NGPUS_PER_NODE={per_node}, but Ray has {sorted(nodes.values())} (address, GPUs)")
    count = number(environment, "NNODES") or len(nodes) - judges(environment)
    if count < 1:
        raise ClusterError(f"{len(nodes)} nodes leave none to train on, as JUDGE takes {judges(environment)}")
    return {"NNODES": str(count), "NGPUS_PER_NODE": str(per_node or sizes.pop())}


def judges(environment: dict[str, str]) -> int:
    """The judge's nodes, which come on top of the run's: recipes/_method.sh."""
    return number(environment, "JUDGE_NNODES") or 1 if environment.get("JUDGE") else 0


def number(environment: dict[str, str], key: str) -> int | None:
    """A variable that is a number from 1; None where it is not set."""
    text = environment.get(key)
    if text is not None and not (text.isdecimal() and int(text) > 0):
        raise ClusterError(f"{key}={text!r} is not a number from 1")
    return None if text is None else int(text)
