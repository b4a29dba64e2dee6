# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The lock file of the tests, checked against the requirements of both distributions."""

from __future__ import annotations

import itertools

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

tomllib = pytest.importorskip("tomllib")


def test_pins_are_exact_bring_no_cuda_and_fit_the_projects():
    lines = (ROOT / "requirements" / "cpu.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {canonicalize_name(pin.name): pin for pin in found}
    assert len(pins) == len(found)
    for name, pin in pins.items():
        assert [clause.operator for clause in pin.specifier] == ["=="], pin
        assert pin.url is None, pin
        assert "+" not in str(pin.specifier), f"{pin}: a local version, which no other index has"
        assert not name.startswith(("nvidia-", "cuda-", "cupy", "flash-attn")), pin
    for path in ("pyproject.toml", "verl_cpu/pyproject.toml"):
        project = tomllib.loads((ROOT / path).read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {}) | {"vllm": []}
        for wanted in map(Requirement, itertools.chain(project["dependencies"], *extras.values())):
            if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.11"}):
                (clause,) = pins[canonicalize_name(wanted.name)].specifier
                assert wanted.specifier.contains(clause.version, prereleases=True), f"{wanted}, but pinned: {clause}"
