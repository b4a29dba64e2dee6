# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The checkpoint engine `gloo`: another process receives what was sent, and every wait has a time limit."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading

import psutil
import pytest
import torch

from verl_cpu.gloo_checkpoint_engine import GlooCheckpointEngine

pytestmark = pytest.mark.slow

BUCKET = 1 << 16

# Receives one sync for each line on stdin, and saves it to the file that the line names.
RECEIVER = """
import asyncio, json, sys
import torch
from verl_cpu.gloo_checkpoint_engine import GlooCheckpointEngine

async def receive(engine):
    return {name: weight async for name, weight in engine.receive_weights()}

print("ready", flush=True)
engine = GlooCheckpointEngine(bucket_size=int(sys.argv[1]), timeout=60)
for line in sys.stdin:
    path, topology = json.loads(line)
    engine.prepare()
    engine.init_process_group(**topology)
    torch.save(asyncio.run(receive(engine)), path)
    engine.finalize()
    print("received", flush=True)
"""


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    """Set GLOO_SOCKET_IFNAME as the CPU platform does."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")


def weights(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        "norm.weight": torch.randn(7, generator=draw).bfloat16(),  # 14 bytes, so the following weight is not aligned
        "scale": torch.randn((), generator=draw),
        "embed.weight": torch.randn(300, 101, generator=draw),  # 1.8 buckets
        "half.weight": torch.randn(401, 257, generator=draw).bfloat16(),  # 3.1 buckets
        "exact.weight": torch.randn(BUCKET // 4, generator=draw),  # one bucket
        "naïve.index": torch.arange(5),
    }


def of_rank(side: dict[str, list[int]], rank: int) -> dict[str, int]:
    return {key: values[rank] for key, values in side.items()}


def test_another_process_receives_what_was_sent(tmp_path):
    """Two syncs, as verl makes them: each with its own group, none of them registered with torch.distributed."""
    receiver = subprocess.Popen(
        [sys.executable, "-c", RECEIVER, str(BUCKET)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    sender = GlooCheckpointEngine(BUCKET, is_master=True, timeout=60)
    other = GlooCheckpointEngine(BUCKET, timeout=60)  # another rank of the actor, which only iterates over its weights
    try:
        while receiver.stdout.readline() != "ready\n":  # skip what verl prints during import
            assert receiver.poll() is None
        for seed in range(2):
            sent, walked = weights(seed), []
            actor, rollout = GlooCheckpointEngine.build_topology(2, 1, [sender.prepare(), other.prepare(), {}])
            receiver.stdin.write(json.dumps([str(tmp_path / "received"), of_rank(rollout, 0)]) + "\n")
            receiver.stdin.flush()
            for rank, engine in enumerate((sender, other)):
                engine.init_process_group(**of_rank(actor, rank))
            asyncio.run(sender.send_weights(iter(sent.items())))
            asyncio.run(other.send_weights(walked.append(item) or item for item in sent.items()))
            assert receiver.stdout.readline() == "received\n"
            received = torch.load(tmp_path / "received")
            assert list(received) == list(sent)
            assert all(received[name].dtype == sent[name].dtype for name in sent)
            assert all(torch.equal(received[name], sent[name]) for name in sent)
            assert len(walked) == len(sent)
            listening = [c for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
            assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
            sender.finalize()
            other.finalize()
        assert not torch.distributed.is_initialized()
        receiver.stdin.close()
        assert receiver.wait(timeout=60) == 0
    finally:
        receiver.kill()
        receiver.wait()


def test_waiting_too_long_for_the_others_raises():
    """A silent sender, which must not block the event loop; and a group that never completes."""
    sender, receiver = (GlooCheckpointEngine(BUCKET, is_master=master, timeout=1) for master in (True, False))
    actor, rollout = GlooCheckpointEngine.build_topology(1, 1, [sender.prepare(), receiver.prepare()])
    thread = threading.Thread(target=sender.init_process_group, kwargs=of_rank(actor, 0))
    thread.start()
    receiver.init_process_group(**of_rank(rollout, 0))
    thread.join()

    async def receive() -> None:
        receiving = asyncio.ensure_future(anext(receiver.receive_weights()))
        await asyncio.sleep(0.1)
        assert not receiving.done()
        with pytest.raises(RuntimeError, match="Timed out"):
            await receiving

    asyncio.run(receive())
    alone = GlooCheckpointEngine(BUCKET, is_master=True, timeout=1)
    with pytest.raises(RuntimeError):
        alone.init_process_group(rank=0, world_size=2, port=alone.prepare()["port"])
