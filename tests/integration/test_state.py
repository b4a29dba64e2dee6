# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The history that a run starts with: empty, an earlier one, or that of the checkpoint that verl resumes."""

from __future__ import annotations

import functools

import pytest

from verl_pgrpo import (
    ConfigError,
    GroupHistoryManager,
    HistoryFileAltered,
    HistoryFileMissing,
    HistoryFileOtherConfig,
    HistoryFileWrongStep,
    PGRPOConfig,
)
from verl_pgrpo.integration.state import HISTORY_FILE, PGRPOState, resume_checkpoint


@pytest.fixture
def config(compose, tmp_path):
    return functools.partial(compose, "algorithm.adv_estimator=pgrpo", f"trainer.default_local_dir={tmp_path}")


def saved(folder, step, written_step=None):
    state = PGRPOState(PGRPOConfig())
    state.history.update(["a", "b"], [1.0, 2.0])
    state.save(folder / f"global_step_{step}", written_step or step)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def restored(config):
    state = PGRPOState.restore(config)
    return state.history.total_count, state.step


def test_a_run_resumes_what_verl_resumes(config, tmp_path):
    assert resume_checkpoint(config()) is None
    assert restored(config()) == (0, 0)
    saved(tmp_path, 3)
    saved(tmp_path, 12)
    assert resume_checkpoint(config()) == str(tmp_path / "global_step_12")
    assert restored(config()) == (2, 12)
    assert restored(config("trainer.resume_mode=disable")) == (0, 0)
    path = "trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}"
    for end in ("", "/"):
        assert restored(config(path[0], f"{path[1]}/global_step_3{end}")) == (2, 3)
    with pytest.raises(ConfigError, match="global_step_<N>"):
        restored(config(*path))


def test_a_checkpoint_must_have_its_own_history(config, tmp_path):
    path, reset = tmp_path / "global_step_5" / HISTORY_FILE, "+algorithm.pgrpo.on_missing_history=reset"

    def spoil(error):
        with pytest.raises(error):
            restored(config())
        assert restored(config(reset)) == (0, 5)

    saved(tmp_path, 5, written_step=4)
    spoil(HistoryFileWrongStep)
    path.write_bytes(b"PAR1")
    spoil(HistoryFileAltered)
    path.unlink()
    spoil(HistoryFileMissing)
    saved(tmp_path, 6)
    assert restored(config(reset)) == (2, 6)  # an option left set must not drop a good history


@pytest.mark.parametrize("change", ["algorithm.use_kl_in_reward=True", "+algorithm.pgrpo.half_life=5"])
def test_a_resume_that_gives_the_numbers_another_meaning_is_an_error(config, tmp_path, change):
    saved(tmp_path, 5)
    with pytest.raises(HistoryFileOtherConfig, match=change.rpartition(".")[2].partition("=")[0]):
        restored(config(change))


def test_a_new_run_may_start_from_an_earlier_history(config, tmp_path):
    ratings = GroupHistoryManager()
    ratings.update(["a"] * 3 + ["c"], [1.0, 2.0, 3.0, 4.0])
    ratings.save(tmp_path / "ratings.parquet")
    start = f"+algorithm.pgrpo.initial_history={tmp_path}/ratings.parquet"
    assert restored(config(start)) == (4, 0)
    with pytest.raises(HistoryFileOtherConfig):
        restored(config(start, "+algorithm.pgrpo.half_life=5"))
    with pytest.raises(HistoryFileMissing):
        restored(config("+algorithm.pgrpo.initial_history=nothing.parquet"))
    saved(tmp_path, 7)
    assert restored(config(start)) == (2, 7)  # the checkpoint's history continues; it is not added a second time
    (tmp_path / "global_step_7" / HISTORY_FILE).unlink()  # as in a checkpoint of grpo
    assert restored(config(start, "+algorithm.pgrpo.on_missing_history=reset")) == (4, 7)


@pytest.mark.parametrize("prompts", [None, [0, 0, 1, 1]])
def test_an_earlier_history_without_prompts_is_warned_about(config, tmp_path, capsys, prompts):
    ratings = GroupHistoryManager()
    ratings.update(["a"] * 4, [1.0, 2.0, 3.0, 4.0], prompts)
    ratings.save(tmp_path / "ratings.parquet")
    restored(config(f"+algorithm.pgrpo.initial_history={tmp_path}/ratings.parquet"))
    assert "warning" not in capsys.readouterr().out
    restored(
        config(f"+algorithm.pgrpo.initial_history={tmp_path}/ratings.parquet", "+algorithm.pgrpo.baseline=shrinkage")
    )
    assert ("no spread within prompts for 1 of 1 groups" in capsys.readouterr().out) == (prompts is None)


def test_labels_that_look_alike_are_warned_about_once_on_resume(config, tmp_path, capsys):
    state = PGRPOState(PGRPOConfig())
    state.history.update(["jazz", "Jazz"], [1.0, 2.0])
    state.save(tmp_path / "global_step_3", 3)
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("3")
    PGRPOState.restore(config()).start({"jazz": 5, "Jazz": 5})
    assert capsys.readouterr().out.count("look alike") == 1


def test_checkpoints_that_verl_ignores_are_named(config, tmp_path, capsys):
    saved(tmp_path, 3)
    (tmp_path / "latest_checkpointed_iteration.txt").unlink()  # as with async_save
    for mode in ("auto", "disable"):
        assert restored(config(f"trainer.resume_mode={mode}")) == (0, 0)
        assert ("global_step_3" in capsys.readouterr().out) == (mode == "auto")
