# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The wheel as in a verl image: installed with --no-deps, with only numpy, pandas, pyarrow, omegaconf and wrapt."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from tests.conftest import ROOT

NEEDED = ("numpy", "pandas", "pyarrow", "omegaconf", "wrapt")
# The packages that pandas and omegaconf import.
THEIRS = ("python-dateutil", "pytz", "tzdata", "six", "PyYAML", "antlr4-python3-runtime")
PROGRAM = """
import sys
from importlib.metadata import entry_points
from verl_pgrpo import GroupHistoryManager, PGRPOConfig

result = GroupHistoryManager(PGRPOConfig()).compute_advantages(["a", "a", "b"], [1.0, 0.0, 2.0])
assert len(result.advantages) == 3
(plugin,) = entry_points(group="verl.plugins")
plugin.load()
heavy = {"torch", "transformers", "verl", "ray", "vllm", "megatron", "scipy", "sklearn"} & set(sys.modules)
assert not heavy, heavy
print(plugin.name, sorted(e.name for e in entry_points(group="vllm.general_plugins")))
"""


def test_the_plugin_works_with_only_five_packages(tmp_path):
    """`python -S` sees no site-packages, so only what is unpacked or linked here can be imported."""
    source, site, libraries = tmp_path / "source", tmp_path / "site", tmp_path / "libraries"
    shutil.copytree(ROOT / "verl_pgrpo", source / "verl_pgrpo", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--target", site, source], check=True)
    assert {path.name.partition("-")[0] for path in site.iterdir()} == {"verl_pgrpo", "bin"}, "nothing else is added"
    libraries.mkdir()
    for name in {*NEEDED, *THEIRS} & {distribution.metadata["Name"] for distribution in metadata.distributions()}:
        distribution = metadata.distribution(name)
        tops = {file.parts[0] for file in distribution.files or []}
        for top in tops | {*(distribution.read_text("top_level.txt") or "").split()}:  # old installations list sources
            installed = Path(distribution.locate_file(top))
            if top != ".." and installed.exists() and not (libraries / top).exists():
                (libraries / top).symlink_to(installed)
    paths = f"import sys; sys.path += {[str(site), str(libraries)]!r}\n"
    command = [sys.executable, "-I", "-S", "-c", paths + PROGRAM]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "pgrpo []\n", "registers with verl, and nothing with vLLM"
