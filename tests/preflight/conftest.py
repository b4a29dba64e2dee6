# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A good launch for every test of this folder."""

from __future__ import annotations

import pytest

from tests.preflight.case import Case

pytest.importorskip("verl")


@pytest.fixture(scope="session", autouse=True)
def datasets_cache(tmp_path_factory):
    """Keep the cache of `datasets` separate from the user's, also in child processes."""
    import datasets

    patch, folder = pytest.MonkeyPatch(), tmp_path_factory.mktemp("datasets")
    patch.setenv("HF_DATASETS_CACHE", str(folder))
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder)
    yield
    patch.undo()


@pytest.fixture(scope="session")
def launch_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("launch")


@pytest.fixture
def case(launch_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Case.make(launch_folder, tmp_path / "run")
