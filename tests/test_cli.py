# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The command `verl-pgrpo`: light, with examples that work, errors of one line, quiet where there is no terminal."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.fixtures_goodreads import write_files
from tests.fixtures_movielens import write_archive
from tests.test_replay import write_run
from verl_pgrpo import GroupHistoryManager
from verl_pgrpo.cli import main

COMMANDS = [
    ["data", "movielens"], ["data", "goodreads"], ["data", "personas"], ["data", "table"],
    ["groups", "fit"], ["groups", "assign"], ["groups", "inspect"], ["preflight"],
]  # fmt: skip


def call(*arguments: str, cwd: Path = ROOT, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "verl_pgrpo.cli", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False, **options)


def test_help_imports_next_to_nothing() -> None:
    code = (
        "import sys; from verl_pgrpo.cli import parser; parser();"
        "print({'numpy', 'pandas', 'pyarrow', 'torch', 'sklearn', 'verl', 'matplotlib'} & set(sys.modules))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert run.stdout.strip() == "set()"


def example(command: list[str], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as end:
        main([*command, "--help"])
    assert end.value.code == 0
    [text] = re.findall(r"example:\n  verl-pgrpo (.*)", capsys.readouterr().out, re.DOTALL)
    return shlex.split(text.replace("\\\n", ""))


@pytest.mark.parametrize("command", [["replay"], *(["history", one] for one in ("show", "diff", "merge", "convert"))])
def test_the_examples_about_a_run_work_as_they_stand(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = example(command, capsys)
    monkeypatch.chdir(tmp_path)
    if command == ["replay"]:
        Path("runs").mkdir()
        write_run(Path("runs/grpo"))
        Path("data").symlink_to("runs/grpo")  # where it has put train.parquet
    history = GroupHistoryManager()
    for steps, path in enumerate(argument for argument in arguments if argument.endswith("history.parquet")):
        history.observe(["jazz", "folk"], [1.0, 2.0])
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        history.save(path, step=steps)
    if command[-1] == "merge":
        history.save("older.parquet", step=0)
        history.save("newer.parquet", step=0)
    assert main(arguments) == 0
    assert capsys.readouterr().out


@pytest.mark.slow
def test_the_examples_of_the_help_work_as_they_stand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import numpy as np
    import pandas as pd

    monkeypatch.chdir(tmp_path)
    write_archive(tmp_path / "ml-1m.zip", users=400, count=12_000)
    write_files(tmp_path)
    rng = np.random.default_rng(0)
    kind = np.arange(200) % 4
    users = pd.DataFrame(
        {"user": range(200), "a": 9.0 * kind + rng.random(200), "b": 5.0 * (kind == 2) + rng.random(200)}
    )
    users.to_csv("new_users.csv", index=False)
    users.to_parquet("users.parquet")
    for command in COMMANDS:
        if command == ["data", "table"]:
            pd.DataFrame({"question": [f"{i}?" for i in range(99)], "segment": ["a", "b", "c"] * 33}).to_parquet(
                "users.parquet"
            )
        if command == ["groups", "fit"]:
            users.to_parquet("users.parquet")
        assert main(example(command, capsys)) == 0, command
    for name in ("movielens", "goodreads", "personas_english", "mine"):
        for split in ("train", "val"):
            assert Path(f"data/{name}/{split}.parquet").stat().st_size > 0
    assert Path("groups.png").stat().st_size > 0
    assert main(example([], capsys)) == 0


def test_a_mistake_is_one_line_and_exit_status_2(tmp_path: Path) -> None:
    run = call("data", "movielens", "--archive", "none.zip", "--out", "x", cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    [line] = run.stderr.splitlines()
    assert line.startswith("verl-pgrpo: error: none.zip: no such file; download ml-1m.zip")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    write_archive(tmp_path / "ml-1m.zip")
    run = call("data", "movielens", "--archive", "ml-1m.zip", "--out", "file", cwd=tmp_path)
    assert run.returncode == 2
    assert "is a file; name a folder" in run.stderr
    assert call("data", "nonsense").returncode == 2
    assert call().returncode == 2


def test_quiet_without_a_terminal_and_json_is_all_there_is(tmp_path: Path) -> None:
    write_archive(tmp_path / "ml-1m.zip")
    run = call("data", "movielens", "--archive", "ml-1m.zip", "--out", "out", "--groups", "4", "--json", cwd=tmp_path)
    assert run.returncode == 0
    assert run.stderr == ""
    summary = json.loads(run.stdout)
    assert summary["read"]["ratings"] == 8000
    assert set(summary) == {"title", "read", "dropped", "groups", "files", "notes"}
    assert sum(line["train"] for line in summary["groups"]) == summary["files"]["out/train.parquet"]
    assert not list((tmp_path / "out").glob("*.partial"))


def test_version() -> None:
    import verl_pgrpo

    assert call("--version").stdout == f"verl-pgrpo {verl_pgrpo.__version__}\n"
