# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron engine on the CPU agrees with HF in every layout. `tests/e2e/test_megatron.py` resumes it.

Tests the shims whose absence would go unnoticed: training with wrong weights or buffers raises no error. All run in
separate processes.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.cpu.megatron_support import in_processes, make_tiny_moe, update, worst, write_batch
from verl_cpu.tiny_model import make_tiny_qwen3
from verl_pgrpo.data import personas

pytestmark = [pytest.mark.slow, pytest.mark.megatron]


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    words = personas.toy_vocabulary()
    make_tiny_qwen3(folder / "model", words, seed=1)
    write_batch(folder, len(words))
    return folder


SHIMMED = """
import os
import sys
import torch
import torch.distributed as dist
from transformers import AutoModelForCausalLM
from verl_cpu import fake_cuda

fake_cuda.install()
dist.init_process_group("gloo")
whole = torch.arange(24.0).view(4, 6)
mine = torch.empty(4, 3)
dist.scatter(mine, list(whole.chunk(2, dim=1)) if dist.get_rank() == 0 else None, src=0)
assert torch.equal(mine, whole.chunk(2, dim=1)[dist.get_rank()]), mine
with torch.device("meta"):
    assert torch.empty(2).is_meta
assert torch.zeros(2, device="cuda").device.type == "cpu"
assert torch.ones(2).to("cuda:0").cuda().to(device=torch.device("cuda")).device.type == "cpu"
assert torch.ones(2).type() == "torch.cuda.FloatTensor"
assert not torch.cuda.is_available()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1] + "/model", dtype=torch.float32)
torch.save(dict(model.named_buffers()) | dict(model.named_parameters()), f"{sys.argv[1]}/loaded.pt")
dist.barrier()
dist.destroy_process_group()
"""


def test_strided_columns_are_scattered_and_models_load_through_the_meta_device(dense):
    in_processes(2, "-c", SHIMMED, str(dense))
    model = AutoModelForCausalLM.from_pretrained(dense / "model", dtype=torch.float32)
    expected = dict(model.named_buffers()) | dict(model.named_parameters())
    assert any("inv_freq" in name for name in expected)
    assert worst(torch.load(dense / "loaded.pt"), expected) == 0


OTHERS = """
import sys
import warnings
warnings.simplefilter("ignore")
import torch
import verl.workers.engine
import verl.workers.engine_workers
assert not hasattr(torch.cuda, "_verl_cpu")
assert verl.workers.engine.MegatronEngine is None
assert "transformer_engine" not in sys.modules
assert "megatron.core" not in sys.modules
"""


def test_only_training_processes_get_the_fake_device():
    """Other processes of a run have no Megatron, no transformer-engine and an unchanged torch."""
    in_processes(1, "-c", OTHERS)


@pytest.fixture(scope="module")
def alone(dense) -> dict:
    """The update by one process."""
    return update(dense, 1, tp=1)


def test_one_process_has_the_log_probabilities_of_hf(dense, alone):
    mask = torch.load(dense / "batch.pt")["response_mask"]
    assert (alone["log_probs"] * mask - torch.load(dense / "log_probs.pt")).abs().max() < 3e-6
    start = load_file(dense / "model" / "model.safetensors")
    assert 1e-3 < worst(alone["weights"], start) < 1  # the update is large compared with the tolerances below


def check_layout(folder: Path, alone: dict, **layout: int) -> None:
    found = update(folder, 2, **layout)
    assert (found["log_probs"] - alone["log_probs"]).abs().max() < 3e-6
    assert found["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-5)
    assert worst(found["weights"], alone["weights"]) < 1e-6


@pytest.mark.parametrize("layout", [{"tp": 2}, {"tp": 1, "pp": 2}], ids=str)
def test_layouts_agree(dense, alone, layout):
    check_layout(dense, alone, **layout)


def test_experts_on_two_processes(tmp_path):
    """Expert parallelism (EP=2 over the tensor-parallel ranks): HF's log-probabilities, and one process's update."""
    words = personas.toy_vocabulary()
    make_tiny_moe(tmp_path / "model", words)
    write_batch(tmp_path, len(words))
    mask = torch.load(tmp_path / "batch.pt")["response_mask"]
    alone = update(tmp_path, 1, tp=1)
    assert (alone["log_probs"] * mask - torch.load(tmp_path / "log_probs.pt")).abs().max() < 3e-6
    assert sum("experts" in name for name in alone["weights"]) == 2 * 4 * 3
    check_layout(tmp_path, alone, tp=2, ep=2)
