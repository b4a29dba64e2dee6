# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A good launch for every test of this folder."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.preflight.case import Case, rows
from verl_cpu.tiny_model import make_tiny_qwen3

pytest.importorskip("verl")


@pytest.fixture(scope="session", autouse=True)
def datasets_cache(tmp_path_factory):
    """Keep the cache of `datasets` separate from the user's, also in child processes."""
    import datasets

    folder = tmp_path_factory.mktemp("datasets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_DATASETS_CACHE", str(folder))
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
        yield


@pytest.fixture(scope="session")
def launch_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("launch")
    make_tiny_qwen3(folder / "model", ["jazz", "tip", *map(str, range(100)), "these", "are", "a", "few", "words"])
    (folder / "reward.py").write_text("def compute_score(solution_str, **given): return float(len(solution_str))\n")
    for split in ("train", "val"):
        pq.write_table(pa.Table.from_pylist(rows()), folder / f"{split}.parquet")
    return folder


@pytest.fixture
def case(launch_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    return Case(launch_folder, tmp_path / "run")
