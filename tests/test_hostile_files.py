# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What a history file may meet: damage, a full disk, no permission, a writer that is killed."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import tempfile
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.errors import HistoryFileAltered, HistoryFileTooNew


def some_history() -> GroupHistoryManager:
    history, rng = GroupHistoryManager(), np.random.default_rng(0)
    history.observe(rng.choice(["a", "b", "", "a\nb", "🦜", "x" * 1000], 200).tolist(), rng.standard_normal(200))
    return history


@pytest.mark.parametrize("number", [1000, pytest.param(20_000, marks=pytest.mark.stress)])
def test_bit_flips_and_truncations_are_named(tmp_path, number):
    path, previous = tmp_path / "h.parquet", tmp_path / "previous.parquet"
    some_history().save(previous, step=1)
    history = some_history()
    history.observe([f"group {i}" for i in range(number // 10)], np.arange(number // 10))
    history.save(path, step=2)
    whole, rng = path.read_bytes(), random.Random(0)
    caught = collections.Counter()

    def refused(damaged: bytes) -> None:
        path.write_bytes(damaged)
        with pytest.raises((HistoryFileAltered, HistoryFileTooNew), match=r"Resume from an earlier|Install") as error:
            GroupHistoryManager.load(path)
        caught[error.type] += 1

    for bit in rng.sample(range(8 * len(whole)), number):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(bytes(damaged))
    for length in [0, 1, 3, 4, 8, len(whole) - 1, *rng.choices(range(len(whole)), k=number - 6)]:
        refused(whole[:length])
    assert caught.total() == 2 * number
    print(f"{2 * number} damaged files refused: {dict(caught)}")
    path.write_bytes(whole)
    GroupHistoryManager.load(path, step=2)
    GroupHistoryManager.load(previous, step=1)


@pytest.mark.parametrize("foreign", [b"\0" * 64, b"PAR1" * 40, None])
def test_another_files_bytes_are_named(tmp_path, foreign):
    """At the start, in the middle and at the end; `None`: of a second history."""
    path, other = tmp_path / "h.parquet", tmp_path / "other.parquet"
    some_history().save(path, step=1)
    second = some_history()
    second.observe(["a"], [99.0])
    second.save(other, step=1)
    whole = path.read_bytes()
    foreign = foreign if foreign is not None else other.read_bytes()[: len(whole) // 2]
    for start in (0, len(whole) // 3, len(whole) - len(foreign)):
        mixed = whole[:start] + foreign + whole[start + len(foreign) :]
        assert mixed != whole
        path.write_bytes(mixed)
        with pytest.raises(HistoryFileAltered):
            GroupHistoryManager.load(path)
    path.write_bytes(whole + foreign)
    with pytest.raises(HistoryFileAltered):
        GroupHistoryManager.load(path)


def save_for_ever(path, report):
    """In a process of its own: tells each step when its file is there."""
    history = GroupHistoryManager()
    history.observe([f"g{i}" for i in range(2000)], np.arange(2000))
    for step in itertools.count(1):
        history.save(path, step=step)
        report.send(step)


@pytest.mark.parametrize(
    "number", [pytest.param(120, marks=pytest.mark.slow), pytest.param(1000, marks=pytest.mark.stress)]
)
def test_killed_while_saving(tmp_path, number):
    """Kill -9 at random moments of a writer: what is left is whole, of the last step that was told or of the next."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_hostile_files", "pyarrow.parquet"])
    rng, killed, ahead = random.Random(0), 0, 0
    for _ in range(number):
        path = tmp_path / f"{killed}.parquet"
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(target=save_for_ever, args=(path, writer))
        process.start()
        writer.close()
        last = reader.recv()  # the first file is there
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.join()
        with contextlib.suppress(EOFError):
            while True:
                last = reader.recv()
        history = GroupHistoryManager.load(path)
        step = json.loads(pq.read_metadata(path).metadata[b"verl_pgrpo"])["step"]
        assert history.total_count == 2000
        assert step in (last, last + 1)
        killed += 1
        ahead += step == last + 1
    assert killed == number
    print(f"{killed} writers killed, {killed} whole files, {ahead} of them one step ahead of the writer's last word")


LIMITED = """
import os, resource, sys
from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.errors import HistoryFileError
history = GroupHistoryManager()
history.observe([f"group {i}" for i in range(5000)], range(5000))
history.save(sys.argv[1], step=1)
size, before = os.path.getsize(sys.argv[1]), open(sys.argv[1], "rb").read()
history.observe(["group 1"], [7.0])
for limit in range(0, size, size // 20):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        history.save(sys.argv[1], step=2)
    except HistoryFileError as error:
        assert "Free space" in str(error), error
    else:
        raise SystemExit(f"saved {size} bytes within {limit}")
    assert os.listdir(os.path.dirname(sys.argv[1])) == ["h.parquet"]
    assert open(sys.argv[1], "rb").read() == before
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
history.save(sys.argv[1], step=2)
print(GroupHistoryManager.load(sys.argv[1], step=2).total_count)
"""


def test_no_space_left_at_any_point_of_the_file(tmp_path):
    """A limit on the file's size, where the system refuses to write on: a full disk or a quota, without either."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "h.parquet")], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "5001", done.stderr


FULL = """
import os, sys
from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.errors import HistoryFileError
path = os.path.join(sys.argv[1], "h.parquet")
history = GroupHistoryManager()
history.observe(["a"], [1.0])
history.save(path, step=1)
history.observe([f"group {i}" for i in range(100_000)], range(100_000))
try:
    history.save(path, step=2)
except HistoryFileError as error:
    print(error)
assert os.listdir(sys.argv[1]) == ["h.parquet"]
assert GroupHistoryManager.load(path, step=1).total_count == 1
"""


def test_a_full_disk(tmp_path):
    """A real file system of 256 KiB, in a mount namespace of its own that ends with the process.

    Where this user may not mount: a limit of 256 KiB on the size of a file, which stops the write at the same place.
    """
    mount = 'mount -t tmpfs -o size=256k tmpfs "$1" && exec "$2" -c "$3" "$1"'
    limit = 'trap "" XFSZ; ulimit -f 512 && exec "$2" -c "$3" "$1"'  # blocks of 512 bytes, in a POSIX shell
    namespace = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    may_mount = subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode == 0
    shell = [*namespace, "sh", "-c", mount] if may_mount else ["sh", "-c", limit]
    command = [*shell, "sh", str(tmp_path), sys.executable, FULL]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ("No space left on device" if may_mount else "File too large") in done.stdout


FORBIDDEN = """
import os, sys
from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.errors import HistoryFileError
import pyarrow.parquet
path = os.path.join(sys.argv[1], "h.parquet")
history = GroupHistoryManager()
history.observe(["a"], [1.0])
history.save(path, step=1)
os.chmod(path, 0)
os.chmod(sys.argv[1], 0o555)
if os.geteuid() == 0:  # root may do anything
    os.setuid(65534)
for action in (lambda: history.save(path, step=2), lambda: GroupHistoryManager.load(path)):
    try:
        action()
    except HistoryFileError as error:
        print(type(error).__name__, error)
"""


def test_no_permission():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        done = subprocess.run([sys.executable, "-c", FORBIDDEN, folder], capture_output=True, text=True, check=False)
        os.chmod(folder, 0o755)
    save, load = done.stdout.splitlines()
    assert re.match(r"HistoryFileError .*could not be written.*Permission denied.*mend the permissions", save)
    assert re.match(r"HistoryFileError .*cannot be read.*Permission denied.*Resume from an earlier", load)
