# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The rules of the house: imports point down only, at the top of a file, and the core stands without verl or torch."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import verl_pgrpo

PACKAGE = Path(verl_pgrpo.__file__).parent
CORE = ["errors", "files", "groups", "moments", "advantage", "shrinkage"]
CORE += ["config", "checkpoint", "history", "monitoring"]
ORDER = [*CORE, "integration", "data", "rewards", "preflight", "evaluation", "report", "cli"]
LAZY = {"verl_pgrpo", "verl_pgrpo.integration.plugin"}  # may import inside functions
FRAMEWORKS = {"verl", "ray", "vllm", "megatron", "torch", "transfer_queue", "transformers"}

FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(module: str) -> list[tuple[str, bool]]:
    """Return the modules that a module imports, each with whether the import is inside a function."""
    found, package = [], module.split(".") if FILES[module].name == "__init__.py" else module.split(".")[:-1]

    def visit(node: ast.AST, inside: bool) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = (
                [*package[: len(package) - node.level + 1], *filter(None, [node.module])]
                if node.level
                else [node.module]
            )
            for alias in node.names:
                name = ".".join([*base, alias.name])
                found.append((name if name in FILES else ".".join(base), inside))
        for child in ast.iter_child_nodes(node):
            visit(child, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

    visit(ast.parse(FILES[module].read_text(encoding="utf-8")), False)
    return found


@pytest.mark.parametrize("name", sorted({room(module) for module in FILES if room(module)}))
def test_imports_point_down_and_stand_at_the_top(name):
    assert name in ORDER
    for module in (module for module in FILES if room(module) == name and module not in LAZY):
        for imported, inside in imports(module):
            if imported.partition(".")[0] == "verl_pgrpo":
                assert not inside, f"{module} imports {imported} inside a function"
                above = ORDER[ORDER.index(name) + 1 :] if imported != "verl_pgrpo" else []
                assert room(imported) not in above, f"{module} imports {imported}"


def test_there_is_no_import_cycle():
    ours = {
        module: {name for name, inside in imports(module) if name in FILES and not inside} - {module}
        for module in FILES
    }
    graphlib.TopologicalSorter(ours).prepare()  # raises CycleError with the modules of a cycle


@pytest.mark.parametrize("name", CORE)
def test_the_core_knows_no_framework(name):
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
