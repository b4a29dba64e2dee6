# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The patches: each applies to the verl it is for, keeps verl's own tests, and does what patches/README.md says.

Every version is tried on a copy. That of the installed version comes from where it is installed, others from PyPI; a
test is skipped if that cannot be reached. Advantages are computed in processes of their own (`tests/patch_probe.py`):
verl's V1 trainer and TransferQueue, on recorded rollouts.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.patch_probe import REWARDS, rollouts
from verl_pgrpo.integration.compat import TESTED_VERSIONS, TRAINERS, missing_seams

PATCHES = ROOT / "patches"
NAME = "0001-estimator-batch-fields.patch"
ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
# verl's own tests of what the patch touches, as far as its wheels have them; the last is the patch's own.
VERLS_TESTS = [
    "tests/trainer/ppo/test_core_algos_on_cpu.py",
    "tests/trainer/ppo/test_reinforce_pp_multiturn_on_cpu.py",
    "tests/trainer/test_multi_trajectories_advantage_on_cpu.py",
    "tests/trainer/ppo/test_adv_estimator_batch_fields_on_cpu.py",
]


def copy_of_verl(version: str, folder: Path) -> Path:
    """verl's `verl` and `tests` in `folder`, as its wheel has them."""
    if metadata.version("verl") == version:
        for file in metadata.files("verl") or []:
            if file.parts[0] in ("verl", "tests") and "__pycache__" not in file.parts:
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file.locate(), folder / file)
        return folder
    wheels = ROOT / ".matrix" / "wheels"
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    if not list(wheels.glob(f"verl-{version}-*.whl")):
        run = subprocess.run([*pip, "--dest", wheels, f"verl=={version}"], capture_output=True, text=True, check=False)
        if run.returncode:
            pytest.skip(f"no copy of verl {version}: {run.stderr.strip()[-200:]}")
    (wheel,) = wheels.glob(f"verl-{version}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def patch(folder: Path, version: str, *options: str) -> subprocess.CompletedProcess[str]:
    """The command of patches/README.md."""
    with open(PATCHES / f"verl-{version}" / NAME, "rb") as file:
        command = ["patch", "-p1", *options]
        return subprocess.run(command, cwd=folder, stdin=file, capture_output=True, text=True, check=False)


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module", params=TESTED_VERSIONS)
def version(request):
    return request.param


@pytest.fixture(scope="module")
def stock(version, tmp_path_factory) -> Path:
    return copy_of_verl(version, tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="module")
def patched(version, stock, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("patched") / "copy"
    shutil.copytree(stock, folder)
    run = patch(folder, version)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def probe(copy: Path, out: Path, *ways: str) -> tuple[dict[str, np.ndarray], dict]:
    """Advantages by way, and what else `tests/patch_probe.py` tells of them."""
    plugin = "auto" if "pgrpo" in ways else "none"
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(copy), "VERL_USE_EXTERNAL_PLUGINS": plugin}
    command = [sys.executable, "-m", "tests.patch_probe", out, *ways]
    with open(f"{out}.log", "wb") as log:
        code = subprocess.run(
            command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, timeout=300, check=False
        ).returncode
    assert code == 0, Path(f"{out}.log").read_text(errors="replace")[-4000:]
    with np.load(f"{out}.npz") as arrays:
        advantages = dict(arrays)
    told = json.loads(Path(f"{out}.json").read_text())
    assert told["verl"] == str(copy)
    return advantages, told


@pytest.fixture(scope="module")
def before(stock, tmp_path_factory):
    return probe(stock, tmp_path_factory.mktemp("before") / "out", "gdpo", "gdpo-before-v1", "pgrpo")


@pytest.fixture(scope="module")
def native(patched, tmp_path_factory):
    return probe(patched, tmp_path_factory.mktemp("native") / "out", "gdpo", "gdpo-before-v1", "pgrpo-native")


@pytest.fixture(scope="module")
def with_plugin(patched, tmp_path_factory):
    return probe(patched, tmp_path_factory.mktemp("plugin") / "out", "gdpo", "pgrpo")


# ----------------------------------------------------------------------------------------------------------- the diffs


def test_there_is_a_patch_for_every_version_and_no_other():
    assert {path.name for path in PATCHES.iterdir()} == {"README.md", *(f"verl-{v}" for v in TESTED_VERSIONS)}
    for version in TESTED_VERSIONS:
        head = (PATCHES / f"verl-{version}" / NAME).read_text(encoding="utf-8").split("\ndiff --git ")[0]
        assert re.match(r"From 0{40} .*\nFrom: .+ <.+@.+>\nDate: .+\nSubject: \[PATCH\] ", head)


def test_the_patches_are_the_same_but_for_where_they_apply():
    def lines(version):
        text = (PATCHES / f"verl-{version}" / NAME).read_text(encoding="utf-8")
        return [line for line in text.splitlines() if not line.startswith(("@@ ", "index "))]

    assert len({tuple(lines(version)) for version in TESTED_VERSIONS}) == 1


def test_it_applies_without_fuzz_and_comes_off_again(version, stock, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(stock, folder)
    file = PATCHES / f"verl-{version}" / NAME
    # git takes no context lines that are merely near; --unsafe-paths and the ceiling: `folder` is in no repository.
    ceiling = {**os.environ, "GIT_CEILING_DIRECTORIES": str(tmp_path)}
    check = subprocess.run(
        ["git", "apply", "--check", str(file)], cwd=folder, env=ceiling, capture_output=True, text=True, check=False
    )
    assert check.returncode == 0, check.stderr
    run = patch(folder, version)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "fuzz" not in run.stdout
    changed = {name for name, content in contents(folder).items() if contents(stock).get(name) != content}
    assert changed == {
        "verl/trainer/ppo/core_algos.py",
        "verl/trainer/ppo/ray_trainer.py",
        "verl/trainer/ppo/v1/trainer_base.py",
        VERLS_TESTS[-1],
    }
    for name in changed:
        ast.parse((folder / name).read_text(encoding="utf-8"))
    assert patch(folder, version, "-R").returncode == 0
    assert contents(folder) == contents(stock)


def test_the_readme_has_the_commands_that_are_tested():
    readme = (PATCHES / "README.md").read_text(encoding="utf-8")
    path = f"patches/verl-0.9.1/{NAME}"
    assert f"patch -p1 < /path/to/verl-pgrpo/{path}" in readme
    assert f"patch -p1 -R < /path/to/verl-pgrpo/{path}" in readme


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_patched_verl_has_every_seam(patched, trainer):
    assert missing_seams(patched / "verl", trainer) == []


# ------------------------------------------------------------------------------------------------------ what they do


@pytest.mark.launch
def test_verls_own_tests_pass_on_the_patched_copy(patched):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *VERLS_TESTS]
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(patched), "VERL_USE_EXTERNAL_PLUGINS": "none"}
    run = subprocess.run(
        command, cwd=patched, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, run.stdout[-4000:]


@pytest.mark.launch
def test_gdpo_fails_on_v1_without_the_patch_and_works_with_it(before, native, with_plugin):
    """It gives what the older trainer's GDPO gives of the same rewards, before and after the patch, to the bit."""
    assert "gdpo" not in before[0]
    assert "prompts" in before[1]["gdpo"]
    expected = before[0]["gdpo-before-v1"]
    assert np.isfinite(expected).all()
    assert len({tuple(row[name] for name in REWARDS) for row in rollouts()}) > 4
    assert np.abs(expected).sum() > 1
    for advantages in (native[0]["gdpo-before-v1"], native[0]["gdpo"], with_plugin[0]["gdpo"]):
        np.testing.assert_array_equal(advantages, expected)


@pytest.mark.launch
def test_the_estimator_on_the_native_path_equals_the_plugin(before, native):
    """Registered with its field on a verl without the plugin: the same advantages, to the bit."""
    assert before[1]["fetched by the plugin"] == 1
    assert np.abs(before[0]["pgrpo"]).sum() > 1
    assert "pgrpo-native" in native[0], native[1]
    np.testing.assert_array_equal(native[0]["pgrpo-native"], before[0]["pgrpo"])


@pytest.mark.launch
def test_the_plugin_uses_the_seam_where_there_is_one(before, with_plugin):
    assert with_plugin[1]["fetched by the plugin"] == 0
    assert "pgrpo" in with_plugin[0], with_plugin[1]
    np.testing.assert_array_equal(with_plugin[0]["pgrpo"], before[0]["pgrpo"])
