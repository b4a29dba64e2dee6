# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""verl's Megatron engine on the CPU says what HF says, in every layout, and resumes exactly.

Each shim of `verl_cpu` whose absence would be silent has a test here: wrong weights, wrong
buffers and a forgotten step count all train without an error. All in processes of their own.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file

from tests.conftest import ROOT
from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.data import personas
from verl_pgrpo.data.tiny_model import make_tiny_qwen3, make_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.megatron]


def environment() -> dict[str, str]:
    """A free port and few threads; `VERL_PLATFORM` as a run has it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "VERL_PLATFORM": "cpu",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def in_processes(size: int, *arguments: str, seconds: float = 240) -> None:
    """Run `python *arguments` once per rank; fails with the output of the first that fails."""
    shared = environment()
    ranks = []
    for rank in range(size):
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
        ranks.append(
            subprocess.Popen(
                [sys.executable, *arguments],
                env={**shared, **own},
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        for rank in ranks:
            output, _ = rank.communicate(timeout=seconds)
            assert rank.returncode == 0, output[-4000:]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def probe(folder: Path, run: str, size: int, **task: object) -> dict:
    """One task of `tests/cpu/megatron_probe.py` over `size` processes; what the first rank found.

    Only the last pipeline stage has log-probabilities: `log_probs` is the one that is not None.
    """
    name = run + "".join(f"-{key}{value}" for key, value in task.items())
    in_processes(
        size, "-m", "tests.cpu.megatron_probe", json.dumps({"folder": str(folder), "run": run, "name": name, **task})
    )
    results = [torch.load(folder / f"{name}-{rank}.pt") for rank in range(size)]
    return next((result for result in results if result.get("log_probs") is not None), results[0])


def write_batch(folder: Path, vocabulary: int) -> None:
    """A P-GRPO update as verl's trainer makes it: `batch.pt`, left-right padded, uneven lengths.

    The old log-probabilities are those of a policy near the present one, so that some ratios are clipped.
    """
    from transformers import AutoModelForCausalLM

    draw = torch.Generator().manual_seed(5)
    rows, prompt, response = 12, 9, 11
    prompts = torch.randint(5, vocabulary, (rows, prompt), generator=draw)
    responses = torch.randint(5, vocabulary, (rows, response), generator=draw)
    skipped = torch.randint(0, prompt - 2, (rows, 1), generator=draw)
    lengths = torch.randint(3, response + 1, (rows, 1), generator=draw)
    response_mask = (torch.arange(response) < lengths).long()
    attention_mask = torch.cat([(torch.arange(prompt) >= skipped).long(), response_mask], dim=1)
    input_ids = torch.cat([prompts, responses], dim=1) * attention_mask
    position_ids = (attention_mask.cumsum(dim=1) - 1).clamp(min=0)

    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        logits = model(input_ids, attention_mask=attention_mask, position_ids=position_ids).logits
    all_log_probs = logits[:, prompt - 1 : -1].log_softmax(dim=-1)
    log_probs = all_log_probs.gather(-1, input_ids[:, prompt:, None])[..., 0] * response_mask

    groups = [f"user {row % 3}" for row in range(rows)]
    rewards = torch.randn(rows, generator=draw).double().numpy() * 2 + 1
    advantages = GroupHistoryManager().advantages(groups, rewards).advantages
    batch = {
        "input_ids": input_ids,
        "prompts": input_ids[:, :prompt],
        "responses": input_ids[:, prompt:],
        "attention_mask": attention_mask,
        "position_ids": position_ids,
        "response_mask": response_mask,
        "old_log_probs": log_probs + 0.15 * torch.randn(log_probs.shape, generator=draw) * response_mask,
        "advantages": torch.as_tensor(advantages, dtype=torch.float32)[:, None] * response_mask,
    }
    torch.save(batch, folder / "batch.pt")
    torch.save(log_probs, folder / "log_probs.pt")


@pytest.fixture(scope="module")
def dense(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dense")
    words = personas.toy_vocabulary()
    make_tiny_qwen3(folder / "model", words, seed=1)
    write_batch(folder, len(words))
    return folder


def worst(one: dict, other: dict) -> float:
    assert sorted(one) == sorted(other)
    return max((one[name].float() - other[name].float()).abs().max().item() for name in one)


def leaves(tree: object, path: str = "") -> dict[str, object]:
    if not isinstance(tree, dict):
        return {path: tree}
    return {leaf: value for key, branch in tree.items() for leaf, value in leaves(branch, f"{path}.{key}").items()}


def test_the_preset_repeats_the_preset_cpu(compose):
    """All but what the engine is about; and verl takes it."""
    from verl.utils.config import omega_conf_to_dataclass

    cpu, megatron = (
        leaves(OmegaConf.to_container(OmegaConf.load(ROOT / "verl_cpu" / "presets" / f"{name}.yaml")))
        for name in ("cpu", "cpu_megatron")
    )
    different = {key for key in cpu | megatron if cpu.get(key) != megatron.get(key) and "fsdp_config" not in key}
    role = ".actor_rollout_ref."
    assert different == {
        ".defaults",
        f"{role}actor.strategy",
        f"{role}ref.strategy",
        f"{role}model.use_remove_padding",
        f"{role}actor.megatron.tensor_model_parallel_size",
        f"{role}rollout.dtype",
        ".trainer.n_gpus_per_node",
    }
    actor = omega_conf_to_dataclass(compose(config_name="cpu_megatron").actor_rollout_ref.actor)
    assert actor.strategy == "megatron"
    assert actor.megatron.sequence_parallel
    assert actor.megatron.use_distributed_optimizer


# ------------------------------------------------------------------------------------------- the silent traps, one each

SCATTER = """
import os
import torch
import torch.distributed as dist
from verl_cpu.fake_cuda import pretend_cuda

if os.environ["SHIM"] == "on":
    pretend_cuda()
dist.init_process_group("gloo")
whole = torch.arange(24.0).view(4, 6)
mine = torch.empty(4, 3)
dist.scatter(mine, list(whole.chunk(2, dim=1)) if dist.get_rank() == 0 else None, src=0)
right = torch.equal(mine, whole.chunk(2, dim=1)[dist.get_rank()])
dist.barrier()
dist.destroy_process_group()
assert right is (os.environ["SHIM"] == "on"), mine
"""


@pytest.mark.parametrize("shim", ["on", "off"])
def test_columns_are_scattered_as_they_are(monkeypatch, shim):
    """`off` is the reason for the shim: once gloo does this right, that one fails, and the shim can go."""
    monkeypatch.setenv("SHIM", shim)
    in_processes(2, "-c", SCATTER)


META = """
import sys
import torch
from transformers import AutoModelForCausalLM

if sys.argv[2] == "on":
    from verl_cpu.fake_cuda import pretend_cuda
    pretend_cuda()
    with torch.device("meta"):
        assert torch.empty(2).is_meta
    assert torch.zeros(2, device="cuda").device.type == "cpu"
    assert torch.ones(2).to("cuda:0").cuda().to(device=torch.device("cuda")).device.type == "cpu"
    assert torch.ones(2).type() == "torch.cuda.FloatTensor"
    assert not torch.cuda.is_available()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1] + "/model", dtype=torch.float32)
torch.save(dict(model.named_buffers()) | dict(model.named_parameters()), f"{sys.argv[1]}/loaded-{sys.argv[2]}.pt")
"""


def test_models_load_by_way_of_the_meta_device(dense):
    for shim in ("on", "off"):
        in_processes(1, "-c", META, str(dense), shim)
    with_shim, without = (torch.load(dense / f"loaded-{shim}.pt") for shim in ("on", "off"))
    assert any("inv_freq" in name for name in without)
    assert worst(with_shim, without) == 0


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
    """Other processes of a run: no Megatron, no transformer-engine, torch as it was."""
    in_processes(1, "-c", OTHERS)


def test_a_resumed_update_is_the_same_to_the_last_bit(dense):
    """Also of the step count, without which Adam's bias correction starts anew."""
    found = probe(dense, "resume", 2, tp=2, dtype="bfloat16", lr=1e-3, eps=1e-8)
    assert found["through"]["optimizer"][0] == found["again"]["optimizer"][0] == 3
    assert found["loaded"][0] == 2
    for one, other in zip(found["through"]["optimizer"], found["again"]["optimizer"], strict=True):
        assert one == other if not torch.is_tensor(one) else torch.equal(one, other)
    assert worst(found["through"]["weights"], found["again"]["weights"]) == 0


# -------------------------------------------------------------------------------------------------- parity and layouts


@pytest.fixture(scope="module")
def alone(dense) -> dict:
    """The update by one process."""
    return probe(dense, "update", 1, tp=1)


def test_one_process_has_the_log_probabilities_of_hf(dense, alone):
    mask = torch.load(dense / "batch.pt")["response_mask"]
    assert (alone["log_probs"] * mask - torch.load(dense / "log_probs.pt")).abs().max() < 3e-6
    start = load_file(dense / "model" / "model.safetensors")
    assert 1e-3 < worst(alone["weights"], start) < 1  # the update is large beside what is compared below


@pytest.mark.parametrize(("size", "layout"), [(2, {"tp": 2}), (2, {"tp": 1, "pp": 2})])
def test_layouts_agree(dense, alone, size, layout):
    found = probe(dense, "update", size, **layout)
    assert (found["log_probs"] - alone["log_probs"]).abs().max() < 3e-6
    assert found["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-5)
    assert worst(found["weights"], alone["weights"]) < 1e-6


# ------------------------------------------------------------------------------------------------- mixtures of experts


def make_tiny_moe(path: Path, words: list[str], seed: int = 0) -> None:
    """A random Qwen3-MoE: two layers, four experts of which two work for each token."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    tokenizer = make_tokenizer(words)
    config = Qwen3MoeConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        moe_intermediate_size=48,
        num_experts=4,
        num_experts_per_tok=2,
        norm_topk_prob=True,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,  # the least that vLLM has on a CPU
        initializer_range=0.12,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3MoeForCausalLM(config)
        with torch.no_grad():
            model.get_input_embeddings().weight[tokenizer.pad_token_id].normal_(0.0, 0.12)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def test_experts_on_two_processes(tmp_path):
    """Expert parallelism (EP=2 over the tensor-parallel ranks): HF's log-probabilities, and one process's update."""
    words = personas.toy_vocabulary()
    make_tiny_moe(tmp_path / "model", words)
    write_batch(tmp_path, len(words))
    mask = torch.load(tmp_path / "batch.pt")["response_mask"]
    alone = probe(tmp_path, "update", 1, tp=1)
    assert (alone["log_probs"] * mask - torch.load(tmp_path / "log_probs.pt")).abs().max() < 3e-6
    assert sum("experts" in name for name in alone["weights"]) == 2 * 4 * 3
    split = probe(tmp_path, "update", 2, tp=2, ep=2)
    assert (split["log_probs"] - alone["log_probs"]).abs().max() < 3e-6
    assert split["grad_norm"] == pytest.approx(alone["grad_norm"], rel=1e-5)
    assert worst(split["weights"], alone["weights"]) < 1e-6
