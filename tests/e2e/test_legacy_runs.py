# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The same with verl's older trainers: real rollouts on the CPU; killed, and resumed.

Two runs end because a worker dies, after which verl alone would wait forever.
"""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest

from tests.e2e import runs
from verl_pgrpo import GroupHistoryManager

pytestmark = pytest.mark.e2e

# The other runs' agent has sessions of several outputs, which these trainers do not support. A step takes a third of a
# second, and the run must last long enough to be killed.
SAME = (
    "actor_rollout_ref.rollout.agent.default_agent_loop=single_turn_agent",
    "actor_rollout_ref.rollout.agent.agent_loop_config_path=null",
    "trainer.total_epochs=1000",
)
V0 = ("trainer.use_v1=False", "trainer.test_freq=2", *runs.OURS)
ONE_STEP_OFF = (
    "trainer.rollout_data_dir=null", "data.custom_cls.path=pkg://tests.e2e.parts",
    "data.custom_cls.name=RecordsBatches",
)  # fmt: skip
FULLY_ASYNC = ("data.train_batch_size=0", "trainer.test_freq=-1")


def fold(history: GroupHistoryManager, dumps: list[Path]) -> None:
    """Update `history` from rollout dumps: each row is a separate response.

    The dump has the score as the reward function returned it; verl stores it in single precision. The ground truth has
    the persona, and is another one for each prompt of a step. The fully asynchronous trainer's dumps lack it; there the
    persona is in the prompt's text, which several prompts may share.
    """
    for dump in dumps:
        rows = [json.loads(line) for line in dump.read_text().splitlines()]
        assert len(rows) == 16
        personas = [
            json.loads(row["gts"])["persona"] if row.get("gts") else "_".join(row["input"].split()[1:3]) for row in rows
        ]
        prompts = [row["gts"] for row in rows] if all(row.get("gts") for row in rows) else None
        history.update(personas, [float(np.float32(row["score"])) for row in rows], prompts)


# What the launcher's last line names: the dead process or, if verl noticed the death first, verl's own error.
REPORTED = {"VLLM::EngineCore": "EngineCore", "ray::WorkerDict": "WorkerDict|ActorDied"}


def kill(run, folder: Path, title: str | None) -> None:
    """Kill the launcher; or the processes with this title, which the launcher must report within 30 s."""
    if title is None:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
        return
    workers = [p for p in psutil.Process(run.pid).children(recursive=True) if " ".join(p.cmdline()).startswith(title)]
    assert workers
    for process in workers:
        process.kill()
    assert re.search(REPORTED[title], runs.last_line(run, folder, "first"))


@pytest.mark.parametrize(
    ("options", "steps", "updates", "where", "title"),
    [
        (V0, "trainer.total_training_steps", 1, {}, "VLLM::EngineCore"),
        # Rollouts for the next step are generated during training; a kill loses those that were generated ahead.
        (
            ONE_STEP_OFF, "trainer.total_training_steps", 1,
            {"preset": "cpu_one_step_off", "module": "verl.experimental.one_step_off_policy.main_ppo"},
            "ray::WorkerDict",
        ),
        # Two updates per version; verl numbers checkpoints by version and rollout dumps by update.
        (
            FULLY_ASYNC, "rollout.total_rollout_steps", 2,
            {"preset": "cpu_fully_async", "module": "verl.experimental.fully_async_policy.fully_async_main"}, None,
        ),
    ],
    ids=["v0", "one_step_off", "fully_async"],
)  # fmt: skip
def test_run_is_killed_and_resumed_with_exact_accounting(tmp_path, options, steps, updates, where, title):
    runs.prepare(tmp_path)
    rollouts, size = tmp_path / "rollouts", 16 * updates
    run = runs.start(tmp_path, "first", f"{steps}=100000", *SAME, *options, **where)
    runs.wait_for(rollouts / f"{5 * updates}.jsonl", run)
    kill(run, tmp_path, title)
    saved, dumped = runs.settle(tmp_path)
    compared = min(saved, dumped // updates) // 2 * 2  # verl saved every second step
    assert compared >= 2
    afresh = GroupHistoryManager()
    fold(afresh, [rollouts / f"{number}.jsonl" for number in range(1, updates * compared + 1)])
    prompts_known = options is not FULLY_ASYNC
    runs.assert_same(afresh, runs.history_of(tmp_path, compared), prompts_known)
    assert runs.totals(tmp_path, "first")[compared] == size * compared
    rollouts.rename(tmp_path / "first_rollouts")

    end = saved + 3
    prompts = 8 * updates if "rollout_steps" in steps else 1  # counted from the start of the first run
    second = runs.start(tmp_path, "second", f"{steps}={prompts * end}", *SAME, *options, **where)
    log = runs.finish(second, tmp_path, "second")
    assert "preference groups in 256 training rows" in log
    assert f"history so far: {size * saved} rewards" in log
    assert ("{'baseline': 'shrinkage', 'group_balance': 0.5}" in log) is (options is V0)
    final = max(int(path.name.split("_")[-1]) for path in (tmp_path / "checkpoints").glob("global_step_*"))
    assert final > saved
    assert runs.totals(tmp_path, "second") == {step: size * step for step in range(saved + 1, final + 1)}
    continued = runs.history_of(tmp_path, saved)
    fold(continued, sorted(rollouts.iterdir(), key=lambda path: int(path.stem)))
    runs.assert_same(continued, runs.history_of(tmp_path, final), prompts_known)
