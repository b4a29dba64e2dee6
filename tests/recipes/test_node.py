# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""node.sh with a program that replaces Ray: limits, lost heads and workers, environment."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.recipes.launches import RECIPES, environment


@pytest.fixture
def listener():
    """A port that accepts connections, instead of the head's Ray."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    server.accept()[0].close()

        threading.Thread(target=serve, daemon=True).start()
        yield server


def node(
    role: str, head: socket.socket, folder: Path, ray: str = "exit 1", before: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """node.sh with a program `ray` that runs `before` and then `ray` in the same shell."""
    (folder / "ray").write_text(f"#!/usr/bin/env bash\n{ray}\n")
    (folder / "ray").chmod(0o755)
    values = {"NODES": "alpha=127.0.0.1,beta=127.0.0.3", "NODE_ADDRESS": "127.0.0.3", "NODE_GPUS": "1"}
    values = environment(**values, RAY_PORT=str(head.getsockname()[1]), JOIN_LIMIT="2", **variables)
    values["PATH"] = f"{folder}:{values['PATH']}"
    script = f"{before}\nexec bash {RECIPES}/launch/node.sh {role} personas/run_qwen3_1_7b_fsdp"
    return subprocess.run(["bash", "-c", script], env=values, capture_output=True, text=True, timeout=60, check=False)


def test_a_worker_waits_for_its_head_with_a_limit_and_ends_with_it(tmp_path: Path, listener: socket.socket):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        run = node("worker", closed, tmp_path)
    assert run.returncode == 69
    assert "alpha=127.0.0.1" in run.stderr
    assert node("worker", listener, tmp_path).returncode == 75, "it lost Ray, not its head"
    assert node("head", listener, tmp_path).returncode == 69, "the port is taken"
    joined, gone = tmp_path / "joined", tmp_path / "gone"

    def end_head() -> None:
        while not joined.exists():
            time.sleep(0.05)
        listener.shutdown(socket.SHUT_RDWR)
        gone.touch()

    threading.Thread(target=end_head, daemon=True).start()
    ray = f"touch '{joined}'; until [ -e '{gone}' ]; do sleep 0.05; done; exit 1"
    assert node("worker", listener, tmp_path, ray).returncode == 0


def test_verl_sees_one_list_of_gpus(tmp_path: Path, listener: socket.socket):
    """verl rejects ROCR_VISIBLE_DEVICES together with other vendors' variables, and Slurm sets both."""
    ray, rocr = 'echo "$CUDA_VISIBLE_DEVICES ${ROCR_VISIBLE_DEVICES-none}"', {"ROCR_VISIBLE_DEVICES": "0,1"}
    assert node("worker", listener, tmp_path, ray, CUDA_VISIBLE_DEVICES="0,1", **rocr).stdout == "0,1 none\n"
    assert node("worker", listener, tmp_path, ray, **rocr).stdout == " 0,1\n"


def test_ray_gets_the_hard_limits_of_files_and_locked_memory(tmp_path: Path, listener: socket.socket):
    before = "ulimit -S -n 256; ulimit -H -n 2048; ulimit -l 64; ulimit -S -l 32"
    run = node("worker", listener, tmp_path, "ulimit -S -n; ulimit -S -l", before)
    assert run.stdout.splitlines() == ["2048", "64"]
    assert "2048 open files" in run.stderr
    assert "64 KiB of locked memory" in run.stderr
