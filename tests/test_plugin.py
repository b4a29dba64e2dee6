# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The plugin in verl: there when asked for, inert otherwise, and loud when it cannot work."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from verl_pgrpo.errors import ConfigError, UnsupportedVerlError
from verl_pgrpo.integration.compat import TESTED_VERSIONS, TRAINERS, missing_seams

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


def python(*arguments: str, timeout: float = 240, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **env}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=timeout, env=environment, check=False
    )


def main_ppo(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The user's command, up to where it fails."""
    preset = ["--config-dir", str(ROOT / "verl_cpu" / "presets"), "--config-name", "cpu", f"hydra.run.dir={folder}"]
    flag = ["algorithm.adv_estimator=pgrpo", "actor_rollout_ref.model.path=none"]
    return python("-m", "verl.trainer.main_ppo", *preset, *flag, *arguments, **env)


@pytest.fixture(scope="module")
def verl_root() -> Path:
    import verl

    return Path(verl.__file__).parent


@pytest.mark.slow
def test_other_estimators_are_bit_identical_with_and_without_the_plugin():
    lines = [
        [
            line
            for line in python("-c", FINGERPRINT, VERL_USE_EXTERNAL_PLUGINS=policy).stdout.splitlines()
            if " " in line
        ]
        for policy in ("none", "auto")
    ]
    assert lines[0] == lines[1]
    computed = {line.split()[0] for line in lines[0] if re.fullmatch(r"\w+ [0-9a-f]{64}", line)}
    assert computed >= {"gae", "grpo", "grpo_vectorized", "rloo", "reinforce_plus_plus", "remax", "opo", "gpg"}


def test_import_of_verl_gets_less_than_five_percent_slower():
    """Both timed in one process, where the plugin is the last thing that `import verl` would do; the best of three."""
    code = (
        "import time, importlib; a = time.perf_counter(); import verl; b = time.perf_counter();"
        "importlib.import_module('verl_pgrpo.integration.plugin'); print((time.perf_counter() - b) / (b - a))"
    )
    shares = [float(python("-c", code, VERL_USE_EXTERNAL_PLUGINS="none").stdout) for _ in range(3)]
    assert min(shares) < 0.05, shares


def test_nothing_heavy_is_imported_before_verl_needs_it():
    heavy = ("torch", "verl", "ray", "pyarrow")
    code = f"import sys, verl_pgrpo.integration.plugin; print([m for m in {heavy} if m in sys.modules])"
    assert python("-c", code).stdout.strip() == "[]"


def test_every_trainer_of_the_registry_is_hooked_and_stays_verls_own_for_other_estimators(compose, monkeypatch):
    from verl.trainer.ppo.v1 import get_trainer_cls

    from verl_pgrpo.integration.trainers import PersonalizedTrainer, with_history

    for mode in ("sync", "colocate_async", "separate_async"):
        cls = get_trainer_cls(mode)
        stock = next(base for base in cls.__mro__[1:] if base.__name__ == cls.__name__)
        assert issubclass(cls, PersonalizedTrainer)
        assert stock.__module__ == f"verl.trainer.ppo.v1.trainer_{mode}"
        assert with_history(cls) is cls
        calls = []
        monkeypatch.setattr(stock, "__init__", lambda self, config, calls=calls: calls.append("init"))
        for name in ("_init_dataloader", "_compute_advantage", "step", "_save_checkpoint", "_load_checkpoint"):
            monkeypatch.setattr(stock, name, lambda self, *args, calls=calls, name=name: calls.append((name, *args)))
        grpo = cls(config=compose("algorithm.adv_estimator=grpo", "+algorithm.pgrpo.nonsense=1"))
        assert list(vars(grpo)) == ["pgrpo_history"]
        grpo._init_dataloader()
        grpo._compute_advantage("batch", metrics := {})
        grpo.step(metrics, {})
        grpo._save_checkpoint()
        grpo.global_steps = 3
        grpo._load_checkpoint()
        assert metrics == {}
        assert calls == [
            "init",
            ("_init_dataloader",),
            ("_compute_advantage", "batch", {}),
            ("step", {}, {}),
            ("_save_checkpoint",),
            ("_load_checkpoint",),
        ]
        personalized = cls(config=compose("algorithm.adv_estimator=pgrpo", "trainer.resume_mode=disable"))
        assert personalized.pgrpo_history.num_groups == 0


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["+algorithm.pgrpo.statistic=exponential"], ConfigError, "did you mean statistics"),
        (["+algorithm.pgrpo.cold_start.min=3"], ConfigError, "did you mean cold_start.min_count"),
        (["+algorithm.pgrpo.half_life=3"], ConfigError, "no effect"),
        (
            ["algorithm.filter_groups.enable=True", "algorithm.filter_groups.metric=acc"],
            ConfigError,
            "all earn the same",
        ),
        (["~trainer.use_v1"], UnsupportedVerlError, "trainer.use_v1=True"),
    ],
)
def test_wrong_runs_stop_before_anything_starts(compose, overrides, error, message):
    from verl.utils.config import validate_config

    config = compose("algorithm.adv_estimator=pgrpo", *overrides)
    with pytest.raises(error, match=message):
        validate_config(config, use_reference_policy=False, use_critic=False)


def test_good_runs_and_other_estimators_pass(compose):
    from verl.utils.config import validate_config

    good = [
        "+algorithm.pgrpo.statistics=exponential",
        "+algorithm.pgrpo.half_life=512",
        "+algorithm.pgrpo.epsilon=1e-5",
    ]
    for overrides in (
        ["algorithm.adv_estimator=pgrpo", *good],
        ["algorithm.adv_estimator=pgrpo", *good, "trainer.use_v1=False"],
        ["algorithm.adv_estimator=grpo", "trainer.use_v1=False"],
    ):
        validate_config(config=compose(*overrides), use_reference_policy=False, use_critic=False)


@pytest.mark.slow
def test_the_users_command_fails_at_once_with_the_reason(tmp_path):
    run = main_ppo(tmp_path, "+algorithm.pgrpo.halflife=5")
    assert run.returncode != 0
    assert "unknown option halflife; did you mean half_life?" in run.stderr
    assert "ray init" not in run.stdout


@pytest.mark.parametrize("trainer", TRAINERS)
def test_this_verl_has_every_seam(verl_root, trainer):
    assert missing_seams(verl_root, trainer) == []


def test_a_verl_without_the_older_trainers_serves_the_others(verl_root, tmp_path):
    copy = tmp_path / "verl"
    for file in ("trainer/ppo/core_algos.py", "trainer/ppo/v1", "utils/config.py", "utils/checkpoint"):
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (verl_root / file).is_dir() else shutil.copy)(verl_root / file, copy / file)
    assert missing_seams(copy) == []
    assert missing_seams(copy, "v0") == [
        "the file verl/trainer/main_ppo_v0.py",
        "the file verl/trainer/ppo/ray_trainer.py",
    ]
    assert "the file verl/experimental/one_step_off_policy/ray_trainer.py" in missing_seams(copy, "one_step_off")
    trainer = copy / "experimental" / "fully_async_policy" / "fully_async_trainer.py"
    trainer.parent.mkdir(parents=True)
    source = (verl_root / "experimental" / "fully_async_policy" / "fully_async_trainer.py").read_text()
    trainer.write_text(source.replace("async def load_checkpoint(", "async def resume("))
    assert "FullyAsyncTrainer.load_checkpoint in verl/experimental/fully_async_policy/fully_async_trainer.py" in (
        missing_seams(copy, "fully_async")
    )


@pytest.mark.slow
def test_another_verl_is_named_with_what_it_lacks(verl_root, tmp_path):
    """A copy of verl whose trainer has moved on: the user's own command says what is wrong, before it starts Ray."""
    copy = tmp_path / "verl"
    shutil.copytree(verl_root, copy, ignore=shutil.ignore_patterns("__pycache__"))
    trainer = copy / "trainer" / "ppo" / "v1" / "trainer_base.py"
    trainer.write_text(trainer.read_text().replace("def _compute_advantage(", "def _advantage_of("))
    (copy / "version" / "version").write_text("0.99.0\n")
    assert missing_seams(copy) == ["PPOTrainer._compute_advantage in verl/trainer/ppo/v1/trainer_base.py"]
    run = main_ppo(tmp_path, PYTHONPATH=str(tmp_path))
    assert run.returncode != 0
    assert "cannot hook verl 0.99.0" in run.stderr
    assert "PPOTrainer._compute_advantage" in run.stderr
    assert f"Known to work: verl {TESTED_VERSIONS[0]}" in run.stderr
    assert "ray init" not in run.stdout
    shutil.rmtree(copy / "trainer" / "ppo" / "v1")
    assert "the file verl/trainer/ppo/v1/trainer_base.py" in missing_seams(copy)


@pytest.mark.slow
def test_a_plugin_that_cannot_load_is_loud_only_for_its_own_runs(tmp_path):
    (tmp_path / "wrapt.py").write_text("raise ImportError('broken on purpose')")
    run = main_ppo(tmp_path, PYTHONPATH=str(tmp_path))
    assert run.returncode != 0
    assert "verl-pgrpo cannot be loaded into verl: ImportError: broken on purpose" in run.stderr
    assert "Traceback" not in run.stdout
    other = python("-c", "import verl; print('fine')", PYTHONPATH=str(tmp_path), VERL_PLATFORM="")
    assert other.stdout.strip() == "fine"
    assert "Runs with adv_estimator=pgrpo will fail" in other.stderr


BROKEN_HOOK = """
import sys
from verl_pgrpo.integration import plugin
sys.modules["verl_pgrpo.metrics"] = None  # the trainers' hook cannot be imported
import verl.trainer.ppo.v1 as v1
from omegaconf import OmegaConf
v1.PPOTrainerSync.__init__ = lambda self, config: print("built", config.algorithm.adv_estimator)
for name in ("grpo", "pgrpo"):
    try:
        v1.get_trainer_cls("sync")(OmegaConf.create({"algorithm": {"adv_estimator": name}}))
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.mark.slow
def test_a_hook_that_fails_in_the_trainers_process_stops_only_its_own_runs():
    lines = python("-c", BROKEN_HOOK).stdout.splitlines()[-2:]
    assert lines[0] == "built grpo"
    assert re.match(r"UnsupportedVerlError verl-pgrpo cannot hook verl [\d.]+: missing hooking failed", lines[1])
    assert "Known to work" in lines[1]


@pytest.mark.slow
@pytest.mark.parametrize("first", ["", "import verl; "])
def test_a_users_module_may_import_the_trainers_first(first):
    """As one does that calls `with_history`: before verl's trainers, or before anything of verl."""
    code = (
        f"{first}from verl_pgrpo.integration.trainers import with_history, PersonalizedTrainer\n"
        "from verl.trainer.ppo.v1 import get_trainer_cls\n"
        "from verl_pgrpo.integration import plugin\n"
        "print(plugin._failure, issubclass(get_trainer_cls('sync'), PersonalizedTrainer))"
    )
    assert python("-c", code).stdout.splitlines()[-1:] == ["None True"]


@pytest.mark.slow
def test_a_verl_without_the_hooked_names_still_imports(tmp_path):
    """No hook may break the import of verl's modules, for the sake of all other estimators."""
    code = (
        "import sys, types, importlib.util\n"
        "from verl_pgrpo.integration import plugin\n"
        "for hook in (plugin._register_estimator, plugin._check_before_launch):\n"
        "    plugin._guarded(hook)(types.ModuleType('emptied'))\n"
        "    print(type(plugin._failure).__name__)\n"
    )
    assert python("-c", code).stdout.split() == ["AttributeError", "AttributeError"]
