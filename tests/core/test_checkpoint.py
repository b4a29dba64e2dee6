# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The history on disk: exact, atomic, and every kind of damage has a name."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from verl_pgrpo import GroupHistoryManager, PGRPOConfig, checkpoint
from verl_pgrpo.errors import (
    HistoryFileAltered,
    HistoryFileError,
    HistoryFileMissing,
    HistoryFileOtherConfig,
    HistoryFileTooNew,
    HistoryFileWrongStep,
)

LABELS = ["a", "b", "", "a\nb", "🦜", "x" * 10_000]
DECAYING = PGRPOConfig(half_life=100, prior_strength=2)


def some_history(config: PGRPOConfig | None = None) -> GroupHistoryManager:
    history, rng = GroupHistoryManager(config), np.random.default_rng(0)
    for _ in range(5):
        history.update(rng.choice(LABELS, 40).tolist(), rng.standard_normal(40))
    return history


@pytest.mark.parametrize("config", [None, DECAYING])
def test_round_trip_is_exact_and_goes_on_exactly(tmp_path, config):
    history = some_history(config)
    history.save(tmp_path / "h.parquet", step=120)
    loaded = GroupHistoryManager.load(tmp_path / "h.parquet", config, step=120)
    assert loaded.groups == history.groups
    for _ in range(3):
        groups, rewards = [*LABELS, "new"], np.random.default_rng(1).standard_normal(7)
        mine, theirs = history.compute_advantages(groups, rewards), loaded.compute_advantages(groups, rewards)
        for name in ("advantages", "mean", "std", "count"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


def test_same_history_same_bytes(tmp_path):
    for name in ("one", "two"):
        some_history().save(tmp_path / name, step=1)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_pandas_reads_it(tmp_path):
    history = some_history()
    history.save(tmp_path / "h.parquet", step=3)
    table = pd.read_parquet(tmp_path / "h.parquet")
    assert list(table.columns) == ["group", "count", "mean", "m2"]
    assert table["group"].tolist() == history.groups
    statistics = history.statistics(history.groups)
    np.testing.assert_array_equal(table["count"], statistics.count)
    np.testing.assert_array_equal(table["mean"], statistics.mean)
    np.testing.assert_allclose(np.sqrt(table["m2"] / (table["count"] - 1)), statistics.std)


def test_an_empty_history(tmp_path):
    GroupHistoryManager().save(tmp_path / "h.parquet", step=0)
    assert GroupHistoryManager.load(tmp_path / "h.parquet", step=0).num_groups == 0


def test_without_options_those_of_the_file_hold(tmp_path):
    some_history(DECAYING).save(tmp_path / "h.parquet", step=1)
    assert GroupHistoryManager.load(tmp_path / "h.parquet").config == DECAYING


def test_edited_or_foreign_files_are_refused(tmp_path):
    path = tmp_path / "h.parquet"
    some_history().save(path, step=1)
    table = pq.read_table(path)
    edited = table.set_column(2, "mean", [[1.0] * table.num_rows])
    pq.write_table(edited, path)  # metadata kept, content and layout changed
    with pytest.raises(HistoryFileAltered):
        GroupHistoryManager.load(path)
    pd.DataFrame({"group": ["a"]}).to_parquet(path)
    with pytest.raises(HistoryFileAltered, match="no reward history"):
        GroupHistoryManager.load(path)


def test_wrong_step_config_version_and_place(tmp_path, monkeypatch):
    path = tmp_path / "h.parquet"
    some_history().save(path, step=7)
    with pytest.raises(HistoryFileWrongStep, match="step 7, not of step 8"):
        GroupHistoryManager.load(path, step=8)
    with pytest.raises(HistoryFileOtherConfig, match=r"half_life \(saved None, now 100.0\)"):
        GroupHistoryManager.load(path, DECAYING)
    with pytest.raises(HistoryFileMissing, match="resume_without_history"):
        GroupHistoryManager.load(tmp_path / "nothing")
    with pytest.raises(HistoryFileError, match="cannot be read"):
        GroupHistoryManager.load(tmp_path)
    monkeypatch.setattr(checkpoint, "SCHEMA_VERSION", 2)
    some_history().save(path, step=7)
    monkeypatch.undo()
    with pytest.raises(HistoryFileTooNew, match="schema version 2"):
        GroupHistoryManager.load(path)


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "h.parquet"
    some_history().save(path, step=1)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(HistoryFileError, match="No space left"):
        some_history().save(path, step=2)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["h.parquet"]
    with pytest.raises(HistoryFileError, match="could not be written"):
        some_history().save(tmp_path / "no" / "such" / "folder", step=2)


def test_two_writers_of_one_file_publish_only_whole_ones(tmp_path):
    path, histories = tmp_path / "h.parquet", [some_history(), some_history()]
    histories[1].update(["more"], [1.0])
    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(lambda h=h: [h.save(path, step=1) for _ in range(40)]) for h in histories]
        while not all(writer.done() for writer in writers):
            if path.exists():
                assert GroupHistoryManager.load(path).total_count in {h.total_count for h in histories}
        for writer in writers:
            writer.result()
    assert os.listdir(tmp_path) == ["h.parquet"]
    for step in (None, 2.7):
        with pytest.raises(TypeError):
            histories[0].save(path, step=step)
    assert os.listdir(tmp_path) == ["h.parquet"]
