# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The options of P-GRPO, validated once.

The paper (arXiv 2603.10009) gives the formula and the running statistics. It does not state the update order, the cold
start, epsilon, or what to do with a response that cannot be scored. Those defaults are ours.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_pgrpo.errors import ConfigError

__all__ = ["PGRPOConfig"]

# Keys of verl's own `algorithm` config that P-GRPO reads as well.
_VERL_KEYS = {"norm_adv_by_std_in_grpo": True, "use_kl_in_reward": False}
_TEXTS = ("group_key", "default_group", "initial_history")
# Keeps products of an option and a statistic finite.
_LARGEST = 1e15


@dataclass(frozen=True, slots=True, kw_only=True)
class PGRPOConfig:
    """Options of P-GRPO, set on verl's command line as `+algorithm.pgrpo.<option>=<value>`.

    Raises:
        ConfigError: an option has the wrong type, is out of range, or contradicts another option.
    """

    # Dataset column with the preference group; dots reach into nested columns (extra_info.segment).
    group_key: str = "preference_group"
    # Group of rows without one. None makes such a row an error, because a default would hide data bugs.
    default_group: str | None = None
    # None keeps the full history, as in the paper. A number forgets exponentially: a reward's weight halves after this
    # many newer rewards of its group. For policies that change a lot. Rewards of one batch have the same age.
    half_life: float | None = None
    # before_normalize adds the batch to the history first, so even a group's first batch is centered. after_normalize
    # normalizes by the past alone (a group's first batch by itself). Not stated in the paper.
    update_order: str = "before_normalize"
    # history is the paper's baseline. blended also subtracts a shrunken leave-one-out prompt baseline (see
    # `advantage.prompt_blend`), for prompts of unequal difficulty. shrinkage does the same with a weight from the
    # group's history (see `shrinkage`), which is less noisy than one from the batch. Both are ours.
    baseline: str = "history"
    # Multiply advantages by (share of the group in all rewards)^-group_balance, with mean weight 1, so that large
    # groups do not drown out small ones. 0: off, 1: equal weight for all groups, 0.5: equal gradient noise. Ours.
    group_balance: float = 0.0
    # Added to the std, as in verl's grpo, so that switching the estimator changes nothing else.
    epsilon: float = 1e-6
    # Shrink a group's mean and std toward those of all groups, which count as this many rewards. 0 is off. Ours.
    prior_strength: float = 0.0
    # Normalize a group with fewer rewards than this by the statistics of all groups. 0 is off. Ours.
    min_count: int = 0
    # error stops at a NaN or infinite reward, which is nearly always a bug. skip trains without that row.
    on_nonfinite: str = "error"
    # What to do if a checkpoint's history is missing or unusable: error, or reset to start as a new run does.
    on_missing_history: str = "error"
    # A history file to start from instead of an empty history, such as statistics of ratings collected earlier.
    initial_history: str | None = None
    # Number of groups (the largest) that are logged by name. The others are logged together.
    max_logged_groups: int = 32
    # verl's own key algorithm.norm_adv_by_std_in_grpo: False drops the division by the std (Dr. GRPO).
    norm_adv_by_std_in_grpo: bool = True
    # verl's own key algorithm.use_kl_in_reward: if True, the history holds rewards minus verl's KL penalty.
    use_kl_in_reward: bool = False

    def __post_init__(self) -> None:
        _check_choice(self, "update_order", ("before_normalize", "after_normalize"))
        _check_choice(self, "baseline", ("history", "blended", "shrinkage"))
        _check_choice(self, "on_nonfinite", ("error", "skip"))
        _check_choice(self, "on_missing_history", ("error", "reset"))
        _check_number(self, "epsilon", low=0.0)
        _check_number(self, "prior_strength", low=0.0)
        _check_number(self, "group_balance", low=0.0, high=1.0)
        _check_integer(self, "min_count", low=0)
        _check_integer(self, "max_logged_groups", low=0)
        for name in _VERL_KEYS:
            if not isinstance(getattr(self, name), bool):
                raise _invalid(name, getattr(self, name), "true or false")
        for name in _TEXTS:
            if name == "group_key" or getattr(self, name) is not None:
                _check_text(self, name)
        if not all(self.group_key.split(".")):
            raise _invalid("group_key", self.group_key, "a column name, or names joined by dots")
        if self.half_life is not None:
            _check_number(self, "half_life", low=1.0)
        if self.min_count == 1:  # a row that is normalized always has one reward
            raise _invalid("min_count", 1, "0 (off) or >= 2")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any] | DictConfig | None) -> PGRPOConfig:
        """Create a config from options by name.

        Raises:
            ConfigError: an option is unknown (the message suggests the nearest known one) or invalid.
        """
        plain: Any = OmegaConf.to_container(options, resolve=True) if isinstance(options, DictConfig) else options
        if plain is None:
            plain = {}
        if not isinstance(plain, Mapping):
            raise ConfigError(
                f"algorithm.pgrpo must hold options, for example +algorithm.pgrpo.epsilon=1e-6 (got {plain!r})"
            )
        known = [field.name for field in fields(cls)]
        shown = {name: f"algorithm.{name}, verl's own key" if name in _VERL_KEYS else name for name in known}
        for key in plain:
            if key not in known:
                nearest = difflib.get_close_matches(str(key), known, n=1, cutoff=0.4)
                hint = f"; did you mean {shown[nearest[0]]}?" if nearest else "."
                names = ", ".join(name for name in known if name not in _VERL_KEYS)
                raise ConfigError(f"{key} is not an option{hint} Options: {names}")
        return cls(**plain)

    @classmethod
    def from_algorithm(cls, algorithm: Mapping[str, Any] | DictConfig) -> PGRPOConfig:
        """Create a config from verl's `algorithm` config: `algorithm.pgrpo.*` and verl's own keys.

        Raises:
            ConfigError: see `from_mapping`. The message names the option as in verl's config.
        """
        options = algorithm.get("pgrpo", None)
        if isinstance(options, DictConfig):
            options = OmegaConf.to_container(options, resolve=True)
        if options is not None and not isinstance(options, Mapping):
            return cls.from_mapping(options)
        for name in _VERL_KEYS:
            if name in (options or {}):
                raise ConfigError(f"set algorithm.{name} (verl's own key), not algorithm.pgrpo.{name}")
        plain = {**(options or {}), **{key: algorithm.get(key, off) for key, off in _VERL_KEYS.items()}}
        try:
            return cls.from_mapping(plain)
        except ConfigError as error:
            name = str(error).split()[0]  # every message starts with the option's name
            path = f"algorithm.{name}" if name in _VERL_KEYS else f"algorithm.pgrpo.{name}"
            # Hydra parses 1 as a number, and the shell removes one pair of quotes.
            is_number = name in _TEXTS and type(plain.get(name)) in (int, float)
            hint = f""". Quote a number: +{path}='"{plain[name]}"'""" if is_number else ""
            raise ConfigError(f"{path}{str(error).removeprefix(name)}{hint}") from None

    def as_dict(self) -> dict[str, Any]:
        """Return all options as plain values."""
        return dataclasses.asdict(self)

    def history_options(self) -> dict[str, Any]:
        """Return the options that affect the numbers in a history. The others only affect how these are used."""
        return {key: getattr(self, key) for key in ("half_life", "group_key", "use_kl_in_reward")}

    def fingerprint(self) -> str:
        """Return the SHA-256 of `history_options`. Histories can be continued or merged only if theirs are equal."""
        return hashlib.sha256(json.dumps(self.history_options(), sort_keys=True).encode()).hexdigest()


def _invalid(name: str, value: object, expected: str) -> ConfigError:
    return ConfigError(f"{name} must be {expected} (got {value!r})")


def _check_choice(config: PGRPOConfig, name: str, allowed: tuple[str, ...]) -> None:
    if getattr(config, name) not in allowed:
        raise _invalid(name, getattr(config, name), "one of " + ", ".join(allowed))


def _check_text(config: PGRPOConfig, name: str) -> None:
    value = getattr(config, name)
    if not isinstance(value, str) or not value.strip():
        raise _invalid(name, value, "a non-empty string")


def _check_integer(config: PGRPOConfig, name: str, low: int) -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        raise _invalid(name, value, f"an integer >= {low}")
    object.__setattr__(config, name, int(value))


def _check_number(config: PGRPOConfig, name: str, low: float, high: float = _LARGEST) -> None:
    value = getattr(config, name)
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise _invalid(name, value, f"a number from {low:g} to {high:g}")
    object.__setattr__(config, name, float(value))
