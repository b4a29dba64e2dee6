# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The plugin in verl: active if requested, inactive otherwise, and an error if it cannot work."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import ROOT
from verl_pgrpo import ConfigError, UnsupportedVerlError
from verl_pgrpo.integration import plugin
from verl_pgrpo.integration.checks import TESTED_VERSIONS

FINGERPRINT = """
import hashlib, numpy as np, torch
from verl.protocol import DataProto
from verl.trainer.ppo.core_algos import ADV_ESTIMATOR_REGISTRY
from verl.trainer.ppo.v1.utils import compute_advantage_for_multi_trajectories
from omegaconf import OmegaConf
torch.manual_seed(0)
n, t = 24, 9
keys = [f"p{i // 6}_{i % 6 // 2}_{i % 2}" for i in range(n)]
for name in sorted(set(ADV_ESTIMATOR_REGISTRY) - {"pgrpo"}):
    mask = (torch.rand(n, t) < 0.8).long()
    mask[:, 0] = 1
    tensors = {
        "token_level_rewards": torch.randn(n, t), "response_mask": mask, "values": torch.randn(n, t),
        "old_log_probs": -torch.rand(n, t), "sum_pi_squared": torch.rand(n, t),
    }
    if name == "remax":
        tensors["reward_baselines"] = torch.randn(n)
    uid = np.array([key.rsplit("_", 2)[0] for key in keys], dtype=object)
    data = DataProto.from_dict(tensors=tensors, non_tensors={"uid": uid})
    config = OmegaConf.create({"adv_estimator": name, "gamma": 0.9})
    try:
        out = compute_advantage_for_multi_trajectories(data, batch_keys=keys, adv_estimator=name, config=config)
        digest = hashlib.sha256(out.batch["advantages"].numpy().tobytes() + out.batch["returns"].numpy().tobytes())
        print(name, digest.hexdigest())
    except Exception as error:
        print(name, type(error).__name__, error)
"""


def python(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **env}
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def main_ppo(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run the user's command until it fails."""
    preset = ["--config-dir", str(ROOT / "verl_cpu" / "presets"), "--config-name", "cpu", f"hydra.run.dir={folder}"]
    flag = ["algorithm.adv_estimator=pgrpo", "actor_rollout_ref.model.path=none"]
    run = python("-m", "verl.trainer.main_ppo", *preset, *flag, *arguments, **env)
    assert run.returncode != 0
    assert "ray init" not in run.stdout
    return run


@pytest.mark.slow
def test_other_estimators_are_bit_identical_with_and_without_the_plugin():
    runs = [python("-c", FINGERPRINT, VERL_USE_EXTERNAL_PLUGINS=policy).stdout for policy in ("none", "auto")]
    without, with_plugin = ([line for line in run.splitlines() if " " in line] for run in runs)
    assert without == with_plugin
    computed = {line.split()[0] for line in without if re.fullmatch(r"\w+ [0-9a-f]{64}", line)}
    assert computed >= {"gae", "grpo", "grpo_vectorized", "rloo", "reinforce_plus_plus", "remax", "opo", "gpg"}


def test_verl_finds_the_plugin():
    # verl lower-cases the names that VERL_USE_EXTERNAL_PLUGINS lists, so the entry point's must be lower case.
    (found,) = (entry for entry in entry_points(group="verl.plugins") if entry.name == "pgrpo")
    assert found.load() is plugin
    from verl.trainer.ppo import core_algos

    assert core_algos.get_adv_estimator_fn("pgrpo").__name__ == "compute_pgrpo_outcome_advantage"


RUNS = [
    (["+algorithm.pgrpo.halflife=3"], ConfigError),
    (["+algorithm.pgrpo=on"], ConfigError),
    (["algorithm.filter_groups.enable=True", "algorithm.filter_groups.metric=acc"], ConfigError),
    (["+algorithm.pgrpo.half_life=512", "+algorithm.pgrpo.epsilon=1e-5"], None),
    (["trainer.use_v1=False"], None),
    (["algorithm.adv_estimator=grpo", "+algorithm.pgrpo.halflife=3"], None),
]


@pytest.mark.parametrize(("overrides", "error"), RUNS)
def test_wrong_runs_stop_before_anything_starts_and_others_pass(compose, overrides, error):
    from verl.utils.config import validate_config

    config = compose("algorithm.adv_estimator=pgrpo", *overrides)
    for args, kwargs in (((), {"config": config}), ((config,), {})):
        with contextlib.nullcontext() if error is None else pytest.raises(error):
            validate_config(*args, **kwargs, use_reference_policy=False, use_critic=False)


@pytest.mark.slow
def test_another_verl_is_named_with_what_it_lacks(tmp_path):
    """A verl whose trainer has changed: the user's own command reports what is wrong before it starts Ray."""
    import verl

    changes = {"trainer/ppo/v1/trainer_base.py": ("def _compute_advantage(", "def _advantage_of(")}
    changes |= {"version/version": (verl.__version__, "0.99.0")}
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(verl.__file__).parent, tmp_path / "verl", copy_function=os.symlink, ignore=ignored)
    for file, change in changes.items():
        path = tmp_path / "verl" / file
        text = path.read_text()
        path.unlink()  # a link to the installed file
        path.write_text(text.replace(*change))
    for lacking in ("_compute_advantage", "verl.trainer.ppo.v1"):
        run = main_ppo(tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
        for part in ("UnsupportedVerlError", "0.99.0", lacking, TESTED_VERSIONS[0]):
            assert part in run.stderr
        shutil.rmtree(tmp_path / "verl" / "trainer" / "ppo" / "v1", ignore_errors=True)


@pytest.mark.slow
def test_a_plugin_that_cannot_load_is_loud_only_for_its_own_runs(tmp_path):
    (tmp_path / "wrapt.py").write_text("raise ImportError('broken on purpose')")
    path = f"{tmp_path}:{ROOT}"
    assert "broken on purpose" in main_ppo(tmp_path, PYTHONPATH=path).stderr.splitlines()[-1]
    other = python("-c", "import verl; print('fine')", PYTHONPATH=path, VERL_PLATFORM="")
    assert other.stdout.strip() == "fine"
    assert "broken on purpose" in other.stderr


def test_a_hook_that_fails_stops_only_runs_that_need_it(tmp_path, monkeypatch, compose):
    """It never breaks verl's import. The trainers raise the failure too: they run in another process."""
    built = []
    stock = type("Trainer", (), {"__init__": lambda self, config: built.append(config.algorithm.adv_estimator)})
    base = SimpleNamespace(TRAINER_REGISTRY={"sync": stock}, __spec__=object())
    monkeypatch.setitem(sys.modules, "verl.trainer.ppo.v1.trainer_base", base)
    (tmp_path / "emptied_module_of_verl.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(plugin, "_failure", None)
    plugin._on_import("emptied_module_of_verl")(plugin._register_estimator)
    assert __import__("emptied_module_of_verl")
    for call in (plugin.check_run, base.TRAINER_REGISTRY["sync"]):
        call(compose("algorithm.adv_estimator=grpo"))
        with pytest.raises(UnsupportedVerlError, match="register_adv_est"):
            call(compose("algorithm.adv_estimator=pgrpo"))
    assert built == ["grpo"]


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import verl; "])
def test_a_users_module_may_import_the_trainers_first(first):
    """As a module that calls `with_history` does: before verl's trainers, or before any module of verl."""
    code = (
        f"{first}from verl_pgrpo.integration.trainers import with_history, PGRPOV1TrainerMixin\n"
        "from verl.trainer.ppo.v1 import get_trainer_cls\n"
        "from verl_pgrpo.integration import plugin\n"
        "print(plugin._failure, issubclass(get_trainer_cls('sync'), PGRPOV1TrainerMixin))"
    )
    assert python("-c", code).stdout.splitlines()[-1:] == ["None True"]
