# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The checkpoint folder of a launch: writable, large enough, and what is in it belongs to this run."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from omegaconf import OmegaConf

from verl_pgrpo.errors import PGRPOError
from verl_pgrpo.integration.checks import HISTORY_FILE, is_personalized, restored_history, resumed_checkpoint

from .finding import Found
from .run import Run

FOLDER = "trainer.default_local_dir"
TRACKER = "latest_checkpointed_iteration.txt"
# Bytes a parameter. FSDP saves its weights and two moments; Megatron bf16 weights, and fp32 ones with the moments.
FSDP_BYTES = {"model": 4, "optimizer": 8, "hf_model": 2}  # half of the first two with model_dtype=bf16
MEGATRON_BYTES = {"model": 2, "optimizer": 12, "hf_model": 2}


def check_checkpoints(run: Run, found: Found) -> None:
    folder = Path(os.path.abspath(run.config.trainer.default_local_dir))
    if str(run.config.trainer.default_local_dir).startswith("~"):
        found.warning(f"verl does not expand ~: checkpoints would go to {folder}", FOLDER, "write $HOME")
    for key in ("trainer.rollout_data_dir", "trainer.validation_data_dir"):
        if dumps := OmegaConf.select(run.config, key):
            check_writable(Path(os.path.abspath(dumps)), key, found)
    resumed = _check_resume(run, folder, found)
    if run.config.trainer.save_freq <= 0:
        found.note("no checkpoint is saved", "trainer.save_freq", "to be able to resume, save every so many steps")
        return
    _check_async(run, found)
    if check_writable(folder, FOLDER, found):
        _check_space(run, folder, resumed, found)


def _check_async(run: Run, found: Found) -> None:
    """verl 0.9.1 leaves the tracker to Megatron's finalisation, which nothing calls; with FSDP it saves at once."""
    if not run.config.actor_rollout_ref.actor.checkpoint.get("async_save", False):
        return
    where = "actor_rollout_ref.actor.checkpoint.async_save"
    said = f"async_save=True: verl 0.9.1 never writes {TRACKER}"
    if run.config.actor_rollout_ref.actor.strategy != "megatron":
        said += ", and FSDP saves synchronously all the same"
    if run.config.trainer.resume_mode == "auto":
        said += "; resume_mode=auto would start from scratch after an interruption, in silence"
        found.error(said, where, "set it to False")
    else:
        found.warning(said, where, "set it to False, or resume with trainer.resume_mode=resume_path")


def check_writable(folder: Path, key: str, found: Found) -> bool:
    parent = _existing(folder)
    if not parent.is_dir():
        found.error(f"{folder} cannot be made: {parent} is a file", key, "name another folder")
    elif not os.access(parent, os.W_OK | os.X_OK):
        found.error(f"{folder} cannot be written: no permission in {parent}", key, "name another folder")
    else:
        return True
    return False


def _check_space(run: Run, folder: Path, resumed: int, found: Found) -> None:
    size, trainer = _checkpoint_bytes(run), run.config.trainer
    keep = 1 if trainer.get("remove_previous_ckpt_in_save") else trainer.max_actor_ckpt_to_keep
    if size is None or not (keep or run.steps):
        return
    # Of one that is kept, the last is removed only when the next is whole.
    counts, why = ([max(keep, 2)], f"max_actor_ckpt_to_keep={keep}") if keep else ([], "all are kept")
    if run.steps is not None:
        counts.append(
            run.steps // trainer.save_freq - resumed // trainer.save_freq + (run.steps % trainer.save_freq > 0)
        )
        why += f", one every {trainer.save_freq} of {run.steps:,} steps"
    free, needed = shutil.disk_usage(_existing(folder)).free, min(counts) * size
    if needed > free:
        fit = int(free // size)
        fix = f"trainer.max_actor_ckpt_to_keep={fit}, a larger trainer.save_freq, or another disk"
        found.error(
            f"{min(counts)} checkpoints of about {_gib(size)} ({why}) are {_gib(needed)}, and {_gib(free)} are free",
            f"{FOLDER}={folder}",
            fix if fit > 1 else f"a disk that holds two at a time: {FOLDER}",
        )


def _checkpoint_bytes(run: Run) -> float | None:
    """Of one checkpoint of the actor, all GPUs together; None where the model's size is not known."""
    if run.model is None or run.launch is None:
        return None
    actor = run.config.actor_rollout_ref.actor
    sizes = dict(MEGATRON_BYTES if run.launch.strategy == "megatron" else FSDP_BYTES)
    if run.launch.strategy != "megatron" and str(actor.fsdp_config.model_dtype) in ("bf16", "bfloat16"):
        sizes |= {"model": 2, "optimizer": 4}
    if (run.config.actor_rollout_ref.model.get("lora_rank") or 0) > 0:
        sizes["optimizer"] = 0  # of the adapters alone
    return float(run.model.parameters * sum(sizes.get(part, 0) for part in actor.checkpoint.save_contents))


def _check_resume(run: Run, folder: Path, found: Found) -> int:
    """What the run would go on from; its step, 0 from scratch."""
    trainer = run.config.trainer
    steps = {
        path: int(match[1]) for path in folder.glob("global_step_*") if (match := re.search(r"_(\d+)$", path.name))
    }
    tracker = folder / TRACKER
    try:
        checkpoint = resumed_checkpoint(run.config)
    except ValueError as error:
        found.error(f"{tracker} does not hold the number of a step ({error})", FOLDER, "write the last step's into it")
        return 0
    if trainer.resume_mode == "auto" and checkpoint is None and steps:
        names = ", ".join(path.name for path in sorted(steps, key=lambda path: steps[path])[-3:])
        why = "is missing" if not tracker.exists() else f"names step {tracker.read_text().strip()}, which is not there"
        found.warning(
            f"verl would start from scratch, over the {len(steps)} checkpoints there ({names}): {TRACKER} {why}",
            f"{FOLDER}={folder}",
            "trainer.resume_mode=resume_path and trainer.resume_from_path=<one of them>, or another folder",
        )
    if checkpoint is None:
        if trainer.resume_mode == "resume_path":
            found.error("resume_mode=resume_path without a path", "trainer.resume_from_path", "name a global_step_<N>")
        return 0
    if trainer.resume_mode == "resume_path" and not re.search(r"global_step_\d+$", str(trainer.resume_from_path)):
        found.error(
            f"verl reads the step off the path's end: {trainer.resume_from_path}",
            "trainer.resume_from_path",
            "end it in global_step_<N>, without a slash",
        )
    if not Path(checkpoint).is_dir():
        found.error(f"there is no checkpoint {checkpoint}", "trainer.resume_from_path", "mend the path")
        return 0
    _check_history(run, checkpoint, found)
    if (Path(checkpoint) / "actor").is_dir():
        _check_shards(run, Path(checkpoint) / "actor", found)
    else:
        said = f"{checkpoint} has no weights (no folder actor): verl removes those that it does not keep"
        found.error(said, f"{FOLDER}={folder}", "resume from a later one, or start from scratch in another folder")
    match = re.search(r"global_step_(\d+)/*$", checkpoint)
    step = int(match[1]) if match else 0
    if run.steps is not None and step >= run.steps:
        said = f"the run would resume after step {step} of {run.steps}: there is nothing left to do"
        found.warning(said, f"{FOLDER}={folder}", "more trainer.total_epochs, or another folder")
    return step


def _check_history(run: Run, checkpoint: str, found: Found) -> None:
    where = str(Path(checkpoint) / HISTORY_FILE)
    if is_personalized(run.config):
        if run.options is None:
            return
        try:
            restored_history(run.config, run.options)
        except PGRPOError as error:
            found.raised(error, where, "name another folder")
    elif Path(where).exists():
        said = f"the run would go on from a checkpoint of pgrpo with {run.config.algorithm.adv_estimator}"
        found.warning(said, where, f"another {FOLDER}, or trainer.resume_mode=disable, unless that is meant")


def _check_shards(run: Run, actor: Path, found: Found) -> None:
    """FSDP's checkpoints are of one number of GPUs: verl looks for `model_world_size_<N>_rank_<i>.pt`."""
    if run.launch is None or run.launch.strategy == "megatron":
        return
    sizes = {int(match[1]) for path in actor.glob("model_world_size_*.pt")
             if (match := re.match(r"model_world_size_(\d+)_", path.name))}  # fmt: skip
    if sizes and run.launch.train_gpus not in sizes:
        said = f"the checkpoint was saved by {min(sizes)} GPUs with FSDP, and this run has {run.launch.train_gpus}"
        found.error(said, str(actor), f"use {min(sizes)} GPUs, or start from its merged weights")
        return
    gpus = run.launch.train_gpus
    missing = [rank for rank in range(gpus) if not (actor / f"model_world_size_{gpus}_rank_{rank}.pt").exists()]
    if missing:
        said = f"the checkpoint lacks the weights of rank {missing[0]}" + f" and {len(missing) - 1} more" * (
            len(missing) > 1
        )
        found.error(said, str(actor), "put the parts of all nodes into one folder, on a disk that all of them share")


def _existing(path: Path) -> Path:
    """The path, or the nearest above it that exists and can be seen."""
    while not os.path.exists(path):
        path = path.parent
    return path


def _gib(size: float) -> str:
    return f"{size / (1 << 30):,.1f} GiB"
