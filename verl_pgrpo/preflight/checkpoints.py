# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Check the checkpoint folder: it is writable and large enough, and its checkpoints belong to this run."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from verl_pgrpo.integration.checks import is_personalized
from verl_pgrpo.integration.resume import compare_groups
from verl_pgrpo.integration.state import HISTORY_FILE, PGRPOState, resume_checkpoint

from .context import PreflightContext
from .diagnostic import ERROR, WARNING, Diagnostics

FOLDER = "trainer.default_local_dir"
SAVING = "actor_rollout_ref.actor.checkpoint"
TRACKER = "latest_checkpointed_iteration.txt"
GIB = float(1 << 30)
# Bytes per parameter. FSDP saves its weights and two moments; Megatron bf16 weights, and fp32 ones with the moments.
BYTES = {"fsdp": {"model": 4, "optimizer": 8, "hf_model": 2}, "megatron": {"model": 2, "optimizer": 12, "hf_model": 2}}


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
    _check_async_save(context, diagnostics)
    if trainer.get("max_actor_ckpt_to_keep") == 1:
        message = f"verl deletes a checkpoint before {TRACKER} names the next; a run killed in between cannot resume"
        diagnostics.warning(message, "trainer.max_actor_ckpt_to_keep=1", "set it to 2")
    contents = context.get(f"{SAVING}.save_contents", ())
    if isinstance(contents, str):
        message = f"save_contents={contents} must be a list"
        diagnostics.error(message, f"{SAVING}.save_contents", "[model,optimizer,extra]")
    elif contents and "model" not in contents:
        message = "checkpoints would have no weights to resume from"
        diagnostics.warning(message, f"{SAVING}.save_contents", "[model,optimizer,extra]")
    if check_writable(folder, FOLDER, diagnostics) and not isinstance(contents, str):
        _check_space(context, folder, list(contents), diagnostics)


def _check_async_save(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Report async_save: verl 0.9.1 leaves the tracker to Megatron's finalization, which is never called."""
    if not context.get(f"{SAVING}.async_save"):
        return
    message = f"async_save=True: verl never writes {TRACKER} (verl#7952)"
    if context.get("actor_rollout_ref.actor.strategy") != "megatron":
        message += ", and FSDP saves synchronously anyway"
    severity, fix = WARNING, "set it to False, or resume with trainer.resume_mode=resume_path"
    if context.get("trainer.resume_mode") == "auto":
        message += "; resume_mode=auto would start from scratch"
        severity, fix = ERROR, "set it to False"
    diagnostics.add(severity, message, f"{SAVING}.async_save", fix)


def _existing(folder: Path) -> Path:
    """The folder, or its nearest existing parent."""
    return folder if os.path.exists(folder) else _existing(folder.parent)


def check_writable(folder: Path, key: str, diagnostics: Diagnostics) -> bool:
    parent = _existing(folder)
    if not parent.is_dir():
        diagnostics.error(f"{folder} cannot be created: {parent} is a file", key, "name another folder")
    elif not os.access(parent, os.W_OK | os.X_OK):
        diagnostics.error(f"{folder} cannot be written: no permission in {parent}", key, "name another folder")
    else:
        return True
    return False


def _check_space(context: PreflightContext, folder: Path, contents: list[str], diagnostics: Diagnostics) -> None:
    """Compare the free space with the size of the kept checkpoints, estimated from the model's weight files."""
    trainer, model = context.config.trainer, Path(str(context.get("actor_rollout_ref.model.path")))
    weights = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    if context.hf_config is None or context.get("actor_rollout_ref.model.lora_rank"):
        return
    parameters = weights / (4 if "32" in str(getattr(context.hf_config, "dtype", "")) else 2)
    table = BYTES["megatron" if context.get("actor_rollout_ref.actor.strategy") == "megatron" else "fsdp"]
    size = parameters * sum(table.get(part, 0) for part in contents)
    keep, total = trainer.get("max_actor_ckpt_to_keep"), getattr(context.trainer, "total_training_steps", None)
    counts = ([max(keep, 2)] if keep else []) + ([-(-total // trainer.save_freq)] if total else [])
    free, count = shutil.disk_usage(_existing(folder)).free, min(counts, default=0)
    if count * size > free:
        message = f"{count:,} checkpoints of about {size / GIB:,.1f} GiB do not fit: {free / GIB:,.1f} GiB are free"
        fix = "a smaller trainer.max_actor_ckpt_to_keep, a larger trainer.save_freq, or another disk"
        diagnostics.warning(message, f"{FOLDER}={trainer.default_local_dir}", fix)


def _check_resume(context: PreflightContext, folder: Path, diagnostics: Diagnostics) -> None:
    trainer, location = context.config.trainer, f"{FOLDER}={folder}"
    tracker, by_path = folder / TRACKER, trainer.resume_mode == "resume_path"
    try:
        checkpoint = resume_checkpoint(context.config)
    except ValueError as error:
        diagnostics.error(f"{tracker} holds no step number ({error})", FOLDER, "write the last step's number into it")
        return
    if checkpoint is None:
        steps = sorted(folder.glob("global_step_*"), key=lambda path: (len(path.name), path.name))
        if by_path:
            key = "trainer.resume_from_path"
            diagnostics.error("resume_mode=resume_path without resume_from_path", key, "name a global_step_<N>")
        elif trainer.resume_mode == "auto" and steps:
            exists = tracker.exists()
            why = f"names step {tracker.read_text().strip()}, which does not exist" if exists else "is missing"
            message = f"verl would start from scratch although {len(steps)} checkpoints exist (last: {steps[-1].name})"
            fix = "trainer.resume_mode=resume_path and trainer.resume_from_path=<one of them>, or another folder"
            diagnostics.warning(f"{message}: {TRACKER} {why}", location, fix)
        if not by_path and context.options is not None and (initial := context.options.initial_history) is not None:
            _check_history(context, f"+algorithm.pgrpo.initial_history={initial}", diagnostics)
        return
    if by_path:
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
    if context.options is not None:
        with diagnostics.reporting(location):
            history = PGRPOState.restore(context.config).history
            if mismatch := compare_groups(history.groups, context.groups or {}):
                fix = "resume with the data of that run, or start in another folder"
                if "initial_history" in location:
                    fix = "take the history of these groups, or check algorithm.pgrpo.group_key"
                fix = fix if mismatch.severity in (ERROR, WARNING) else ""
                diagnostics.add(mismatch.severity, mismatch.message, location, fix)
    elif not is_personalized(context.config) and Path(location).exists():
        message = f"the run would resume a pgrpo checkpoint with {context.config.algorithm.adv_estimator}"
        fix = f"another {FOLDER}, or trainer.resume_mode=disable, unless it is meant"
        diagnostics.warning(message, location, fix)


def _check_shards(context: PreflightContext, actor: Path, diagnostics: Diagnostics) -> None:
    """FSDP's checkpoints hold one file per rank: `model_world_size_<N>_rank_<i>.pt`."""
    if context.get("actor_rollout_ref.actor.strategy") == "megatron" or not context.sizes_valid:
        return
    gpus = context.config.trainer.nnodes * context.config.trainer.n_gpus_per_node
    matches = (re.match(r"model_world_size_(\d+)_rank_(\d+)\.pt", path.name) for path in actor.iterdir())
    ranks = [(int(match[1]), int(match[2])) for match in matches if match]
    sizes = {size for size, _ in ranks}
    if sizes and gpus not in sizes:
        message = f"the checkpoint was saved by {min(sizes)} GPUs with FSDP, this run has {gpus}"
        diagnostics.error(message, str(actor), f"use {min(sizes)} GPUs, or start from its merged weights")
    elif missing := sorted(set(range(gpus)) - {rank for size, rank in ranks if size == gpus}):
        more = f" and {len(missing) - 1} more ranks" if len(missing) > 1 else ""
        message = f"the checkpoint lacks the weights of rank {missing[0]}{more}"
        diagnostics.error(message, str(actor), "copy the files of all nodes into one shared folder")
