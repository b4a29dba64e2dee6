# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Every option of P-GRPO, validated once, each with the reason of its default.

The paper (arXiv 2603.10009) gives the formula and the running statistics; it does not give the update order, the
cold start, epsilon, or what to do with a row that cannot be scored. Those defaults are ours and say so.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from verl_pgrpo.errors import ConfigError

__all__ = ["ColdStart", "ConfigError", "PGRPOConfig"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ColdStart:
    """What normalises a preference group that has little history. Off by default: the plain method. (Ours.)"""

    # Shrink a group's mean and std toward those of all groups together, which weigh as much as this many rewards.
    prior_strength: float = 0.0
    # Normalise a group with fewer rewards than this by the statistics of all groups together.
    min_count: int = 0

    def __post_init__(self) -> None:
        _number(self, "prior_strength", low=0.0, prefix="cold_start.")
        _integer(self, "min_count", low=0, prefix="cold_start.")
        if self.min_count == 1:  # whoever is normalised has a reward: a flag without effect
            raise ConfigError("cold_start.min_count=1: must be 0 (off) or at least 2")


@dataclass(frozen=True, slots=True, kw_only=True)
class PGRPOConfig:
    """Options of P-GRPO; on verl's command line `+algorithm.pgrpo.<option>=...`.

    Raises:
        ConfigError: an option of the wrong type, out of range, or contradicting another one.
    """

    # 'cumulative' is the paper's full history; 'exponential' forgets, for a policy that moves away from its past.
    statistics: str = "cumulative"
    # In rewards of the group: a reward that lies this many rewards back weighs half. Only with 'exponential'; it has
    # no default because the right one depends on how many rewards a group gets a step. Rewards of one batch are of the
    # same age, whatever their order.
    half_life: float | None = None
    # 'before_normalize' folds the batch in and then normalises by the result, so the first batch is already centred;
    # 'after_normalize' normalises by the past alone (a group's first batch by itself). The paper does not say. (Ours.)
    update: str = "before_normalize"
    # 'history' is the paper's; 'blended' also subtracts, from each advantage, what the prompt's other responses say of
    # the prompt, in the proportion that the batch's own variances give (`prompt_blend`). For prompts that are not
    # equally hard. Not the default because it is not the paper's, and loses a little where prompts are alike. (Ours.)
    baseline: str = "history"
    # Added to the std, as in verl's grpo, so that swapping the estimator changes nothing else.
    epsilon: float = 1e-6
    # verl's own key `algorithm.norm_adv_by_std_in_grpo`: False drops the division by the std (Dr. GRPO).
    norm_adv_by_std_in_grpo: bool = True
    cold_start: ColdStart = field(default_factory=ColdStart)
    # A NaN or infinite reward: 'error' stops the run, since it is nearly always a bug; 'skip' trains on without it.
    nonfinite: str = "error"
    # The preference group of rows that have none. None makes such a row an error: silence would hide a data bug.
    missing_group: str | None = None
    # The dataset column with the preference group; a dot reaches into a nested column (extra_info.segment).
    group_key: str = "preference_group"
    # How many preference groups (the largest) get metrics by name; the others are logged together.
    max_logged_groups: int = 32
    # Resume from a checkpoint whose history is missing or unusable, with an empty one. Never by itself.
    resume_without_history: bool = False

    def __post_init__(self) -> None:
        _choice(self, "statistics", ("cumulative", "exponential"))
        _choice(self, "update", ("before_normalize", "after_normalize"))
        _choice(self, "baseline", ("history", "blended"))
        _choice(self, "nonfinite", ("error", "skip"))
        _number(self, "epsilon", low=0.0)
        _integer(self, "max_logged_groups", low=0)
        _boolean(self, "norm_adv_by_std_in_grpo")
        _boolean(self, "resume_without_history")
        _text(self, "group_key")
        if not all(self.group_key.split(".")):
            _fail("group_key", self.group_key, "a column's name or a path of names with dots between them")
        if self.missing_group is not None:
            _text(self, "missing_group")
        if self.half_life is not None:
            _number(self, "half_life", low=0.0, above=True)
        if self.statistics == "exponential" and self.half_life is None:
            raise ConfigError("statistics=exponential needs half_life, in rewards of the preference group (e.g. 512)")
        if self.statistics == "cumulative" and self.half_life is not None:
            raise ConfigError(f"half_life={self.half_life} has no effect with statistics=cumulative; drop one of them")
        if isinstance(self.cold_start, Mapping):
            object.__setattr__(self, "cold_start", _build(ColdStart, self.cold_start, "cold_start."))
        if not isinstance(self.cold_start, ColdStart):
            raise ConfigError(
                f"cold_start takes the keys prior_strength and min_count, not {self.cold_start!r}; "
                "for example cold_start.min_count=16"
            )

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any] | DictConfig | None) -> PGRPOConfig:
        """Options by name; an unknown name is an error that gives the nearest known one."""
        if isinstance(options, DictConfig):
            options = OmegaConf.to_container(options, resolve=True)  # type: ignore[assignment]
        return _build(cls, options if options is not None else {}, "")

    @classmethod
    def from_algorithm(cls, algorithm: Mapping[str, Any] | DictConfig) -> PGRPOConfig:
        """Options from verl's `algorithm` config: `algorithm.pgrpo.*` and `algorithm.norm_adv_by_std_in_grpo`."""
        options = algorithm.get("pgrpo", None)
        if isinstance(options, DictConfig):
            options = OmegaConf.to_container(options, resolve=True)
        if options is not None and not isinstance(options, Mapping):
            raise ConfigError(f"algorithm.pgrpo takes options by name (+algorithm.pgrpo.epsilon=1e-6), not {options!r}")
        options = dict(options or {})
        if "norm_adv_by_std_in_grpo" in options:
            raise ConfigError("set algorithm.norm_adv_by_std_in_grpo (verl's own key), not algorithm.pgrpo's")
        options["norm_adv_by_std_in_grpo"] = algorithm.get("norm_adv_by_std_in_grpo", True)
        return cls.from_mapping(options)

    def as_dict(self) -> dict[str, Any]:
        """All options as plain values, nested like the command line's keys."""
        return dataclasses.asdict(self)

    def history_options(self) -> dict[str, Any]:
        """The options that decide what a history's numbers mean. The others only decide how they are used."""
        keys = ("statistics", "half_life", "group_key")
        return {key: getattr(self, key) for key in keys}

    def fingerprint(self) -> str:
        """SHA-256 of `history_options`: two histories may be continued or merged only if theirs agree."""
        return hashlib.sha256(json.dumps(self.history_options(), sort_keys=True).encode()).hexdigest()


# Far beyond any use; keeps products of an option and a statistic finite.
_LARGEST = 1e15


def _build(cls: type, options: Any, prefix: str) -> Any:
    if not isinstance(options, Mapping):
        raise ConfigError(f"{prefix.rstrip('.') or 'pgrpo'} takes options by name, not {options!r}")
    known = [f.name for f in fields(cls)]
    for key in options:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.0)[0]
            raise ConfigError(f"unknown option {prefix}{key}; did you mean {prefix}{near}? Known: {', '.join(known)}")
    return cls(**options)


def _fail(name: str, value: object, wanted: str) -> None:
    raise ConfigError(f"{name}={value!r}: must be {wanted}")


def _choice(config: Any, name: str, allowed: tuple[str, ...]) -> None:
    value = getattr(config, name)
    if value not in allowed:
        _fail(name, value, "one of " + ", ".join(allowed))


def _boolean(config: Any, name: str) -> None:
    value = getattr(config, name)
    if not isinstance(value, bool):
        _fail(name, value, "true or false")


def _text(config: Any, name: str) -> None:
    value = getattr(config, name)
    if not isinstance(value, str) or not value.strip():
        _fail(name, value, "a non-empty string")


def _integer(config: Any, name: str, low: int, prefix: str = "") -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < low:
        _fail(prefix + name, value, f"a whole number of at least {low}")
    object.__setattr__(config, name, int(value))


def _number(config: Any, name: str, low: float, above: bool = False, prefix: str = "") -> None:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not -_LARGEST <= value <= _LARGEST:  # type: ignore[operator]
        _fail(prefix + name, value, f"a finite number, at most {_LARGEST:g}")
    if value < low or (above and value == low):
        _fail(prefix + name, value, f"{'above' if above else 'at least'} {low:g}")
    object.__setattr__(config, name, float(value))
