# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Entry point `pgrpo` of the group `verl.plugins`: verl imports this module in every process that imports verl.

It imports nothing of verl itself. Each hook waits for the verl module that it concerns, so that processes which never
compute an advantage (rollout servers, reward workers) pay for nothing.

verl swallows whatever a plugin raises while it loads. A failure here is therefore kept and raised when a run asks for
`adv_estimator=pgrpo`; every other run is left alone.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

_failure: Exception | None = None


def _guarded(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """Keep what a hook raises, which would otherwise break the import of verl's module for runs of any estimator."""

    def guarded(module: Any) -> None:
        global _failure
        try:
            hook(module)
        except Exception as error:
            _failure = error
            _refuse_in_trainers()

    return guarded


def _register_estimator(core_algos: Any) -> None:
    from verl_pgrpo.integration import estimator
    from verl_pgrpo.integration.compat import has_batch_fields

    declared = {"batch_fields": estimator.batch_fields} if has_batch_fields(core_algos) else {}
    core_algos.register_adv_est(estimator.NAME, **declared)(estimator.compute_pgrpo_outcome_advantage)


def _personalize_trainers(_: Any) -> None:
    from verl_pgrpo.integration import trainers

    # Not there yet if a user's module imports `trainers` first, which imports verl's trainers and so comes here.
    getattr(trainers, "personalize_registry", lambda: None)()


def _refuse_in_trainers() -> None:
    """Where the trainers are made, let them stop a run that asks for `pgrpo`: the launcher cannot know what failed."""
    base = sys.modules.get("verl.trainer.ppo.v1.trainer_base")
    for name, stock in getattr(base, "TRAINER_REGISTRY", {}).items():

        def __init__(self: Any, config: Any, *args: Any, stock: Any = stock, **kwargs: Any) -> None:
            check_run(config, "v1")
            stock.__init__(self, config, *args, **kwargs)

        base.TRAINER_REGISTRY[name] = type(stock.__name__, (stock,), {"__init__": __init__})  # type: ignore[union-attr]


def _personalize_older_trainers(module: Any) -> None:
    from verl_pgrpo.integration.legacy import personalize_module

    personalize_module(module)


def _check_before_launch(config_module: Any) -> None:
    """Wrap verl's `validate_config`, which the launcher calls before it starts anything."""
    import functools

    stock = config_module.validate_config

    # A plain function under verl's own name and no wrapt proxy: verl's older task runners take it along to Ray, and
    # proxies cannot be pickled.
    @functools.wraps(stock)
    def validate_config(*args: Any, **kwargs: Any) -> Any:
        result = stock(*args, **kwargs)
        check_run(kwargs["config"] if "config" in kwargs else args[0])
        return result

    config_module.validate_config = validate_config


def check_run(config: Any, trainer: str | None = None) -> None:
    """Stop a run that asks for `pgrpo` and cannot have it, with the reason; any other run passes.

    Args:
        trainer: which of verl's trainers it is (a key of `compat.TRAINERS`); None: the one that main_ppo takes.

    Raises:
        PGRPOError: see `verl_pgrpo.errors`.
    """
    from verl_pgrpo.integration.checks import check_config, is_personalized, trainer_of_main_ppo
    from verl_pgrpo.integration.compat import check_verl

    if is_personalized(config):
        check_verl(_failure, trainer or trainer_of_main_ppo(config))
        check_config(config)


def _install() -> None:
    import wrapt

    wrapt.when_imported("verl.trainer.ppo.core_algos")(_guarded(_register_estimator))
    wrapt.when_imported("verl.trainer.ppo.v1")(_guarded(_personalize_trainers))
    # Each module that makes one of the older trainers, or defines one that is made elsewhere.
    for module in (
        "verl.trainer.main_ppo_v0",
        "verl.experimental.one_step_off_policy.ray_trainer",
        "verl.experimental.fully_async_policy.fully_async_trainer",
        "verl.experimental.fully_async_policy.fully_async_rollouter",
    ):
        wrapt.when_imported(module)(_guarded(_personalize_older_trainers))
    wrapt.when_imported("verl.utils.config")(_guarded(_check_before_launch))


try:
    _install()
except Exception as error:
    _failure = error
    message = f"verl-pgrpo cannot be loaded into verl: {type(error).__name__}: {error}"
    if any(re.search(r"adv_estimator\W{1,4}pgrpo", argument) for argument in sys.argv):
        # SystemExit, because verl would swallow an Exception and fail hours later with 'unknown estimator'.
        raise SystemExit(message) from error
    print(f"{message}. Runs with adv_estimator=pgrpo will fail; others are unaffected.", file=sys.stderr)
    raise
