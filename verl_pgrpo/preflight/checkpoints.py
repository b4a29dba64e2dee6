# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Check the checkpoint folder: writable, large enough, and what a resume would find belongs to this run."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from verl_pgrpo.errors import PGRPOError
from verl_pgrpo.integration.checks import is_personalized
from verl_pgrpo.integration.resume import compare_groups
from verl_pgrpo.integration.state import HISTORY_FILE, PGRPOState, resume_checkpoint

from .context import PreflightContext
from .diagnostic import Diagnostics

FOLDER = "trainer.default_local_dir"
TRACKER = "latest_checkpointed_iteration.txt"
GIB = float(1 << 30)
# Bytes a parameter. FSDP saves its weights and two moments; Megatron bf16 weights, and fp32 ones with the moments.
FSDP_BYTES = {"model": 4, "optimizer": 8, "hf_model": 2}
MEGATRON_BYTES = {"model": 2, "optimizer": 12, "hf_model": 2}


def check_checkpoints(context: PreflightContext, diagnostics: Diagnostics) -> None:
    trainer = context.config.trainer
    if not isinstance(trainer.default_local_dir, str):
        return  # reported with the configuration
    folder = Path(os.path.abspath(trainer.default_local_dir))
    if trainer.default_local_dir.startswith("~"):
        diagnostics.warning(f"verl does not expand ~: checkpoints would go to {folder}", FOLDER, "write $HOME")
    for key in ("trainer.rollout_data_dir", "trainer.validation_data_dir"):
        if dumps := context.get(key):
            check_writable(Path(os.path.abspath(dumps)), key, diagnostics)
    _check_resume(context, folder, diagnostics)
    if not isinstance(trainer.save_freq, int) or trainer.save_freq <= 0:
        diagnostics.note("no checkpoint is saved, so the run cannot be resumed", "trainer.save_freq")
        return
    _check_saving(context, diagnostics)
    if check_writable(folder, FOLDER, diagnostics):
        _check_space(context, folder, diagnostics)


def _check_saving(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """`async_save` (verl 0.9.1 leaves the tracker to Megatron's finalization, which nothing calls) and contents."""
    actor = context.config.actor_rollout_ref.actor
    key = "actor_rollout_ref.actor.checkpoint"
    if actor.checkpoint.get("async_save", False):
        message = f"async_save=True: verl never writes {TRACKER} (verl#7952)"
        if actor.strategy != "megatron":
            message += ", and FSDP saves synchronously anyway"
        if context.config.trainer.resume_mode == "auto":
            message += "; resume_mode=auto would start from scratch"
            diagnostics.error(message, f"{key}.async_save", "set it to False")
        else:
            fix = "set it to False, or resume with trainer.resume_mode=resume_path"
            diagnostics.warning(message, f"{key}.async_save", fix)
    contents = actor.checkpoint.get("save_contents")
    if isinstance(contents, str):
        diagnostics.error(f"save_contents={contents} must be a list", f"{key}.save_contents", "[model,optimizer,extra]")
    elif contents is not None and "model" not in contents:
        message = "checkpoints would have no weights to resume from"
        diagnostics.warning(message, f"{key}.save_contents", "[model,optimizer,extra]")


def check_writable(folder: Path, key: str, diagnostics: Diagnostics) -> bool:
    parent = folder
    while not os.path.exists(parent):
        parent = parent.parent
    if not parent.is_dir():
        diagnostics.error(f"{folder} cannot be created: {parent} is a file", key, "name another folder")
    elif not os.access(parent, os.W_OK | os.X_OK):
        diagnostics.error(f"{folder} cannot be written: no permission in {parent}", key, "name another folder")
    else:
        return True
    return False


def _check_space(context: PreflightContext, folder: Path, diagnostics: Diagnostics) -> None:
    """Compare the free space with the checkpoints that are kept, by the size of the model's weight files."""
    trainer, actor = context.config.trainer, context.config.actor_rollout_ref.actor
    model = Path(str(context.get("actor_rollout_ref.model.path")))
    weights = sum(file.stat().st_size for file in model.glob("*.safetensors")) if model.is_dir() else 0
    contents = actor.checkpoint.get("save_contents")
    if (
        not weights
        or isinstance(contents, str)
        or context.hf_config is None
        or context.get("actor_rollout_ref.model.lora_rank")
    ):
        return
    bytes_each = 4 if "32" in str(getattr(context.hf_config, "dtype", "")) else 2
    table = MEGATRON_BYTES if actor.strategy == "megatron" else FSDP_BYTES
    size = weights / bytes_each * sum(table.get(part, 0) for part in contents or ())
    keep = trainer.get("max_actor_ckpt_to_keep")
    total = context.trainer.total_training_steps if hasattr(context.trainer, "total_training_steps") else None
    counts = ([max(keep, 2)] if keep else []) + ([-(-total // trainer.save_freq)] if total else [])
    while not os.path.exists(folder):
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if counts and min(counts) * size > free:
        count = min(counts)
        message = f"{count:,} checkpoints of about {size / GIB:,.1f} GiB do not fit: {free / GIB:,.1f} GiB are free"
        fix = "a smaller trainer.max_actor_ckpt_to_keep, a larger trainer.save_freq, or another disk"
        diagnostics.warning(message, f"{FOLDER}={trainer.default_local_dir}", fix)


def _check_resume(context: PreflightContext, folder: Path, diagnostics: Diagnostics) -> None:
    trainer, location = context.config.trainer, f"{FOLDER}={folder}"
    tracker = folder / TRACKER
    try:
        checkpoint = resume_checkpoint(context.config)
    except ValueError as error:
        diagnostics.error(f"{tracker} holds no step number ({error})", FOLDER, "write the last step's number into it")
        return
    steps = sorted(folder.glob("global_step_*"), key=lambda path: (len(path.name), path.name))
    if trainer.resume_mode == "auto" and checkpoint is None and steps:
        why = (
            "is missing" if not tracker.exists() else f"names step {tracker.read_text().strip()}, which does not exist"
        )
        message = f"verl would start from scratch although {len(steps)} checkpoints exist (last: {steps[-1].name}): "
        fix = "trainer.resume_mode=resume_path and trainer.resume_from_path=<one of them>, or another folder"
        diagnostics.warning(f"{message}{TRACKER} {why}", location, fix)
    if checkpoint is None:
        if trainer.resume_mode == "resume_path":
            key = "trainer.resume_from_path"
            diagnostics.error("resume_mode=resume_path without resume_from_path", key, "name a global_step_<N>")
        elif context.options is not None and context.options.initial_history is not None:
            _check_history(context, f"+algorithm.pgrpo.initial_history={context.options.initial_history}", diagnostics)
        return
    if trainer.resume_mode == "resume_path":
        location = f"trainer.resume_from_path={trainer.resume_from_path}"
        if not re.search(r"global_step_\d+$", str(trainer.resume_from_path)):
            message = "verl reads the step from the end of resume_from_path"
            diagnostics.error(message, location, "end it in global_step_<N>, without a slash")
    if not Path(checkpoint).is_dir():
        diagnostics.error(f"no such checkpoint: {checkpoint}", location, "fix the path")
        return
    _check_history(context, str(Path(checkpoint) / HISTORY_FILE), diagnostics)
    if (Path(checkpoint) / "actor").is_dir():
        _check_shards(context, Path(checkpoint) / "actor", diagnostics)
    else:
        message = f"{checkpoint} has no weights (no folder actor)"
        diagnostics.error(message, location, "resume from a later one, or start in another folder")
    match = re.search(r"global_step_(\d+)/*$", checkpoint)
    total = getattr(context.trainer, "total_training_steps", None)
    if match and total is not None and int(match[1]) >= total:
        message = f"the run would resume after step {int(match[1])} of {total}: nothing is left to do"
        diagnostics.warning(message, location, "more trainer.total_epochs, or another folder")


def _check_history(context: PreflightContext, location: str, diagnostics: Diagnostics) -> None:
    if not is_personalized(context.config):
        if Path(location).exists():
            message = f"the run would resume a pgrpo checkpoint with {context.config.algorithm.adv_estimator}"
            fix = f"another {FOLDER}, or trainer.resume_mode=disable, unless it is meant"
            diagnostics.warning(message, location, fix)
        return
    if context.options is None:
        return
    try:
        history = PGRPOState.restore(context.config).history
    except PGRPOError as error:
        diagnostics.raised(error, location, "")
        return
    mismatch = compare_groups(history.groups, context.groups or {})
    if mismatch is not None:
        fix = "resume with the data of that run, or start in another folder"
        diagnostics.add(mismatch.severity, mismatch.message, location, fix)


def _check_shards(context: PreflightContext, actor: Path, diagnostics: Diagnostics) -> None:
    """FSDP's checkpoints hold one file per rank: `model_world_size_<N>_rank_<i>.pt`."""
    if context.config.actor_rollout_ref.actor.strategy == "megatron" or not context.sizes_valid:
        return
    gpus = context.config.trainer.nnodes * context.config.trainer.n_gpus_per_node
    names = (
        re.match(r"model_world_size_(\d+)_rank_(\d+)\.pt", path.name) for path in actor.glob("model_world_size_*.pt")
    )
    ranks = [(int(match[1]), int(match[2])) for match in names if match]
    sizes = {size for size, _ in ranks}
    if sizes and gpus not in sizes:
        message = f"the checkpoint was saved by {min(sizes)} GPUs with FSDP, this run has {gpus}"
        diagnostics.error(message, str(actor), f"use {min(sizes)} GPUs, or start from its merged weights")
    elif missing := sorted(set(range(gpus)) - {rank for size, rank in ranks if size == gpus}):
        more = f" and {len(missing) - 1} more ranks" if len(missing) > 1 else ""
        message = f"the checkpoint lacks the weights of rank {missing[0]}{more}"
        diagnostics.error(message, str(actor), "copy the files of all nodes into one shared folder")
