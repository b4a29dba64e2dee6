# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""P-GRPO through verl's Megatron engine, tensor-parallel on the CPU, with real vLLM rollouts; killed, and resumed."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
import torch

from tests.cpu.megatron_support import make_tiny_moe, worst
from tests.e2e import runs
from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.data import personas

pytestmark = [pytest.mark.e2e, pytest.mark.megatron]

EMBEDDING = "model.embed_tokens.weight"


def syncs(folder: Path, kind: str) -> list[list[dict]]:
    """For each process that has written such weights, all of them in order."""
    found: dict[int, dict[int, Path]] = {}
    for path in folder.glob(f"{kind}-*.pt"):
        pid, number = map(int, re.findall(r"\d+", path.stem))
        found.setdefault(pid, {})[number] = path
    return [[torch.load(paths[number]) for number in sorted(paths)] for paths in found.values()]


def as_vllm_has_it(sent: dict) -> dict:
    """Map HF's weights to vLLM's: layers with the same input form one matrix, experts one tensor; no tied head."""
    weights, experts = dict(sent), {}
    if "lm_head.weight" in weights and torch.equal(weights["lm_head.weight"], weights[EMBEDDING]):
        del weights["lm_head.weight"]
    for name in [name for name in weights if ".experts." in name]:
        stem, number, part = re.fullmatch(r"(.*\.experts)\.(\d+)\.(\w+)_proj\.weight", name).groups()
        experts.setdefault(stem, {})[int(number), part] = weights.pop(name)
    for stem, parts in experts.items():
        numbers = range(len(parts) // 3)
        both = [torch.cat([parts[number, "gate"], parts[number, "up"]]) for number in numbers]
        weights[f"{stem}.routed_experts.w13_weight"] = torch.stack(both)
        weights[f"{stem}.routed_experts.w2_weight"] = torch.stack([parts[number, "down"] for number in numbers])
    for name in [name for name in weights if name.endswith(("q_proj.weight", "gate_proj.weight"))]:
        stem, _, last = name.rpartition(".weight")[0].rpartition(".")
        parts = {"q_proj": ("q_proj", "k_proj", "v_proj"), "gate_proj": ("gate_proj", "up_proj")}[last]
        fused = {"q_proj": "qkv_proj", "gate_proj": "gate_up_proj"}[last]
        weights[f"{stem}.{fused}.weight"] = torch.cat([weights.pop(f"{stem}.{part}.weight") for part in parts])
    return weights


def check_syncs(folder: Path, at_least: int) -> list[dict]:
    """Check every sync: both trainer ranks sent the same weights, both replicas hold them. Return the sent weights."""
    sent, loaded = syncs(folder, "sent"), syncs(folder, "loaded")
    assert len(sent) == len(loaded) == 2
    complete = min(len(own) for own in [*sent, *loaded])  # a killed run's last sync may be incomplete
    assert complete >= at_least
    for number in range(complete):
        wanted = as_vllm_has_it(sent[0][number])
        assert worst(sent[0][number], sent[1][number]) == 0
        for replica in loaded:
            held = replica[number]
            for name in {EMBEDDING, "lm_head.weight"} & set(held):  # vLLM pads the vocabulary
                held[name] = held[name][: len(wanted[name])]
            assert worst(held, wanted) == 0
    for before, after in zip(sent[0], sent[0][1:complete], strict=False):
        assert worst(before, after) > 0
    return sent[0][:complete]


def test_megatron_run_is_killed_and_resumed_exactly(tmp_path, monkeypatch):
    """TP=2 with sequence parallelism and the distributed optimizer; padding rows and sessions of two outputs."""
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "tests.e2e.weight_probe")
    runs.prepare(tmp_path)

    def start(name: str, *overrides: str):
        (tmp_path / f"{name}-weights").mkdir()
        monkeypatch.setenv("WEIGHT_PROBE", str(tmp_path / f"{name}-weights"))
        return runs.start(tmp_path, name, "model_engine=megatron", *overrides, preset="cpu_megatron")

    run = start("first", "trainer.total_training_steps=40", "trainer.save_freq=4")
    runs.wait_for(tmp_path / "rollouts" / "5.jsonl", run)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    saved, _ = runs.settle(tmp_path)
    assert saved >= 4
    first_sent = check_syncs(tmp_path / "first-weights", 1 + saved)  # the first sync is before the first step

    end = saved + 3
    second = start("second", f"trainer.total_training_steps={end}", "trainer.save_freq=100")
    log = runs.finish(second, tmp_path, "second")
    assert f"history so far: {16 * saved} rewards" in log
    second_sent = check_syncs(tmp_path / "second-weights", 1 + end - saved)

    # On each rank, the model continues from the saved step's weights and the optimizer from its complete state.
    assert worst(second_sent[0], first_sent[saved]) == 0
    for rank in range(2):
        left = torch.load(tmp_path / "first-weights" / f"optimizer-{saved}-{rank}.pt")
        found = torch.load(tmp_path / "second-weights" / f"optimizer-{saved}-{rank}.pt")
        assert left[0] == 2 * saved  # updates: 32 rows a step, padding included, in mini-batches of 16
        assert len(left) == len(found)
        for one, other in zip(left, found, strict=True):
            assert torch.equal(one, other) if torch.is_tensor(one) else one == other

    # The history is bit-identical to the one recomputed from the rollouts.
    afresh = GroupHistoryManager()
    assert runs.replay(afresh, tmp_path, range(1, saved + 1)) == [16] * saved
    runs.assert_same(runs.history_of(tmp_path, saved), afresh)
    assert runs.replay(afresh, tmp_path, range(saved + 1, end + 1)) == [16] * (end - saved)
    runs.assert_same(runs.history_of(tmp_path, end), afresh)
    assert runs.totals(tmp_path, "second") == {step: 16.0 * step for step in range(saved + 1, end + 1)}
    for values in runs.metrics(tmp_path, "second").values():
        assert values["training/rollout_probs_diff_mean"] < 2e-3  # bfloat16 on both sides


MEGATRON = "actor_rollout_ref.actor.megatron"


@pytest.mark.parametrize("layout", [pytest.param("pipeline", marks=pytest.mark.stress), "experts"])
def test_other_layouts_train_through_main_ppo(tmp_path, monkeypatch, layout):
    """PP=2; and a Qwen3-MoE with its experts on two processes (TP=2, EP=2): vLLM has the trained weights."""
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "tests.e2e.weight_probe")
    monkeypatch.setenv("WEIGHT_PROBE", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    runs.prepare(tmp_path)
    if layout == "pipeline":
        overrides = [f"{MEGATRON}.tensor_model_parallel_size=1", f"{MEGATRON}.pipeline_model_parallel_size=2"]
    else:
        make_tiny_moe(tmp_path / "model", personas.toy_vocabulary())
        overrides = [
            f"{MEGATRON}.expert_model_parallel_size=2",
            f"{MEGATRON}.expert_tensor_parallel_size=1",
            f"+{MEGATRON}.override_transformer_config.moe_permute_fusion=False",
        ]
    run = runs.start(
        tmp_path, "run", "model_engine=megatron", "trainer.total_training_steps=3", *overrides, preset="cpu_megatron"
    )
    runs.finish(run, tmp_path, "run")
    check_syncs(tmp_path / "weights", 4)
    steps = runs.metrics(tmp_path, "run")
    assert [values["pgrpo/observed_total"] for values in steps.values()] == [16.0, 32.0, 48.0]
    for values in steps.values():
        assert values["training/rollout_probs_diff_mean"] < 2e-3  # bfloat16 on both sides
