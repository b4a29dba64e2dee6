# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The checkpoint engine `gloo`: what a second process receives is what was sent, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
import time

import psutil
import pytest
import torch

from verl_cpu.gloo_checkpoint_engine import GlooCheckpointEngine

pytestmark = pytest.mark.slow

BUCKET = 1 << 16

RECEIVER = """
import asyncio, hashlib, json, sys
import torch
from verl_cpu.gloo_checkpoint_engine import GlooCheckpointEngine

def digest(tensor):
    return hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()

async def receive(engine):
    kept = [(name, weight) async for name, weight in engine.receive_weights()]
    return [(name, list(weight.shape), str(weight.dtype), digest(weight)) for name, weight in kept]

print("ready", flush=True)
engine = GlooCheckpointEngine(bucket_size=int(sys.argv[1]), timeout=10)
for line in sys.stdin:  # one sync each
    engine.prepare()
    engine.init_process_group(**json.loads(line))
    print(json.dumps(asyncio.run(receive(engine))), flush=True)
    engine.finalize()
"""


@pytest.fixture(autouse=True)
def loopback(monkeypatch):
    """As the CPU platform sets it."""
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "norm.weight": torch.randn(7, dtype=torch.bfloat16),  # 14 bytes: what follows is not aligned to it
        "scale": torch.randn((), dtype=torch.float32),
        "embed.weight": torch.randn(300, 101, dtype=torch.float32),  # 1.8 buckets
        "half.weight": torch.randn(401, 257, dtype=torch.bfloat16),  # 3.1 buckets
        "exact.weight": torch.randn(BUCKET // 4, dtype=torch.float32),  # one bucket
        "naïve.index": torch.arange(5),
    }


def pair(timeout: float) -> tuple[GlooCheckpointEngine, GlooCheckpointEngine]:
    """A sender and a receiver in this process, connected."""
    sender = GlooCheckpointEngine(BUCKET, is_master=True, timeout=timeout)
    receiver = GlooCheckpointEngine(BUCKET, timeout=timeout)
    (one, other) = (
        {key: values[0] for key, values in side.items()}
        for side in GlooCheckpointEngine.build_topology(1, 1, [sender.prepare(), receiver.prepare()])
    )
    thread = threading.Thread(target=sender.init_process_group, kwargs=one)
    thread.start()
    receiver.init_process_group(**other)
    thread.join()
    return sender, receiver


def test_another_process_receives_what_was_sent():
    """Two syncs, as verl does them: each with a group of its own. torch.distributed's groups stay as they are."""
    child = subprocess.Popen(
        [sys.executable, "-c", RECEIVER, str(BUCKET)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    sender = GlooCheckpointEngine(BUCKET, is_master=True, timeout=10)
    beside = GlooCheckpointEngine(BUCKET, timeout=10)  # another rank of the actor
    try:
        while child.stdout.readline() != "ready\n":  # whatever verl prints while it is imported
            assert child.poll() is None
        for seed in range(2):
            sent = weights(seed)
            metadata = [sender.prepare(), beside.prepare(), {}]
            actor, rollout = GlooCheckpointEngine.build_topology(2, 1, metadata)
            child.stdin.write(json.dumps({key: values[0] for key, values in rollout.items()}) + "\n")
            child.stdin.flush()
            for rank, engine in enumerate((sender, beside)):
                engine.init_process_group(**{key: values[rank] for key, values in actor.items()})
            walked = []
            asyncio.run(sender.send_weights(iter(sent.items())))
            asyncio.run(beside.send_weights(walked.append(item) or item for item in sent.items()))
            received = json.loads(child.stdout.readline())
            assert received == [[k, list(v.shape), str(v.dtype), digest(v)] for k, v in sent.items()]
            assert [name for name, _ in walked] == list(sent)
            listening = [c for c in psutil.Process().net_connections() if c.status == psutil.CONN_LISTEN]
            assert {c.laddr.ip for c in listening} == {"127.0.0.1"}
            sender.finalize()
            beside.finalize()
        assert not torch.distributed.is_initialized()
        child.stdin.close()
        assert child.wait(timeout=20) == 0
    finally:
        child.kill()
        child.wait()


def test_a_silent_sender_is_an_error_and_does_not_block_the_event_loop():
    _sender, receiver = pair(timeout=1)

    async def receive() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.05)
                ticks += 1

        ticking = asyncio.create_task(tick())
        with pytest.raises(RuntimeError, match="Timed out"):
            async for _ in receiver.receive_weights():
                pass
        ticking.cancel()
        return ticks

    started = time.monotonic()
    assert asyncio.run(receive()) >= 5
    assert time.monotonic() - started < 10


def test_a_receiver_that_goes_away_is_an_error():
    sender, receiver = pair(timeout=1)
    receiver.finalize()
    with pytest.raises(RuntimeError):
        asyncio.run(sender.send_weights(iter(weights(0).items())))


def test_a_group_that_is_not_complete_is_an_error():
    sender = GlooCheckpointEngine(BUCKET, is_master=True, timeout=1)
    with pytest.raises(RuntimeError):
        sender.init_process_group(rank=0, world_size=2, port=sender.prepare()["port"])


def test_order_of_calls_is_checked():
    with pytest.raises(RuntimeError, match="init_process_group comes first"):
        asyncio.run(GlooCheckpointEngine(BUCKET, is_master=True).send_weights(iter(weights(0).items())))


def test_the_preset_names_it(compose):
    from verl.checkpoint_engine import CheckpointEngineRegistry

    config = compose(config_name="cpu_separate_async")
    engine = config.actor_rollout_ref.rollout.checkpoint_engine
    assert engine.custom_backend_module == GlooCheckpointEngine.__module__
    assert CheckpointEngineRegistry.get(engine.backend) is GlooCheckpointEngine
    updates = config.trainer.v1.separate_async.parameter_sync_step
    assert config.data.train_batch_size == updates * config.actor_rollout_ref.actor.ppo_mini_batch_size
    devices = config.trainer.n_gpus_per_node + config.actor_rollout_ref.rollout.n_gpus_per_node
    assert config.ray_kwargs.ray_init.num_gpus == devices
