# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's weight sync on a CPU: its own sender and receiver, one of which fails; and tied weights."""

from __future__ import annotations

import json

import pytest

from tests.cpu.support import python

# Weights of 1.5 MiB in buckets of 1 MiB, to a receiver that loads them, one that fails, and one whose engine is dead.
TRANSFER = """
import asyncio, json, os
from concurrent.futures import Future, ThreadPoolExecutor
import verl, torch
from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer as transfer
from verl_cpu import weight_sync
weights = {"one": torch.rand(1 << 17), "two": torch.rand(1 << 18)}
received = {}

def load(bucket, is_last):
    received.update({name: tensor.clone() for name, tensor in bucket})

def fail(bucket, is_last):
    raise ValueError("cannot load " + bucket[0][0])

def send(number, receive):
    socket = f"ipc:///tmp/rl-colocate-zmq-{os.getpid()}-{number}.sock"
    receiver = transfer.BucketedWeightReceiver(socket, torch.device("cpu"), use_shm=True)
    receiving = Future()
    if receive is None:
        receiving.set_exception(RuntimeError("engine dead"))
    else:
        receiving = ThreadPoolExecutor().submit(receiver.receive_weights, on_bucket_received=receive)
    weight_sync._receiving.set(receiving)
    try:
        asyncio.run(transfer.BucketedWeightSender(socket, 1, use_shm=True).async_send_weights(iter(weights.items())))
        receiving.result()
    except Exception as error:
        return f"{type(error).__name__} {error}"

errors = [send(1, load), send(2, fail)]
left = [name for folder in ("/tmp", "/dev/shm") for name in os.listdir(folder) if os.environ["VERL_CPU_RUN_ID"] in name]
errors.append(send(3, None))
loaded = all(torch.equal(weights[name], received[name]) for name in weights)

# vLLM's loader, a bucket at a time.
import verl.workers.rollout.vllm_rollout.utils
from vllm.model_executor.models.utils import AutoWeightsLoader
class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = torch.nn.Embedding(3, 2)
        self.lm_head = torch.nn.Linear(2, 3, bias=False)
        self.lm_head.weight = self.embed_tokens.weight
model, new = Model(), torch.rand(3, 2)
loader = AutoWeightsLoader(model)
loader.aliased_params = {"lm_head.weight": "embed_tokens.weight"}
for name in ("lm_head.weight", "embed_tokens.weight"):
    loader.load_weights([(name, new)])
print(json.dumps([errors, left, loaded, torch.equal(model.lm_head.weight, new)]))
"""


@pytest.mark.slow
def test_transfers_end_with_the_receivers_error_and_tied_weights_may_be_apart():
    errors, left, loaded, tied = json.loads(python(TRANSFER, VERL_PLATFORM="cpu").splitlines()[-1])
    assert errors == [None, "RuntimeError ValueError: cannot load one", "RuntimeError engine dead"]
    assert left == []
    assert loaded
    assert tied
