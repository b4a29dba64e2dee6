# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Which verl this works with, found out before a run starts rather than in its middle."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from verl_pgrpo.errors import UnsupportedVerlError

__all__ = ["TESTED_VERSIONS", "TRAINERS", "check_verl", "has_batch_fields", "missing_seams"]

TESTED_VERSIONS = ("0.9.0", "0.9.1")

_Seams = dict[str, dict[str, tuple[str, ...]]]

# What the plugin hooks, per file of verl: names, and the arguments of functions where they matter.
_EVERY_RUN: _Seams = {
    "trainer/ppo/core_algos.py": {"register_adv_est": ("name_or_enum",)},
    "utils/config.py": {"validate_config": ("config",)},
    "utils/checkpoint/checkpoint_manager.py": {"find_latest_ckpt_path": ("path",)},
}
_RAY_TRAINER: dict[str, tuple[str, ...]] = {
    "RayPPOTrainer.__init__": ("self", "config"),
    "RayPPOTrainer._get_gen_batch": ("self", "batch"),
    "RayPPOTrainer._save_checkpoint": ("self",),
    "RayPPOTrainer._load_checkpoint": ("self",),
}
# What the plugin hooks for each of verl's trainers besides; the older ones, which verl means to drop, apart, so that
# a verl without them still serves the others.
TRAINERS: dict[str, _Seams] = {
    "v1": {
        "trainer/ppo/v1/trainer_base.py": {
            "TRAINER_REGISTRY": (),
            "PPOTrainer.__init__": ("self", "config"),
            "PPOTrainer._init_dataloader": ("self",),
            "PPOTrainer._compute_advantage": ("self", "batch", "metrics"),
            "PPOTrainer.step": ("self", "metrics", "timing_raw"),
            "PPOTrainer._save_checkpoint": ("self",),
            "PPOTrainer._load_checkpoint": ("self",),
        },
        "trainer/ppo/v1/utils.py": {"compute_advantage_for_multi_trajectories": ("data", "batch_keys")},
    },
    "v0": {
        "trainer/main_ppo_v0.py": {"RayPPOTrainer": ()},
        "trainer/ppo/ray_trainer.py": {
            **_RAY_TRAINER,
            "compute_advantage": ("data", "adv_estimator"),
            "RayPPOTrainer._update_actor": ("self", "batch"),
            "RayPPOTrainer.fit": ("self",),
        },
    },
    "one_step_off": {
        "trainer/ppo/ray_trainer.py": _RAY_TRAINER,
        "experimental/separation/ray_trainer.py": {
            "SeparateRayPPOTrainer._fit_compute_advantage": ("self", "batch"),
            "SeparateRayPPOTrainer._fit_collect_metrics": ("self", "batch"),
        },
        "experimental/one_step_off_policy/ray_trainer.py": {"OneStepOffRayTrainer.__init__": ("self", "config")},
    },
    "fully_async": {
        "experimental/separation/ray_trainer.py": {
            "SeparateRayPPOTrainer._fit_compute_advantage": ("self", "batch"),
        },
        "experimental/fully_async_policy/fully_async_trainer.py": {
            "FullyAsyncTrainer.__init__": ("self", "config"),
            "FullyAsyncTrainer._fit_log_aggregated_training_metrics": ("self", "rollout_reset_timing_raw"),
            "FullyAsyncTrainer._save_checkpoint": ("self",),
            "FullyAsyncTrainer.load_checkpoint": ("self",),
        },
        "experimental/fully_async_policy/fully_async_rollouter.py": {
            "FullyAsyncAgentLoopManager.generate_sequences_single": ("self", "prompts"),
        },
    },
}


def missing_seams(root: Path, trainer: str = "v1") -> list[str]:
    """What of the above the verl at `root` lacks. Reads its source: importing the trainers takes many seconds."""
    missing = []
    for file, seams in {**_EVERY_RUN, **TRAINERS[trainer]}.items():
        path = root / file
        try:
            found = _definitions(ast.parse(path.read_text(encoding="utf-8")))
        except (OSError, SyntaxError, ValueError):
            missing.append(f"the file verl/{file}")
            continue
        for name, arguments in seams.items():
            if name not in found:
                missing.append(f"{name} in verl/{file}")
            elif found[name][: len(arguments)] != arguments:
                missing.append(f"{name}({', '.join(arguments)}) in verl/{file}")
    return missing


def has_batch_fields(core_algos: Any) -> bool:
    """Can an estimator of this verl declare the batch fields it needs? Not in a released verl: see patches/."""
    return hasattr(core_algos, "get_adv_estimator_batch_fields")


def check_verl(failure: Exception | None = None, trainer: str = "v1") -> None:
    """Stop if the plugin cannot hook this trainer of the installed verl.

    Raises:
        UnsupportedVerlError: with verl's version, what is missing, and the versions known to work.
    """
    import verl

    missing = missing_seams(Path(verl.__file__).parent, trainer)
    if failure is not None:
        missing.append(f"hooking failed: {type(failure).__name__}: {failure}")
    if missing:
        raise UnsupportedVerlError(
            f"verl-pgrpo cannot hook verl {verl.__version__}: missing {'; '.join(missing)}. "
            f"Known to work: verl {', '.join(TESTED_VERSIONS)}. Install one of these (other estimators are unaffected)."
        )


def _definitions(module: ast.Module) -> dict[str, tuple[str, ...]]:
    """Functions (with their arguments), methods and variables that a module defines, and names that it imports."""
    found: dict[str, tuple[str, ...]] = {}
    for node in module.body:
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef)):
                    found[f"{node.name}.{inner.name}"] = tuple(arg.arg for arg in inner.args.args)
        elif isinstance(node, ast.FunctionDef):
            found[node.name] = tuple(arg.arg for arg in node.args.args)
        elif isinstance(node, ast.ImportFrom):
            found.update({alias.asname or alias.name: () for alias in node.names})
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if isinstance(target, ast.Name):
                    found[target.id] = ()
    return found
