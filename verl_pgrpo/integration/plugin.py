# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point `pgrpo` of the group `verl.plugins`: verl imports this module in every process that imports verl.

This file is the whole contract with verl. Each function with `_on_import` runs when verl imports that module,
so processes that never compute an advantage (rollout servers, reward workers) have no overhead.

verl swallows exceptions that a plugin raises while loading. A failure here is therefore stored, and raised when a run
uses adv_estimator=pgrpo. Other runs are unaffected.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

try:
    import wrapt
except ImportError as error:
    _message = f"verl-pgrpo cannot be loaded: {error}. Install it with its dependencies: pip install verl-pgrpo"
    if any("adv_estimator" in argument and "pgrpo" in argument for argument in sys.argv):
        # SystemExit, because verl would swallow an Exception and fail much later with "unknown estimator".
        raise SystemExit(_message) from error
    print(f"{_message}. Runs with adv_estimator=pgrpo will fail; others are unaffected.", file=sys.stderr)
    raise

_failure: Exception | None = None


def _on_import(*modules: str) -> Callable[[Callable[[Any], None]], Callable[[Any], None]]:
    """Call a function with each of these modules of verl when it is imported; store an exception that it raises."""

    def register(hook: Callable[[Any], None]) -> Callable[[Any], None]:
        @functools.wraps(hook)
        def guarded(module: Any) -> None:
            global _failure
            try:
                hook(module)
            except Exception as error:
                _failure = error
                _fail_in_trainers()

        for module in modules:
            wrapt.when_imported(module)(guarded)
        return hook

    return register


@_on_import("verl.utils.config")
def _check_before_launch(config_module: Any) -> None:
    """Wrap `validate_config`, which verl's launcher calls before it starts Ray."""
    stock = config_module.validate_config

    # A plain function with verl's own name, not a wrapt proxy: verl's older task runners send it to Ray, and proxies
    # cannot be pickled.
    @functools.wraps(stock)
    def validate_config(*args: Any, **kwargs: Any) -> Any:
        result = stock(*args, **kwargs)
        check_run(kwargs["config"] if "config" in kwargs else args[0])
        return result

    config_module.validate_config = validate_config


@_on_import("verl.trainer.ppo.core_algos")
def _register_estimator(core_algos: Any) -> None:
    from verl_pgrpo.integration.checks import ESTIMATOR
    from verl_pgrpo.integration.estimator import compute_pgrpo_outcome_advantage

    core_algos.register_adv_est(ESTIMATOR)(compute_pgrpo_outcome_advantage)


@_on_import("verl.trainer.ppo.v1")
def _replace_v1_trainers(_: Any) -> None:
    from verl_pgrpo.integration import trainers

    # If a user's module imports `trainers` first, that import loads verl's trainers and runs this hook before
    # `personalize_registry` is defined.
    getattr(trainers, "personalize_registry", lambda: None)()


@_on_import(
    "verl.trainer.main_ppo_v0",
    "verl.experimental.one_step_off_policy.ray_trainer",
    "verl.experimental.fully_async_policy.fully_async_trainer",
    "verl.experimental.fully_async_policy.fully_async_rollouter",
)
def _replace_legacy_trainers(module: Any) -> None:
    from verl_pgrpo.integration.legacy import personalize_module

    personalize_module(module)


def check_run(config: Any) -> None:
    """Raise a PGRPOError if a run uses adv_estimator=pgrpo and it cannot work. Other runs pass."""
    from verl_pgrpo.errors import UnsupportedVerlError
    from verl_pgrpo.integration.checks import TESTED_VERSIONS, check_config, check_verl, is_personalized

    if not is_personalized(config):
        return
    check_verl(config)
    if _failure is not None:
        raise UnsupportedVerlError(
            f"verl-pgrpo cannot hook the installed verl: {type(_failure).__name__}: {_failure} (tested: verl "
            f"{', '.join(TESTED_VERSIONS)})"
        ) from _failure
    check_config(config)


def _fail_in_trainers() -> None:
    """Make the V1 trainers raise the stored failure: the launcher, another process, cannot know about it."""
    base = sys.modules.get("verl.trainer.ppo.v1.trainer_base")
    for name, stock in list(getattr(base, "TRAINER_REGISTRY", {}).items()):

        def __init__(self: Any, config: Any, *args: Any, stock: Any = stock, **kwargs: Any) -> None:
            check_run(config)
            stock.__init__(self, config, *args, **kwargs)

        base.TRAINER_REGISTRY[name] = type(stock.__name__, (stock,), {"__init__": __init__})  # type: ignore[union-attr]
