# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""How a launch trains: strategy, precision, optimizer, and what of it is saved."""

from __future__ import annotations

from functools import partial
from typing import Any

from omegaconf import OmegaConf

from .finding import Found
from .known import known, taken
from .problem import ACTOR
from .run import Run

# Of verl's packages, some of which only a machine with their libraries can import.
STRATEGIES = ("fsdp", "fsdp2", "fsdp_turbo", "megatron", "veomni", "torchtitan", "automodel")
CONTENTS = ("model", "optimizer", "extra", "hf_model")  # verl.trainer.config.CheckpointConfig
ENGINE, OPTIM, SAVED = f"{ACTOR}.fsdp_config", f"{ACTOR}.optim", f"{ACTOR}.checkpoint.save_contents"


def check_training(run: Run, found: Found) -> None:
    actor = run.config.actor_rollout_ref.actor
    if not known("training strategy", str(actor.strategy), STRATEGIES, f"{ACTOR}.strategy", found):
        run.sound = False  # nothing is known of its sizes
        return
    rate = actor.optim.lr
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < float("inf"):
        found.error(f"lr={rate} is no number of at least 0", f"{OPTIM}.lr", "1e-6, for example")
    elif str(actor.strategy) in ("fsdp", "fsdp2"):
        _check_optimizer(actor.optim, found)
    if str(actor.strategy) in ("fsdp", "fsdp2"):
        _check_precision(actor.fsdp_config, found)
    _check_saved(run, actor.checkpoint.get("save_contents"), found)


def _check_precision(engine: Any, found: Found) -> None:
    """verl's FSDPEngine."""
    from verl.utils.torch_dtypes import PrecisionType

    chosen = {f"{ENGINE}.dtype": engine.dtype}
    if engine.get("model_dtype") is not None:
        chosen[f"{ENGINE}.model_dtype"] = engine.model_dtype
    for name, value in (engine.get("mixed_precision") or {}).items():
        if str(name).endswith("_dtype"):
            chosen[f"{ENGINE}.mixed_precision.{name}"] = value
    for key, value in chosen.items():
        said, fix = f"{key.rpartition('.')[2]}={value}", "fp32, bf16 or fp16"
        taken(partial(PrecisionType.to_dtype, value), key, said, fix, found)


def _check_optimizer(optim: Any, found: Found) -> None:
    """One of a single weight, made as verl's FSDPEngine makes it."""
    import torch
    from verl.utils.config import omega_conf_to_dataclass
    from verl.workers.config.optimizer import build_optimizer

    said = f"optimizer={optim.optimizer} of {optim.optimizer_impl}"

    def make() -> None:
        try:
            build_optimizer([torch.nn.Parameter(torch.zeros(1))], omega_conf_to_dataclass(optim))
        except ImportError as error:
            if str(optim.optimizer_impl).startswith("torch."):
                raise
            # A library for GPUs may be where the launch will be.
            found.warning(f"{said} was not tried: {error}", OPTIM, "see that it can be imported where you train")

    taken(make, OPTIM, said, "AdamW of torch.optim, for example; its settings as numbers", found)


def _check_saved(run: Run, parts: Any, found: Found) -> None:
    """verl asks for each of its own names whether it is there."""
    if not OmegaConf.is_list(parts):
        if parts is not None:
            found.error(f"save_contents={parts} is no list", SAVED, "[model,optimizer,extra]")
        return
    for part in parts:
        if part not in CONTENTS:
            said = f"verl knows no part {part!r} of a checkpoint, and would not save it"
            found.warning(said, SAVED, f"some of {', '.join(CONTENTS)}")
    if "model" not in parts and run.config.trainer.save_freq > 0:
        found.warning("checkpoints would have no weights to go on from", SAVED, "[model,optimizer,extra]")
