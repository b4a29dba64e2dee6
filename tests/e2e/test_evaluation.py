# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The commands of `docs/evaluation.md` on the CPU: tiny models and a LoRA adapter through real vLLM, then a judge.

The judge is a tiny model in real vLLM: its answers are nonsense or, constrained by a grammar, A, B or TIE.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT
from tests.cpu.support import free_port, wait_for
from verl_cpu.tiny_model import make_tiny_qwen3
from verl_pgrpo.cli.evaluate import EXAMPLE
from verl_pgrpo.data import personas
from verl_pgrpo.evaluation.generate import CPU_ENVIRONMENT
from verl_pgrpo.rewards.personas import compute_score

pytestmark = pytest.mark.e2e
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
EVAL = [*shlex.split(EXAMPLE)[1:], "--max-tokens", "12", "--samples", "2", "--seed", "3", "--engine", "dtype=float32"]
ONE = ["eval", "--model", "grpo=runs/grpo/hf", "--data", "val.parquet", "--max-tokens", "12"]


def call(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "verl_pgrpo.cli", *arguments]
    run = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == status, (run.stdout[-3000:], run.stderr[-3000:])
    return run


def responses(path: Path) -> list[str]:
    return [json.loads(line)["response"] for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, a validation file, and their samples."""
    folder = tmp_path_factory.mktemp("evaluation")
    personas.make_split("val", 14).to_parquet(folder / "val.parquet")
    for seed, name in enumerate(("grpo", "pgrpo")):
        make_tiny_qwen3(folder / "runs" / name / "hf", personas.toy_vocabulary(), seed=seed)
    (folder / "report.json").write_text(call(folder, *EVAL, "--json").stdout)
    return folder


def test_two_models_are_scored_and_compared(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    assert report["reward"] == "pkg://verl_pgrpo.rewards.personas"
    rows = {row["extra_info"]["index"]: row for row in personas.make_split("val", 14).to_dict("records")}
    for model in report["models"]:
        assert (model["prompts"], model["responses"], model["adapter"]) == (14, 28, None)
        lines = [json.loads(line) for line in (folder / report["files"][model["name"]]).read_text().splitlines()]
        assert len({line["response"] for line in lines}) > 20, "each response is sampled on its own"
        for line in lines:
            row = rows[int(line["prompt_id"].removeprefix("val/"))]
            assert (line["prompt"], line["preference_group"]) == (row["prompt"][0]["content"], row["preference_group"])
            assert line["values"] == pytest.approx(
                compute_score("", line["response"], row["reward_model"]["ground_truth"])
            )
        for group in model["groups"]:
            mine = [line["score"] for line in lines if line["preference_group"] == group["group"]]
            assert group["mean"] == pytest.approx(sum(mine) / len(mine))
    assert report["comparisons"][0]["overall"]["prompts"] == 14
    again = json.loads(call(folder, "eval", "--scored", "samples/grpo.jsonl", "--seed", "3", "--json").stdout)
    assert again["models"] == report["models"][:1]


def test_a_subset_gets_the_same_responses_an_adapter_is_applied_and_a_crash_names_its_model(folder: Path) -> None:
    """Base weights and adapter as verl's merger writes them give the same responses as manually merged weights."""
    import torch
    from safetensors.torch import load_file, save_file
    from verl.model_merger.base_model_merger import BaseModelMerger

    source = folder / "runs/grpo/hf"
    for target in ("lora", "merged_by_hand", "broken"):
        shutil.copytree(source, folder / target)
    (folder / "broken/model.safetensors").write_bytes((source / "model.safetensors").read_bytes()[:1000])
    weights = load_file(source / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    adapter = {}
    for name in [name for name in weights if name.endswith("down_proj.weight")]:
        a = torch.randn(4, weights[name].shape[1], generator=generator) * 0.1
        b = torch.randn(weights[name].shape[0], 4, generator=generator) * 0.1
        prefix = f"base_model.model.{name.removesuffix('.weight')}"
        adapter |= {f"{prefix}.lora_A.default.weight": a, f"{prefix}.lora_B.default.weight": b}
        weights[name] = (weights[name].float() + 2.0 * b @ a).to(weights[name].dtype)  # alpha / rank = 2
    save_file(weights, folder / "merged_by_hand/model.safetensors", metadata={"format": "pt"})
    merger = SimpleNamespace(
        config=SimpleNamespace(target_dir=str(folder / "lora")), _load_lora_train_meta=lambda: {"r": 4, "lora_alpha": 8}
    )
    BaseModelMerger.save_lora_adapter(merger, dict(adapter))

    models = ["--model", "lora", "--model", "merged_by_hand", "--model", "broken"]
    options = ["--samples", "2", "--seed", "3", "--limit", "7", "--engine", "dtype=float32", "--out", "part"]
    [line] = call(folder, *ONE, *models, *options, status=2).stderr.splitlines()
    assert line.startswith("verl-pgrpo: error: model broken (broken): ")
    assert "its log is part/broken.vllm.log" in line
    assert not (folder / "part/broken.jsonl").exists()
    part = (folder / "part/grpo.jsonl").read_text().splitlines()
    assert len(part) == 14, "the other models' responses are kept"
    assert set(part) <= set((folder / "samples/grpo.jsonl").read_text().splitlines())
    base, lora, merged = (responses(folder / f"part/{name}.jsonl") for name in ("grpo", "lora", "merged_by_hand"))
    assert lora == merged != base


def alive(pid: str) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


@pytest.mark.parametrize(("ended", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_an_interrupted_run_leaves_no_vllm(folder: Path, ended: signal.Signals, status: int) -> None:
    command = [sys.executable, "-m", "verl_pgrpo.cli", *ONE, "--out", f"stopped{status}"]
    run = subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    log = folder / f"stopped{status}" / "grpo.vllm.log"
    wait_for(lambda: log.exists() and log.stat().st_size, 90, run)
    children = Path(f"/proc/{run.pid}/task/{run.pid}/children").read_text().split()
    [worker] = [pid for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    run.send_signal(ended)
    assert ("interrupted" in run.communicate(timeout=60)[1]) == (ended == signal.SIGINT)
    assert run.returncode == status
    wait_for(lambda: not alive(worker), 30)
    assert not list(log.parent.glob("*.jsonl*"))


@pytest.fixture(scope="module")
def vllm(folder: Path) -> Iterator[str]:
    """A tiny model behind vLLM's OpenAI-compatible server on 127.0.0.1."""
    make_tiny_qwen3(folder / "judge", ["A", "B", "TIE", *personas.toy_vocabulary()], seed=5)
    port = free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "judge")]
    command += ["--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    with (folder / "server.log").open("wb") as log:
        environment = {**ENVIRONMENT, **CPU_ENVIRONMENT}
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while True:
            assert server.poll() is None, (folder / "server.log").read_text()[-3000:]
            assert time.monotonic() < deadline
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.terminate()
        try:
            server.wait(timeout=30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def test_real_vllm_judges_nonsense_and_within_a_grammar(folder: Path, vllm: str) -> None:
    arguments = ["judge", "--a", "samples/pgrpo.jsonl", "--b", "samples/grpo.jsonl", "--model", "tiny"]
    arguments += ["--base-url", vllm, "--max-tokens", "16"]
    call(folder, *arguments, "--json", "free.json")
    free = json.loads((folder / "free.json").read_text())
    assert free["verdicts"]["malformed"] > 50
    assert (free["requests"]["made"], sum(free["verdicts"].values()), free["verdicts"]["refused"]) == (56, 56, 0)
    assert free["tokens"]["input"] > 1000, "the server's own count"
    call(folder, *arguments, "--json", "bound.json", "--constrain")
    bound = json.loads((folder / "bound.json").read_text())
    assert bound["verdicts"]["malformed"] == 0
    assert bound["position"]["decided"] + bound["verdicts"]["tie"] == 56
    assert "HTTP 404" in call(folder, *arguments, "--json", "none.json", "--model", "other", status=2).stderr
