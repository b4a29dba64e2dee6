# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Real runs of verl on the CPU: data, a tiny model, the user's command, and the files that it writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.conftest import ROOT
from tests.cpu import support
from verl_cpu.tiny_model import make_tiny_qwen3
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.data import personas

TIMEOUT = 600.0
MAIN_PPO = "verl.trainer.main_ppo"
OURS = ("+algorithm.pgrpo.baseline=shrinkage", "+algorithm.pgrpo.group_balance=0.5")  # not the paper's


def prepare(folder: Path, rows: int = 256, noise: float = 0.1) -> None:
    """Persona data and a tiny model of random weights."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, size in (("train", rows), ("val", 7)):
        personas.make_split(split, size, noise=noise).to_parquet(folder / f"{split}.parquet")
    make_tiny_qwen3(folder / "model", personas.toy_vocabulary(), seed=0)


def command(
    folder: Path, *overrides: str, mode: str = "sync", preset: str = "cpu", module: str = MAIN_PPO
) -> list[str]:
    """A P-GRPO run on a CPU preset: 8 prompts x 2 sessions per step, through the launcher that cleans up."""
    arguments = {
        "algorithm.adv_estimator": "pgrpo",
        "data.train_files": folder / "train.parquet",
        "data.val_files": folder / "val.parquet",
        "data.train_batch_size": 8,
        "data.max_response_length": 8,
        "actor_rollout_ref.model.path": folder / "model",
        "actor_rollout_ref.actor.optim.lr": 1e-3,
        "actor_rollout_ref.rollout.n": 2,
        "actor_rollout_ref.rollout.agent.agent_loop_config_path": ROOT / "tests" / "e2e" / "agent.yaml",
        "actor_rollout_ref.rollout.agent.default_agent_loop": "sometimes_two_outputs",
        "reward.custom_reward_function.path": "pkg://verl_pgrpo.rewards.personas",
        "trainer.v1.trainer_mode": mode,
        "trainer.logger": "[console,file]",
        "trainer.default_local_dir": folder / "checkpoints",
        "trainer.rollout_data_dir": folder / "rollouts",
        "trainer.save_freq": 2,
        "hydra.run.dir": folder / "hydra",
    }
    launcher = [sys.executable, "-m", "verl_cpu.run", "--module", module]
    launcher += ["--timeout", str(TIMEOUT), "--"]
    config = ["--config-dir", str(ROOT / "verl_cpu" / "presets"), "--config-name", preset]
    return [*launcher, *config, *(f"{key}={value}" for key, value in arguments.items()), *overrides]


def start(folder: Path, name: str, *overrides: str, **where: str) -> subprocess.Popen[bytes]:
    """Start a run (`where`: see `command`); its output goes to `<name>.log`, its metrics to `<name>.jsonl`."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "VERL_FILE_LOGGER_PATH": str(folder / f"{name}.jsonl"),
    }
    arguments = command(folder, *overrides, **where)
    with open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT, env=environment)


def finish(run: subprocess.Popen[bytes], folder: Path, name: str) -> str:
    """Wait for a run to end successfully; return its log."""
    try:
        code = run.wait(timeout=TIMEOUT + 60)
    finally:
        if run.poll() is None:
            run.terminate()
            run.wait()
    log = (folder / f"{name}.log").read_text(errors="replace")
    assert code == 0, log[-6000:]
    return log


def wait_for(path: Path, run: subprocess.Popen[bytes]) -> None:
    """Wait until the run has written a file."""
    support.wait_for(path.exists, TIMEOUT, run)


def last_line(run: subprocess.Popen[bytes], folder: Path, name: str) -> str:
    """Wait for a run's failure, at most 30 s; return the last line of its output."""
    try:
        assert run.wait(timeout=30) == 1
    finally:
        run.terminate()
        run.wait()
    return (folder / f"{name}.log").read_text(errors="replace").rstrip().splitlines()[-1]


def settle(folder: Path) -> tuple[int, int]:
    """After a kill, wait until no process writes; return the last checkpoint and the last step with a complete dump.

    Ray's processes outlive the launcher by a few steps. A step's dump is written after its checkpoint and may be cut
    off; earlier dumps are complete, because a single thread writes them all.
    """
    before, since = set(), time.monotonic()
    while time.monotonic() - since < 5:
        now = {path for name in ("rollouts", "checkpoints") for path in (folder / name).rglob("*")}
        if now != before:
            before, since = now, time.monotonic()
        time.sleep(0.2)
    dumps = [int(path.stem) for path in (folder / "rollouts").iterdir()]
    return int((folder / "checkpoints" / "latest_checkpointed_iteration.txt").read_text()), max(dumps) - 1


def metrics(folder: Path, name: str) -> dict[int, dict[str, float]]:
    """A run's metrics by step, from verl's `file` logger; a killed run's last line may be cut off."""
    lines = (folder / f"{name}.jsonl").read_text().rpartition("\n")[0].splitlines()
    return {line["step"]: line["data"] for line in map(json.loads, lines)}


def totals(folder: Path, name: str) -> dict[int, float]:
    """Rewards in the history by step (or version, for which a run may log several times)."""
    lines = (folder / f"{name}.jsonl").read_text().rpartition("\n")[0].splitlines()
    key = "pgrpo/observed_total"
    return {line["step"]: line["data"][key] for line in map(json.loads, lines) if key in line["data"]}


def replay(
    history: GroupHistoryManager, folder: Path, steps: range, updates: dict[int, list[set[str]]] | None = None
) -> list[int]:
    """Update `history` from the rollout dumps of these steps; return the number of rows that count in each step.

    This implements the rules independently. Of each session (`uid_session` of the key) the output with the highest
    index counts; verl's padding rows have keys that start with `pad`, and their rows have no token that is trained.
    `updates` has the uids of each local update of a step if a step has several: each is added separately.
    """
    counts = []
    for step in steps:
        last: dict[tuple[str, str], tuple[int, str, float]] = {}
        for line in (folder / "rollouts" / f"{step}.jsonl").read_text().splitlines():
            row = json.loads(line)
            uid, session, index = row["uid"].rsplit("_", 2)
            if uid.startswith("pad"):
                continue
            kept = last.get((uid, session))
            if kept is None or int(index) > kept[0]:
                last[uid, session] = (int(index), json.loads(row["gts"])["persona"], row["score"])
        uids = {uid for uid, _ in last}
        parts = [uids] if updates is None else updates[step]
        assert sorted(uid for part in parts for uid in part) == sorted(uids)
        for part in parts:
            rows = [(uid, *row) for (uid, _), row in last.items() if uid in part]
            prompts = [uid for uid, *_ in rows]
            history.update([group for *_, group, _ in rows], [score for *_, score in rows], prompts)
        counts.append(len(last))
    return counts


def history_of(folder: Path, step: int, config: PGRPOConfig | None = None) -> GroupHistoryManager:
    """Load the history of a checkpoint."""
    path = folder / "checkpoints" / f"global_step_{step}" / "pgrpo_history.parquet"
    return GroupHistoryManager.load(path, config, step=step)


def assert_same(one: GroupHistoryManager, other: GroupHistoryManager, prompts: bool = True) -> None:
    """Assert that two histories are bit-identical, regardless of the order of their groups.

    prompts: also the spread within prompts, which must be known.
    """
    mine, theirs = (history.to_frame().set_index("group").sort_index() for history in (one, other))
    assert list(mine.index) == list(theirs.index)
    assert not prompts or mine["within_dof"].any()
    for name in ["count", "mean", "std", *["within", "within_dof"] * prompts]:
        assert mine[name].to_numpy().tobytes() == theirs[name].to_numpy().tobytes()
