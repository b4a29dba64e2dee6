# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Checks of the checkpoint folder and of what a resume would find there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.preflight.case import Case, problems, rows
from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.integration.state import HISTORY_FILE
from verl_pgrpo.preflight.checkpoints import check_writable
from verl_pgrpo.preflight.diagnostic import Diagnostics

pytestmark = pytest.mark.slow

TRACKER = "latest_checkpointed_iteration.txt"


def checkpoint(
    case: Case, step: int = 2, groups: tuple[str, ...] = ("a", "b"), options: PGRPOConfig | None = None
) -> Path:
    """A checkpoint as a run leaves it, without the files that torch would load."""
    folder = case.out / "checkpoints" / f"global_step_{step}"
    (folder / "actor").mkdir(parents=True)
    (folder / "actor" / "model_world_size_1_rank_0.pt").touch()
    history = GroupHistoryManager(options or PGRPOConfig())
    history.update(groups, [float(i) for i in range(len(groups))])
    history.save(folder / HISTORY_FILE, step=step)
    (folder.parent / TRACKER).write_text(str(step))
    return folder


def damaged(case: Case) -> None:
    path = checkpoint(case) / HISTORY_FILE
    path.write_bytes(path.read_bytes()[:-9])


def of_eight_gpus(case: Case) -> None:
    weights = checkpoint(case) / "actor" / "model_world_size_1_rank_0.pt"
    weights.rename(weights.with_name("model_world_size_8_rank_0.pt"))


BY_PATH = ("trainer.resume_mode=resume_path",)
CHECKPOINTS: list[tuple[Callable[[Case], object], tuple[str, ...], str | None]] = [
    (checkpoint, (), None),
    (lambda case: checkpoint(case, options=PGRPOConfig(half_life=8)), (), "error"),
    (damaged, (), "error"),
    (lambda case: (checkpoint(case) / HISTORY_FILE).unlink(), (), "error"),
    (lambda case: checkpoint(case, groups=("c", "d")), (), "error"),
    (lambda case: checkpoint(case, groups=("a", "d")), (), "warning"),
    (lambda case: checkpoint(case, groups=("a",)), (), None),
    (lambda case: (checkpoint(case).parent / TRACKER).unlink(), (), "warning"),
    (lambda case: (checkpoint(case).parent / TRACKER).write_text("two"), (), "error"),
    (lambda case: checkpoint(case, step=120), (), "warning"),
    (checkpoint, ("algorithm.adv_estimator=grpo",), "warning"),
    (lambda case: shutil.rmtree(checkpoint(case) / "actor"), (), "error"),
    (lambda case: (checkpoint(case) / "actor" / "model_world_size_1_rank_0.pt").unlink(), (), "error"),
    (of_eight_gpus, (), "error"),
    (lambda case: (case.out / "checkpoints").touch(), (), "error"),
    (checkpoint, (*BY_PATH, "trainer.resume_from_path=${trainer.default_local_dir}/global_step_2/"), "error"),
    (lambda case: None, (*BY_PATH, "trainer.resume_from_path=none/global_step_3"), "error"),
    (lambda case: None, BY_PATH, "error"),
    (lambda case: None, ("actor_rollout_ref.actor.checkpoint.async_save=True",), "error"),
    (lambda case: None, ("actor_rollout_ref.actor.checkpoint.save_contents=[optimizer]",), "warning"),
    (lambda case: None, ("trainer.max_actor_ckpt_to_keep=1",), "warning"),
    (lambda case: (case.out / "file").touch(), ("trainer.rollout_data_dir=run/file/dumps",), "error"),
]


@pytest.mark.parametrize(("make", "overrides", "severity"), CHECKPOINTS)
def test_checkpoint_folders(
    case: Case, make: Callable[[Case], object], overrides: tuple[str, ...], severity: str | None
):
    make(case)
    skip = ("reward", "model", "steps") if severity != "warning" else ("reward",)
    assert problems(case.check(*overrides, skip=skip)) == (set() if severity is None else {(severity, "checkpoints")})


def test_disk_space_for_all_checkpoints_and_an_unwritable_folder(case: Case, monkeypatch: pytest.MonkeyPatch):
    usage = shutil.disk_usage(case.out)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1 << 22))
    assert problems(case.check(skip=("reward",))) == {("warning", "checkpoints")}
    assert problems(case.check("trainer.save_freq=-1", skip=("reward",))) == set()
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    found = Diagnostics("checkpoints")
    assert not check_writable(case.out / "inner" / "run", "trainer.default_local_dir", found)
    assert str(case.out) in found.found[0].message


def test_only_the_rows_of_the_subset_count(case: Case):
    """The history has a group that is in the file but not in the training subset."""
    checkpoint(case, groups=("a", "c"))
    data = case.write(rows(preference_group=lambda i: "ab"[i % 2] if i < 32 else "c"))
    for subset, warned in ((("data.train_max_samples=32", "data.shuffle=False"), True), ((), False)):
        assert (("warning", "checkpoints") in problems(case.check(data, *subset, skip=("reward",)))) == warned


@pytest.mark.parametrize(
    ("groups", "half_life", "severity"),
    [("ab", None, None), ("cd", None, "error"), ("ab", 8, "error"), ("", 0, "error")],
)
def test_the_initial_history(case: Case, tmp_path: Path, groups: str, half_life: float | None, severity: str | None):
    path = tmp_path / "initial.parquet"
    if groups:  # otherwise the file is missing
        history = GroupHistoryManager(PGRPOConfig(half_life=half_life))
        history.update(list(groups), [1.0, 2.0])
        history.save(path)
    found = problems(case.check(f"+algorithm.pgrpo.initial_history={path}", skip=("reward",)))
    assert found == (set() if severity is None else {(severity, "checkpoints")})
