# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The history file: exact and atomic, even if the disk is full or the writer dies; every damage has its error."""

from __future__ import annotations

import contextlib
import errno
import itertools
import multiprocessing
import os
import random
import resource
import time

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.core.test_history import ODD_LABELS, assert_same
from verl_pgrpo import (
    GroupHistoryManager,
    HistoryFileAltered,
    HistoryFileError,
    HistoryFileMissing,
    HistoryFileOtherConfig,
    HistoryFileTooNew,
    HistoryFileWrongStep,
    PGRPOConfig,
    checkpoint,
)

load = GroupHistoryManager.load


def some_history():
    history, rng = GroupHistoryManager(), np.random.default_rng(0)
    for _ in range(5):
        history.update(rng.choice(ODD_LABELS, 40).tolist(), rng.standard_normal(40))
    return history


@pytest.fixture
def path(tmp_path):
    return tmp_path / "h.parquet"


def test_same_history_same_bytes_and_pandas_reads_them(tmp_path):
    history = some_history()
    for name in ("one", "two"):
        some_history().save(tmp_path / name, step=1)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    table = pd.read_parquet(tmp_path / "one")
    pd.testing.assert_frame_equal(table, history.to_frame().drop(columns="std"), check_exact=True, check_dtype=False)


@pytest.mark.parametrize("step", [None, 0, np.int64(7)])
def test_a_step_is_optional(path, step):
    GroupHistoryManager().save(path, **({} if step is None else {"step": step}))
    assert load(path).num_groups == 0
    assert checkpoint.read_header(path)["step"] == step
    with pytest.raises(HistoryFileWrongStep):
        load(path, step=8)


def test_each_mistake_has_its_error_and_options_that_keep_the_numbers_may_change(path, tmp_path):
    some_history().save(path)
    for option in ({"half_life": 100}, {"group_key": "x"}, {"use_kl_in_reward": True}):
        with pytest.raises(HistoryFileOtherConfig):
            load(path, PGRPOConfig(**option))
    free = {"epsilon": 1e-3, "max_logged_groups": 1, "on_nonfinite": "skip", "baseline": "blended", "min_count": 2}
    free |= {"initial_history": "x", "default_group": "y", "norm_adv_by_std_in_grpo": False}
    assert load(path, PGRPOConfig(**free)).config == PGRPOConfig(**free)
    with pytest.raises(TypeError):
        GroupHistoryManager().save(path, step=2.7)
    with pytest.raises(HistoryFileMissing):
        load(tmp_path / "nothing")
    with pytest.raises(HistoryFileError):
        load(tmp_path)
    with pytest.raises(HistoryFileError, match=r"folder .*such does not exist"):
        GroupHistoryManager().save(tmp_path / "no" / "such" / "folder")


def test_a_later_schema_is_too_new(path, monkeypatch):
    """Regardless of what follows the version in the file."""
    monkeypatch.setattr(checkpoint, "SCHEMA_VERSION", 2)
    some_history().save(path)
    monkeypatch.undo()
    for content in (path.read_bytes(), b'PAR1 what a later version writes {"schema_version": 999} PAR1'):
        path.write_bytes(content)
        with pytest.raises(HistoryFileTooNew):
            load(path)


@pytest.mark.parametrize("changes_numbers", [True, False])
def test_an_option_of_a_later_version_is_too_new(path, monkeypatch, changes_numbers):
    known = PGRPOConfig.as_dict, PGRPOConfig.history_options
    monkeypatch.setattr(PGRPOConfig, "as_dict", lambda self: known[0](self) | {"winsorize": 3})
    if changes_numbers:
        monkeypatch.setattr(PGRPOConfig, "history_options", lambda self: known[1](self) | {"winsorize": 3})
    some_history().save(path)
    monkeypatch.undo()
    with pytest.raises(HistoryFileTooNew):
        load(path)
    if changes_numbers:
        with pytest.raises(HistoryFileTooNew):
            load(path, PGRPOConfig())
    else:
        assert_same(load(path, PGRPOConfig()), some_history())


@pytest.mark.parametrize("number", [100, pytest.param(20_000, marks=pytest.mark.stress)])
def test_edited_damaged_and_foreign_files_are_named(path, number):
    history, rng = some_history(), random.Random(0)
    history.update([f"group {i}" for i in range(number // 10)], np.arange(number // 10))
    history.save(path, step=2)
    whole, table = path.read_bytes(), pq.read_table(path)
    pq.write_table(table.set_column(2, "mean", [[1.0] * table.num_rows]), path)  # metadata kept, content changed
    files = [path.read_bytes(), b"\0" * 64, b"PAR1" * 40, pd.DataFrame({"group": ["a"]}).to_parquet()]
    files += [whole + whole[:9]]
    files += [whole[: len(whole) // 3] + foreign + whole[-len(whole) // 3 :] for foreign in files[:4]]
    files += [whole[:length] for length in [0, 1, 3, 4, 8, len(whole) - 1, *rng.choices(range(len(whole)), k=number)]]
    for bit in rng.sample(range(8 * len(whole)), number):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        files.append(bytes(flipped))
    for content in files:
        path.write_bytes(content)
        with pytest.raises((HistoryFileAltered, HistoryFileTooNew)):  # a flipped bit may change the version
            load(path)


IMPOSSIBLE = [("count", -2), ("mean", np.nan), ("m2", np.inf), ("m2", -1.0), ("within", -1.0), ("within_dof", 1e6)]


@pytest.mark.parametrize(("column", "value"), IMPOSSIBLE)
def test_an_intact_file_with_impossible_values_is_an_error(tmp_path, column, value):
    moments = checkpoint.Moments(2)
    getattr(moments, column)[1] = value
    checkpoint.write(tmp_path / "history.parquet", ["a", "b"], moments, PGRPOConfig(), None)
    with pytest.raises(HistoryFileAltered, match=column):
        load(tmp_path / "history.parquet")


def test_a_file_from_before_shrinkage_has_no_spread_within_prompts(tmp_path, monkeypatch):
    path, history = tmp_path / "history.parquet", some_history()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "FIELDS", checkpoint.FIELDS[:3])
        history.save(path)
    assert_same(load(path), history)


@contextlib.contextmanager
def failing(where):
    """A function of `os` fails, or files cannot grow beyond a size, which is like a full disk or a quota."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    with pytest.MonkeyPatch.context() as patch:
        if isinstance(where, str):
            patch.setattr(os, where, lambda file, *_: os.open(f"{file}/", os.O_RDONLY))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (where, old[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("where", [0, 2000, 6000, "fsync", "replace"])
def test_a_failed_save_leaves_the_old_file(path, where):
    history = GroupHistoryManager()
    history.update([f"group {i}" for i in range(500)], range(500))
    history.save(path, step=1)
    before = path.read_bytes()
    assert len(before) > 6500
    history.update(["group 1"], [7.0])
    with failing(where), pytest.raises(HistoryFileError) as caught:
        history.save(path, step=2)
    assert ".tmp" not in str(caught.value)  # the temporary file is gone
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["h.parquet"]
    history.save(path, step=2)
    assert load(path, step=2).total_count == 501


@pytest.mark.parametrize("function", ["fsync", "open"])
def test_a_folder_that_cannot_be_synced_is_no_failure(path, monkeypatch, function):
    """Some network file systems can neither open nor sync directories; the file itself is already complete."""
    stock, refused = getattr(os, function), []

    def no_folders(target, *args, **kwargs):
        if os.path.isdir(target):
            refused.append(target)
            raise OSError(errno.EINVAL, "Invalid argument")
        return stock(target, *args, **kwargs)

    monkeypatch.setattr(os, function, no_folders)
    some_history().save(path, step=1)
    monkeypatch.undo()
    assert len(refused) == 1
    assert_same(load(path, step=1), some_history())


def save_repeatedly(path, report):
    """Runs in a separate process: report each step when its file has been written."""
    history = GroupHistoryManager()
    history.update([f"g{i}" for i in range(2000)], np.arange(2000))
    for step in itertools.count(1):
        history.save(path, step=step)
        report.send(step)


@pytest.mark.parametrize("number", [4, pytest.param(1000, marks=pytest.mark.stress)])
def test_killed_while_saving(tmp_path, number):
    """Kill -9 at random times: the file that remains is complete, from the last reported step or the next one."""
    context, rng = multiprocessing.get_context("forkserver"), random.Random(0)
    context.set_forkserver_preload([__name__, "pyarrow.parquet"])
    for attempt in range(number):
        path = tmp_path / f"{attempt}.parquet"
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=save_repeatedly, args=(path, writer))
        process.start()
        writer.close()
        last = reader.recv()  # the first file is there
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                last = reader.recv()
        assert load(path).total_count == 2000
        assert checkpoint.read_header(path)["step"] in (last, last + 1)
