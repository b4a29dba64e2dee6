# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What `preflight` says of the checkpoint folder."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.preflight_case import Case, large, serious
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.integration.checks import HISTORY_FILE
from verl_pgrpo.launch.check_checkpoints import check_writable
from verl_pgrpo.launch.finding import Found
from verl_pgrpo.launch.preflight import preflight
from verl_pgrpo.launch.run import Settings

pytestmark = pytest.mark.launch

pytest.importorskip("verl")


def checkpoint(case: Case, step: int, options: PGRPOConfig | None = None, history: bool = True) -> Path:
    """A checkpoint as the recipe's run leaves it, without what torch would load."""
    folder = case.out / "checkpoints" / f"global_step_{step}"
    (folder / "actor").mkdir(parents=True)
    (folder / "actor" / "model_world_size_1_rank_0.pt").touch()
    if history:
        kept = GroupHistoryManager(options or PGRPOConfig())
        kept.observe(["formal_jazz", "poetic_jazz"], [1.0, 2.0])
        kept.save(folder / HISTORY_FILE, step=step)
    (folder.parent / "latest_checkpointed_iteration.txt").write_text(str(step))
    return folder


def test_a_checkpoint_of_the_same_run_is_fine(case: Case):
    checkpoint(case, 50)
    assert serious(case.check()) == []


def exponential(case: Case) -> None:
    checkpoint(case, 50, PGRPOConfig(statistics="exponential", half_life=8))


def without_tracker(case: Case) -> None:
    checkpoint(case, 50)
    (case.out / "checkpoints" / "latest_checkpointed_iteration.txt").unlink()


def damaged(case: Case) -> None:
    path = checkpoint(case, 50) / HISTORY_FILE
    path.write_bytes(path.read_bytes()[:-9])


CHECKPOINTS = [
    (exponential, [], "error", "was kept under other options: statistics"),
    (damaged, [], "error", "is truncated or was altered"),
    (lambda case: checkpoint(case, 50, history=False), [], "error", "there is no reward history at"),
    (without_tracker, [], "warning", "verl would start from scratch, over the 1 checkpoints there (global_step_50)"),
    (lambda case: checkpoint(case, 100), [], "warning", "resume after step 100 of 100: there is nothing left to do"),
    (lambda case: checkpoint(case, 50), ["algorithm.adv_estimator=grpo"], "warning", "a checkpoint of pgrpo with grpo"),
    (lambda case: shutil.rmtree(checkpoint(case, 50) / "actor"), [], "error", "has no weights (no folder actor)"),
    (
        lambda case: (checkpoint(case, 50) / "actor" / "model_world_size_1_rank_0.pt").rename(
            case.out / "checkpoints" / "global_step_50" / "actor" / "model_world_size_8_rank_0.pt"
        ),
        [],
        "error",
        "was saved by 8 GPUs with FSDP, and this run has 1",
    ),
    (
        lambda case: checkpoint(case, 50).parent.joinpath("latest_checkpointed_iteration.txt").write_text("fifty"),
        [],
        "error",
        "does not hold the number of a step",
    ),
    (lambda case: case.out.mkdir() or (case.out / "checkpoints").touch(), [], "error", "checkpoints is a file"),
    (
        lambda case: (checkpoint(case, 50) / "actor" / "model_world_size_1_rank_0.pt").unlink(),
        [],
        "error",
        "lacks the weights of rank 0",
    ),
    (
        lambda case: checkpoint(case, 50),
        ["trainer.resume_mode=resume_path", "trainer.resume_from_path=${trainer.default_local_dir}/global_step_50/"],
        "error",
        "verl reads the step off the path's end",
    ),
    (
        lambda case: None,
        ["trainer.resume_mode=resume_path", "trainer.resume_from_path=none/global_step_3"],
        "error",
        "there is no checkpoint",
    ),
]


@pytest.mark.parametrize(("make", "overrides", "severity", "said"), CHECKPOINTS, ids=lambda value: str(value)[:40])
def test_what_is_wrong_with_the_checkpoint_folder_is_named(case: Case, make, overrides, severity: str, said: str):
    shutil.rmtree(case.out, ignore_errors=True)
    make(case)
    found = serious(case.check(*overrides))
    assert [one[:2] for one in found] == [(severity, "checkpoints")], found
    assert said in found[0][2]


def test_space_for_all_checkpoints(case: Case):
    """A model of 32 billion parameters has 14 bytes each in a checkpoint of Megatron's."""
    often = large(case, "trainer.save_freq=1", "trainer.total_epochs=100000", "trainer.max_actor_ckpt_to_keep=null")
    said = [one.what for one in preflight(often, Settings(skip=("reward",))).findings if one.severity == "error"]
    assert re.search(r"200000 checkpoints of about 427.\d GiB \(all are kept, one every 1 of 200,000 steps\)", said[0])
    kept = [*often, "trainer.max_actor_ckpt_to_keep=100000"]
    said = [one.what for one in preflight(kept, Settings(skip=("reward",))).findings if one.severity == "error"]
    assert said[0].startswith("100000 checkpoints of about")


def test_a_folder_that_cannot_be_written():
    """Root may write everywhere: as root the check is made as nobody."""
    with tempfile.TemporaryDirectory() as base:  # pytest's own folder is closed to nobody
        os.chmod(base, 0o755)
        closed = Path(base, "closed")
        (closed / "inner").mkdir(parents=True)
        for mode in (0o555, 0o000):
            closed.chmod(mode)
            assert f"no permission in {closed}" in said_as_nobody(closed / "run")
        assert f"no permission in {closed}" in said_as_nobody(closed / "inner" / "run"), "nor can it be seen"
        closed.chmod(0o755)


def said_as_nobody(path: Path) -> str:
    """In a forked process, as nobody could import nothing."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            found = Found("checkpoints")
            check_writable(path, "trainer.default_local_dir", found)
            os.write(writing, "\n".join(one.what for one in found.findings).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said
