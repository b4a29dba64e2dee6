# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Layering rules: imports point down only and are at the top of a file; the core needs neither verl nor torch."""

from __future__ import annotations

import ast
import graphlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import verl_pgrpo

PACKAGE = Path(verl_pgrpo.__file__).parent
CORE = ["errors", "files", "groups", "moments", "advantage", "shrinkage"]
CORE += ["config", "checkpoint", "reward_batch", "history", "monitoring"]
ORDER = [*CORE, "integration", "data", "rewards", "preflight", "evaluation", "report", "cli"]
LAZY = {"verl_pgrpo", "verl_pgrpo.integration.plugin"}  # may import inside functions
FRAMEWORKS = {"verl", "ray", "vllm", "megatron", "torch", "transfer_queue", "transformers"}
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports(module: str) -> list[tuple[str, bool]]:
    """Return the modules that a module imports, each with whether the import is inside a function."""
    found = []
    package = module if FILES[module].name == "__init__.py" else module.rpartition(".")[0]

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            names = (f"{base}.{alias.name}" for alias in node.names)
            found.extend((name if name in FILES else base, inside) for name in names)
        for child in ast.iter_child_nodes(node):
            visit(child, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(FILES[module].read_text(encoding="utf-8")), False)
    return found


def test_imports_point_down_are_at_the_top_and_acyclic():
    graph = {}
    for module in FILES:
        ours = [(name, inside) for name, inside in imports(module) if name.partition(".")[0] == "verl_pgrpo"]
        graph[module] = {name for name, inside in ours if not inside} - {module}
        if module not in LAZY:
            above = ORDER[ORDER.index(module.split(".")[1]) + 1 :]
            for name, inside in ours:
                assert not inside, f"{module} imports {name} inside a function"
                assert name.split(".")[1:2] not in [[room] for room in above], f"{module} imports {name}"
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError with the modules of a cycle


@pytest.mark.parametrize("name", CORE)
def test_the_core_imports_no_framework(name):
    assert not {imported.partition(".")[0] for imported, _ in imports(f"verl_pgrpo.{name}")} & FRAMEWORKS


def test_the_core_and_the_plugin_load_no_framework():
    """The package and the plugin are imported in every process that imports verl, so they load nothing heavy."""
    heavy = ("verl", "ray", "vllm", "megatron", "torch", "numpy", "pandas", "pyarrow", "omegaconf")
    code = (
        f"import sys, verl_pgrpo, verl_pgrpo.integration.plugin; print([m for m in {heavy} if m in sys.modules])\n"
        "import verl_pgrpo.monitoring, verl_pgrpo.checkpoint\n"
        f"print([m for m in {heavy[:5]} if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["[]", "[]"]


def test_the_public_api_is_complete():
    for name in verl_pgrpo.__all__:
        if name != "with_history":  # needs verl
            assert getattr(verl_pgrpo, name).__name__ == name
    with pytest.raises(AttributeError):
        verl_pgrpo.nonsense  # noqa: B018
