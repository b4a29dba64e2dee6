# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Failures after which verl would wait forever end a CPU run within 30 s, with the original error as the last line."""

from __future__ import annotations

import psutil
import pytest

from tests.e2e import runs
from verl_pgrpo.data import personas
from verl_pgrpo.data.tiny_model import make_tiny_qwen3

pytestmark = pytest.mark.e2e


def last_line(run, folder) -> str:
    """Wait for the run's failure, at most 30 s; return the last line of its output."""
    try:
        assert run.wait(timeout=30) == 1
    finally:
        run.terminate()
        run.wait()
    return (folder / "run.log").read_text(errors="replace").rstrip().splitlines()[-1]


def test_failed_weight_sync(tmp_path, monkeypatch):
    """Of a model with tied embeddings in several buckets: the first two syncs succeed."""
    monkeypatch.setenv("VERL_USE_EXTERNAL_MODULES", "tests.e2e.failing_sync")
    monkeypatch.setenv("FAILED_SYNC", str(tmp_path / "failed"))
    runs.prepare(tmp_path)
    words = personas.toy_vocabulary()
    make_tiny_qwen3(tmp_path / "model", [*words, *(f"word{i}" for i in range(1500 - len(words)))], seed=0)
    bucket = "actor_rollout_ref.rollout.checkpoint_engine.update_weights_bucket_megabytes=1"
    run = runs.start(tmp_path, "run", "trainer.total_training_steps=9", bucket)
    runs.wait_for(tmp_path / "failed", run)
    assert last_line(run, tmp_path).endswith("ValueError: these weights cannot be loaded")


@pytest.mark.parametrize("title", ["VLLM::EngineCore", "ray::WorkerDict"])
def test_dead_worker(tmp_path, title):
    runs.prepare(tmp_path)
    run = runs.start(tmp_path, "run", "trainer.total_training_steps=400", "trainer.save_freq=-1")
    runs.wait_for(tmp_path / "rollouts" / "2.jsonl", run)
    for process in psutil.Process(run.pid).children(recursive=True):
        if " ".join(process.cmdline()).startswith(title):
            process.kill()
    assert title in last_line(run, tmp_path)
