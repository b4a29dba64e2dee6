# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The history file: exact, atomic, and every kind of damage has a name, also where disks are full and writers die."""

from __future__ import annotations

import contextlib
import errno
import itertools
import multiprocessing
import os
import random
import stat
import subprocess
import sys
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
from verl_pgrpo.files import atomic_write

FORGETTING = PGRPOConfig(half_life=100, prior_strength=2)


def some_history(config: PGRPOConfig | None = None, labels: list[str] = ODD_LABELS) -> GroupHistoryManager:
    history, rng = GroupHistoryManager(config), np.random.default_rng(0)
    for _ in range(5):
        history.update(rng.choice(labels, 40).tolist(), rng.standard_normal(40))
    return history


@pytest.fixture
def path(tmp_path):
    return tmp_path / "h.parquet"


@pytest.mark.parametrize("config", [None, FORGETTING])
def test_a_loaded_history_continues_exactly(path, config):
    history = some_history(config)
    history.save(path, step=120)
    loaded = GroupHistoryManager.load(path, config, step=120)
    assert loaded.groups == history.groups
    assert GroupHistoryManager.load(path).config == history.config  # without options those of the file hold
    for _ in range(3):
        groups, rewards = [*ODD_LABELS, "new"], np.random.default_rng(1).standard_normal(len(ODD_LABELS) + 1)
        mine, theirs = history.compute_advantages(groups, rewards), loaded.compute_advantages(groups, rewards)
        for name in ("advantages", "mean", "std", "count"):
            np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))


def test_same_history_same_bytes_and_pandas_reads_them(tmp_path):
    history = some_history()
    for name in ("one", "two"):
        some_history().save(tmp_path / name, step=1)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    table, statistics = pd.read_parquet(tmp_path / "one"), history.statistics(history.groups)
    assert list(table.columns) == ["group", "count", "mean", "m2", "within", "within_dof"]
    assert table["group"].tolist() == history.groups
    np.testing.assert_array_equal(table["count"], statistics.count)
    np.testing.assert_array_equal(table["mean"], statistics.mean)
    dof = np.maximum(table["count"] - 1, 1)
    np.testing.assert_allclose(np.sqrt(table["m2"] / dof), statistics.std)


@pytest.mark.parametrize("step", [None, 0, np.int64(7)])
def test_a_step_is_optional(path, step):
    GroupHistoryManager().save(path, **({} if step is None else {"step": step}))
    assert GroupHistoryManager.load(path).num_groups == 0
    assert checkpoint.read_header(path)["step"] == step
    with pytest.raises(HistoryFileWrongStep):
        GroupHistoryManager.load(path, step=8)
    with pytest.raises(TypeError):
        GroupHistoryManager().save(path, step=2.7)


@pytest.mark.parametrize("config", [FORGETTING, PGRPOConfig(group_key="x"), PGRPOConfig(use_kl_in_reward=True)])
def test_another_meaning_of_the_numbers_is_another_config(path, config):
    some_history().save(path)
    with pytest.raises(HistoryFileOtherConfig):
        GroupHistoryManager.load(path, config)
    assert GroupHistoryManager.load(path, PGRPOConfig(epsilon=1.0)).config.epsilon == 1.0


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(HistoryFileMissing, match="no reward history"):
        GroupHistoryManager.load(tmp_path / "nothing")
    with pytest.raises(HistoryFileError):
        GroupHistoryManager.load(tmp_path)
    with pytest.raises(HistoryFileError):
        GroupHistoryManager().save(tmp_path / "no" / "such" / "folder")


def test_a_file_of_a_later_version_is_too_new(path, monkeypatch):
    """A later schema, whatever it looks like behind its version, or an option that this version does not know."""
    for version, config in (2, None), (999, FORGETTING):
        monkeypatch.setattr(checkpoint, "SCHEMA_VERSION", version)
        some_history(config).save(path)
        monkeypatch.undo()
        for options in (None, PGRPOConfig()):
            with pytest.raises(HistoryFileTooNew):
                GroupHistoryManager.load(path, options)
        path.write_bytes(b'PAR1 what a later version writes {"schema_version": 2} PAR1')
        with pytest.raises(HistoryFileTooNew):
            GroupHistoryManager.load(path)
    known = PGRPOConfig.as_dict, PGRPOConfig.history_options
    for changes_numbers in (True, False):
        monkeypatch.setattr(PGRPOConfig, "as_dict", lambda self: known[0](self) | {"winsorize": 3})
        if changes_numbers:
            monkeypatch.setattr(PGRPOConfig, "history_options", lambda self: known[1](self) | {"winsorize": 3})
        some_history().save(path)
        monkeypatch.undo()
        with pytest.raises(HistoryFileTooNew):
            GroupHistoryManager.load(path)
        if changes_numbers:
            with pytest.raises(HistoryFileTooNew):
                GroupHistoryManager.load(path, PGRPOConfig())
        else:
            assert_same(GroupHistoryManager.load(path, PGRPOConfig()), some_history())


def test_edited_and_foreign_files_are_altered(path, tmp_path):
    some_history().save(path, step=1)
    whole, table = path.read_bytes(), pq.read_table(path)
    pq.write_table(table.set_column(2, "mean", [[1.0] * table.num_rows]), path)  # metadata kept, content changed
    other = tmp_path / "other.parquet"
    second = some_history()
    second.update(["a"], [99.0])
    second.save(other, step=1)
    files = [path.read_bytes(), b"", b"PAR1", pd.DataFrame({"group": ["a"]}).to_parquet()]
    for foreign in (b"\0" * 64, b"PAR1" * 40, other.read_bytes()[: len(whole) // 2]):
        for start in (0, len(whole) // 3, len(whole) - len(foreign)):
            files.append(whole[:start] + foreign + whole[start + len(foreign) :])
        files.append(whole + foreign)
    for content in files:
        assert content != whole
        path.write_bytes(content)
        with pytest.raises(HistoryFileAltered):
            GroupHistoryManager.load(path)


@pytest.mark.parametrize("number", [400, pytest.param(20_000, marks=pytest.mark.stress)])
def test_bit_flips_and_truncations_are_named(path, number):
    history, rng = some_history(labels=["a", "b", "", "a\nb", "🦜"]), random.Random(0)
    history.update([f"group {i}" for i in range(number // 10)], np.arange(number // 10))
    history.save(path, step=2)
    whole = path.read_bytes()
    damaged = [whole[:length] for length in [0, 1, 3, 4, 8, len(whole) - 1, *rng.choices(range(len(whole)), k=number)]]
    for bit in rng.sample(range(8 * len(whole)), number):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        damaged.append(bytes(flipped))
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises((HistoryFileAltered, HistoryFileTooNew)):  # a flipped bit may make another version
            GroupHistoryManager.load(path)


def test_a_failed_save_leaves_the_old_file(path, monkeypatch):
    some_history().save(path, step=1)
    before = path.read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    for function in ("fsync", "replace"):
        monkeypatch.setattr(os, function, full)
        with pytest.raises(HistoryFileError, match="No space left"):
            some_history().save(path, step=2)
        monkeypatch.undo()
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == ["h.parquet"]
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(str(1 / 0))
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["h.parquet"]


@pytest.mark.parametrize("function", ["fsync", "open"])
def test_a_folder_that_cannot_be_synced_is_no_failure(path, monkeypatch, function):
    """Some network file systems neither open nor sync directories; the file itself is complete by then."""
    stock, attempts = getattr(os, function), []

    def no_directories(target, *args, **kwargs):
        mode = os.fstat(target).st_mode if isinstance(target, int) else os.stat(target).st_mode
        if stat.S_ISDIR(mode):
            attempts.append(target)
            raise OSError(errno.EINVAL, "Invalid argument")
        return stock(target, *args, **kwargs)

    monkeypatch.setattr(os, function, no_directories)
    some_history().save(path, step=1)
    monkeypatch.undo()
    assert len(attempts) == 1
    assert_same(GroupHistoryManager.load(path, step=1), some_history())


def save_repeatedly(path, report):
    """In a process of its own: report each step when its file has been written."""
    history = GroupHistoryManager()
    history.update([f"g{i}" for i in range(2000)], np.arange(2000))
    for step in itertools.count(1):
        history.save(path, step=step)
        report.send(step)


@pytest.mark.parametrize("number", [15, pytest.param(1000, marks=pytest.mark.stress)])
def test_killed_while_saving(tmp_path, number):
    """Kill -9 at random moments: what is left is whole, of the last step that was reported or of the next."""
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
        assert GroupHistoryManager.load(path).total_count == 2000
        assert checkpoint.read_header(path)["step"] in (last, last + 1)


LIMITED = """
import os, resource, sys
from verl_pgrpo import GroupHistoryManager, HistoryFileError
history = GroupHistoryManager()
history.update([f"group {i}" for i in range(5000)], range(5000))
history.save(sys.argv[1], step=1)
size, before = os.path.getsize(sys.argv[1]), open(sys.argv[1], "rb").read()
history.update(["group 1"], [7.0])
for limit in range(0, size, size // 20):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        history.save(sys.argv[1], step=2)
    except HistoryFileError:
        pass
    else:
        raise SystemExit(f"saved {size} bytes within {limit}")
    assert os.listdir(os.path.dirname(sys.argv[1])) == ["h.parquet"]
    assert open(sys.argv[1], "rb").read() == before
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
history.save(sys.argv[1], step=2)
print(GroupHistoryManager.load(sys.argv[1], step=2).total_count)
"""


def test_no_space_left_at_any_point_of_the_file(path):
    """A limit on the file's size stops the write as a full disk or a quota does."""
    done = subprocess.run([sys.executable, "-c", LIMITED, str(path)], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "5001", done.stderr
