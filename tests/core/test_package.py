# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The package: imports point down only, the core needs neither verl nor torch, and the lock file fits the projects."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import itertools
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import verl_pgrpo
from tests.conftest import ROOT

ORDER = ["errors", "files", "groups", "moments", "advantage", "shrinkage", "config", "checkpoint", "reward_batch"]
ORDER += ["history", "monitoring", "integration", "data", "rewards", "preflight", "evaluation", "report", "cli"]
LAZY = {"verl_pgrpo", "verl_pgrpo.integration.plugin"}  # may import inside functions
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (ROOT / "verl_pgrpo").rglob("*.py")
}


def imports(module):
    """Yield the modules of this package that a module imports, each with whether the import is at the top."""
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom):
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
                names = [full if (full := f"{base}.{name}") in FILES else base for name in names]
            yield from ((name, node in tree.body) for name in names if name in FILES)


def test_imports_point_down_are_at_the_top_and_acyclic():
    graph = {module: {name for name, at_top in imports(module) if at_top} - {module} for module in FILES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a cycle
    for module in FILES.keys() - LAZY:
        above = ORDER[ORDER.index(module.split(".")[1]) + 1 :]
        for name, at_top in imports(module):
            assert at_top, f"{module} imports {name} inside a function"
            assert not {*name.split(".")[1:2]} & {*above}, f"{module} imports {name}"


def test_the_core_and_the_plugin_load_no_framework():
    """The package and the plugin are imported in every process that imports verl, so they load nothing heavy."""
    heavy = ("verl", "ray", "vllm", "megatron", "torch", "transformers", "numpy", "pandas", "pyarrow", "omegaconf")
    code = (
        f"import sys, verl_pgrpo, verl_pgrpo.integration.plugin; print([m for m in {heavy} if m in sys.modules])\n"
        "import verl_pgrpo.monitoring, verl_pgrpo.checkpoint\n"
        f"print([m for m in {heavy[:6]} if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["[]", "[]"]


def test_building_data_needs_no_training_framework():
    pytest.importorskip("sklearn")
    blocked = "import sys; sys.modules |= dict.fromkeys(('torch', 'verl', 'vllm', 'ray', 'transformers'))"
    code = f"{blocked}; from verl_pgrpo.cli import main; sys.exit(main(['data', '--help']))"
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


def test_the_public_api_is_complete():
    assert [getattr(verl_pgrpo, name).__name__ for name in verl_pgrpo.__all__] == verl_pgrpo.__all__
    with pytest.raises(AttributeError):
        verl_pgrpo.nonsense  # noqa: B018


def project(path):
    tomllib = pytest.importorskip("tomllib")
    return tomllib.loads((ROOT / path).read_text(encoding="utf-8"))["project"]


def test_pins_are_exact_bring_no_cuda_and_fit_the_projects():
    lines = (ROOT / "requirements" / "cpu.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    pins = {canonicalize_name(pin.name): pin for pin in found}
    assert len(pins) == len(found)
    for name, pin in pins.items():
        assert [clause.operator for clause in pin.specifier] == ["=="], pin  # a URL has no clause
        assert "+" not in str(pin.specifier), f"{pin}: a local version, which no other index has"
        assert not name.startswith(("nvidia-", "cuda-", "cupy", "flash-attn")), pin
    for needs in (project("pyproject.toml"), project("verl_cpu/pyproject.toml")):
        extras = needs.get("optional-dependencies", {}) | {"vllm": []}
        for wanted in map(Requirement, itertools.chain(needs["dependencies"], *extras.values())):
            if wanted.marker is None or wanted.marker.evaluate({"python_version": "3.11"}):
                (clause,) = pins[canonicalize_name(wanted.name)].specifier
                assert wanted.specifier.contains(clause.version, prereleases=True), f"{wanted}, but pinned: {clause}"


def test_an_installation_with_dependencies_leaves_verls_packages_alone():
    required = {Requirement(line).name for line in project("pyproject.toml")["dependencies"]}
    assert required <= {"numpy", "pandas", "pyarrow", "omegaconf", "wrapt", "typer"}
