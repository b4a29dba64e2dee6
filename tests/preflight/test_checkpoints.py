# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the checkpoint folder and of what a resume would find there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.preflight.case import Case, problems
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.integration.state import HISTORY_FILE
from verl_pgrpo.preflight.checkpoints import check_writable
from verl_pgrpo.preflight.diagnostic import Diagnostics

pytestmark = pytest.mark.slow

TRACKER = "latest_checkpointed_iteration.txt"
WEIGHTS = "actor/model_world_size_1_rank_0.pt"
BY_PATH = "trainer.resume_mode=resume_path"
SAVING = "actor_rollout_ref.actor.checkpoint"
INITIAL = "+algorithm.pgrpo.initial_history=initial.parquet"


def history(path: Path, groups: str = "ab", step: int | None = None, **options: float) -> None:
    manager = GroupHistoryManager(PGRPOConfig(**options))
    manager.update(list(groups), [float(i) for i in range(len(groups))])
    manager.save(path, step=step)


def checkpoint(case: Case, groups: str = "ab", step: int = 2, **options: float) -> Path:
    """A checkpoint as a run leaves it, without the files that torch would load."""
    folder = case.out / "checkpoints" / f"global_step_{step}"
    (folder / "actor").mkdir(parents=True)
    (folder / WEIGHTS).touch()
    history(folder / HISTORY_FILE, groups, step, **options)
    (folder.parent / TRACKER).write_text(str(step))
    return folder


CHECKPOINTS = [
    (checkpoint, (), None),
    (checkpoint, ("algorithm.adv_estimator=grpo",), "warning"),
    (lambda case: checkpoint(case, half_life=8), (), "error"),
    (lambda case: checkpoint(case, "cd"), (), "error"),
    (lambda case: checkpoint(case, "ad"), (), "warning"),
    (lambda case: checkpoint(case, step=120), (), "warning"),  # nothing is left to do
    (lambda case: os.truncate(checkpoint(case) / HISTORY_FILE, 99), (), "error"),
    (lambda case: (checkpoint(case) / HISTORY_FILE).unlink(), (), "error"),
    (lambda case: (checkpoint(case).parent / TRACKER).unlink(), (), "warning"),
    (lambda case: (checkpoint(case).parent / TRACKER).write_text("two"), (), "error"),
    (lambda case: shutil.rmtree(checkpoint(case) / "actor"), (), "error"),
    (lambda case: (checkpoint(case) / WEIGHTS).unlink(), (), "error"),
    (lambda case: os.rename(path := checkpoint(case) / WEIGHTS, str(path).replace("size_1", "size_8")), (), "error"),
    (checkpoint, (BY_PATH, "trainer.resume_from_path=${trainer.default_local_dir}/global_step_2/"), "error"),
    (lambda case: None, (BY_PATH, "trainer.resume_from_path=none/global_step_3"), "error"),
    (lambda case: None, (BY_PATH,), "error"),
    (lambda case: history(Path("initial.parquet")), (INITIAL,), None),
    (lambda case: history(Path("initial.parquet"), "cd"), (INITIAL,), "error"),
    (lambda case: None, (INITIAL,), "error"),
    (lambda case: None, (f"{SAVING}.async_save=True",), "error"),
    (lambda case: None, (f"{SAVING}.save_contents=[optimizer]",), "warning"),
    (lambda case: None, ("trainer.max_actor_ckpt_to_keep=1",), "warning"),
    (lambda case: (case.out / "checkpoints").touch(), (), "error"),
    (lambda case: (case.out / "file").touch(), ("trainer.rollout_data_dir=run/file/dumps",), "error"),
]


@pytest.mark.parametrize(("make", "overrides", "severity"), CHECKPOINTS)
def test_checkpoint_folders(case: Case, make, overrides, severity):
    make(case)
    skip = ("reward", "model", "steps") if severity != "warning" else ("reward",)
    assert problems(case.check(*overrides, skip=skip)) == (set() if severity is None else {(severity, "checkpoints")})


def test_disk_space_for_all_checkpoints_and_an_unwritable_folder(case: Case, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(case.out)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 22))
    assert problems(case.check()) == {("warning", "checkpoints")}
    assert problems(case.check("trainer.save_freq=-1")) == set()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    found = Diagnostics("checkpoints")
    assert not check_writable(case.out / "inner" / "run", "trainer.default_local_dir", found)
    assert [one.severity for one in found.found] == ["error"]
