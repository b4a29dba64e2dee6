# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A good launch for every test of this folder."""

from __future__ import annotations

import pytest

from tests.preflight.case import Case

pytest.importorskip("verl")


@pytest.fixture(scope="session")
def launch_folder(tmp_path_factory):
    return tmp_path_factory.mktemp("launch")


@pytest.fixture
def case(launch_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Case.make(launch_folder, tmp_path / "run")
