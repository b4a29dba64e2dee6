# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What is found out about a run before it starts: the data's groups, and the checkpoint's history."""

from __future__ import annotations

from types import SimpleNamespace

import datasets
import pytest

from verl_pgrpo import GroupHistoryManager, PGRPOConfig
from verl_pgrpo.errors import (
    ConfigError,
    GroupLabelError,
    HistoryFileMissing,
    HistoryFileWrongStep,
    MissingGroupError,
)
from verl_pgrpo.integration.checks import HISTORY_FILE, dataset_groups, restored_history, resumed_checkpoint


def table(**columns):
    """As verl's RLHFDataset holds its rows."""
    return SimpleNamespace(dataframe=datasets.Dataset.from_dict({"prompt": ["x"] * 3, **columns}))


def test_groups_of_the_training_data():
    assert dataset_groups(table(preference_group=["a", "b", "a"]), PGRPOConfig()) == {"a": 2, "b": 1}
    assert dataset_groups(table(segment=[7, 7, 8]), PGRPOConfig(group_key="segment")) == {"7": 2, "8": 1}
    nested = table(extra_info=[{"user": {"segment": s}} for s in "aab"])
    assert dataset_groups(nested, PGRPOConfig(group_key="extra_info.user.segment")) == {"a": 2, "b": 1}
    dotted = table(**{"user.segment": ["a", "b", "a"]})
    assert dataset_groups(dotted, PGRPOConfig(group_key="user.segment")) == {"a": 2, "b": 1}
    for odd in ([1.5, 2.5, 3.0], [True, False, True], [["a"], ["b"], ["c"]]):
        with pytest.raises(GroupLabelError, match="training row 0"):
            dataset_groups(table(preference_group=odd), PGRPOConfig())
    assert dataset_groups(SimpleNamespace(dataframe=[1, 2]), PGRPOConfig()) is None


def test_filtered_rows_do_not_count():
    data = table(preference_group=["a", None, "b"])
    data.dataframe = data.dataframe.filter(lambda row: row["preference_group"] is not None)
    assert dataset_groups(data, PGRPOConfig()) == {"a": 1, "b": 1}


def test_missing_groups_are_named():
    with pytest.raises(
        MissingGroupError, match=r"no column 'preference_group'.*prompt, preference_groups.*group_key=preference_groups"
    ):
        dataset_groups(table(preference_groups=["a"] * 3), PGRPOConfig())
    with pytest.raises(MissingGroupError, match=r"2 of 3 training rows.*first rows: \[1, 2\]"):
        dataset_groups(table(preference_group=["a", None, " "]), PGRPOConfig())
    with pytest.raises(MissingGroupError, match="no fields"):
        dataset_groups(table(extra_info=["a"] * 3), PGRPOConfig(group_key="extra_info.segment"))
    filled = PGRPOConfig(missing_group="unknown")
    assert dataset_groups(table(preference_group=["a", None, " "]), filled) == {"a": 1, "unknown": 2}
    assert dataset_groups(table(), filled) == {"unknown": 3}


@pytest.fixture
def config(compose, tmp_path):
    return lambda *overrides: compose(f"trainer.default_local_dir={tmp_path}", *overrides)


def saved(folder, step, written_step=None):
    history = GroupHistoryManager()
    history.observe(["a", "b"], [1.0, 2.0])
    (folder / f"global_step_{step}").mkdir()
    history.save(folder / f"global_step_{step}" / HISTORY_FILE, step=written_step or step)
    (folder / "latest_checkpointed_iteration.txt").write_text(str(step))


def test_what_a_run_resumes_from(config, tmp_path):
    assert resumed_checkpoint(config()) is None
    assert restored_history(config(), PGRPOConfig())[0].num_groups == 0
    saved(tmp_path, 3)
    saved(tmp_path, 12)
    auto = config()
    assert resumed_checkpoint(auto) == str(tmp_path / "global_step_12")
    history, step = restored_history(auto, PGRPOConfig())
    assert (history.total_count, step) == (2, 12)
    earlier = config("trainer.resume_mode=resume_path", f"trainer.resume_from_path={tmp_path}/global_step_3")
    assert restored_history(earlier, PGRPOConfig())[1] == 3
    assert restored_history(config("trainer.resume_mode=disable"), PGRPOConfig())[1] == 0


def test_a_checkpoint_must_have_its_own_history(config, tmp_path):
    saved(tmp_path, 5, written_step=4)
    with pytest.raises(HistoryFileWrongStep):
        restored_history(config(), PGRPOConfig())
    (tmp_path / "global_step_5" / HISTORY_FILE).unlink()
    with pytest.raises(HistoryFileMissing, match="resume_without_history"):
        restored_history(config(), PGRPOConfig())
    anew = PGRPOConfig(resume_without_history=True)
    history, step = restored_history(config(), anew)
    assert (history.total_count, step) == (0, 5)
    saved(tmp_path, 6)
    history, step = restored_history(config(), anew)  # a flag that was left on must not throw a good history away
    assert (history.total_count, step) == (2, 6)
    with pytest.raises(ConfigError, match="global_step_<N>"):
        restored_history(config("trainer.resume_mode=resume_path", "trainer.resume_from_path=/tmp/ck"), anew)


def test_checkpoints_that_verl_passes_over_are_named(config, tmp_path, capsys):
    saved(tmp_path, 3)
    (tmp_path / "latest_checkpointed_iteration.txt").unlink()  # as with async_save
    assert restored_history(config(), PGRPOConfig())[1] == 0
    printed = capsys.readouterr().out
    assert "starts from scratch" in printed
    assert "global_step_3" in printed
    assert "resume_path" in printed
    assert restored_history(config("trainer.resume_mode=disable"), PGRPOConfig())[1] == 0
    assert "starts from scratch" not in capsys.readouterr().out
