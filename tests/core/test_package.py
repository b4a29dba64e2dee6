# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Metadata of the two distributions and the lock file that the tests run with."""

from __future__ import annotations

import ast

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

tomllib = pytest.importorskip("tomllib")
PROJECTS = [
    tomllib.loads((ROOT / path).read_text(encoding="utf-8"))["project"]
    for path in ("pyproject.toml", "verl_cpu/pyproject.toml")
]


@pytest.fixture(scope="module")
def pins():
    lines = (ROOT / "requirements" / "cpu.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    by_name = {canonicalize_name(pin.name): pin for pin in found}
    assert len(by_name) == len(found)
    return by_name


def entry_points():
    for project in PROJECTS:
        for targets in (project.get("scripts", {}), *project.get("entry-points", {}).values()):
            yield from targets.values()


@pytest.mark.parametrize("target", sorted(entry_points()))
def test_entry_points_exist_in_the_source(target):
    module, _, name = target.partition(":")
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    assert not name or name in {node.name for node in body if isinstance(node, ast.FunctionDef)}


def test_pins_are_exact_come_from_an_index_and_bring_no_cuda(pins):
    for name, pin in pins.items():
        assert pin.url is None, pin
        assert [clause.operator for clause in pin.specifier] == ["=="], pin
        assert "+" not in str(pin.specifier), f"{pin}: a local version, which no other index has"
        assert not name.startswith(("nvidia-", "cuda-", "cupy", "flash-attn")), pin


def test_pins_are_complete_and_within_the_ranges_of_the_projects(pins):
    extras = PROJECTS[0]["optional-dependencies"]
    required = [text for project in PROJECTS for text in project["dependencies"]]
    required += [text for name, extra in extras.items() if name not in ("vllm", "megatron") for text in extra]
    for wanted in map(Requirement, required):
        if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.11"}):
            (clause,) = pins[canonicalize_name(wanted.name)].specifier
            assert wanted.specifier.contains(clause.version, prereleases=True), f"{wanted}, but pinned: {clause}"
