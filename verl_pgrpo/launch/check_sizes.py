# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Batches, steps, parallel sizes and memory of a launch: what does not divide, add up or fit."""

from __future__ import annotations

from omegaconf import OmegaConf

from verl_pgrpo.errors import ConfigError

from .divisibility import problems
from .finding import Found
from .memory import GPU_GIB, estimate
from .problem import Problem
from .run import Run
from .settings import Launch


def check_steps(run: Run, found: Found) -> None:
    """How many steps the data are for, as verl's dataloader counts them: a batch that is not full is dropped."""
    data, trainer, split = run.config.data, run.config.trainer, run.splits.get("training")
    if split is None:
        run.steps = trainer.total_training_steps
        return
    limit = data.get("train_max_samples", -1)
    rows = min(split.files.rows, limit) if limit and limit > 0 else split.files.rows
    if rows < data.train_batch_size:
        said = f"{rows:,} training rows do not fill one batch of {data.train_batch_size:,}: there would be no step"
        found.error(
            said, f"data.train_batch_size, {split.where}", f"data.train_batch_size={rows} at most, or more rows"
        )
        return
    in_epochs = rows // data.train_batch_size * trainer.total_epochs
    run.steps = min(in_epochs, trainer.total_training_steps or in_epochs)
    n = run.config.actor_rollout_ref.rollout.n
    run.facts.append(
        f"{rows:,} training rows, {run.steps:,} steps of {data.train_batch_size:,} prompts x {n} responses"
    )
    if run.steps < 1:
        found.error("there would be no step", "trainer.total_epochs, trainer.total_training_steps", "at least 1")
    elif trainer.total_training_steps and trainer.total_training_steps > in_epochs:
        found.warning(
            f"{trainer.total_epochs} epochs of {rows:,} rows are {in_epochs:,} steps, and verl stops there: "
            f"{trainer.total_training_steps:,} were asked for",
            "trainer.total_epochs, trainer.total_training_steps",
            f"trainer.total_epochs={-(-trainer.total_training_steps * data.train_batch_size // rows)}",
        )


def check_parallel(run: Run, found: Found) -> None:
    try:
        run.launch = Launch.of(run.config)
    except ConfigError as error:  # verl has more strategies than are known here
        found.note(f"{error}: batches, parallel sizes and memory were not checked", "actor_rollout_ref.actor.strategy")
        return
    for problem in problems(run.model, run.launch):
        _report(problem, run, found)
    if run.model is None:
        found.note("the model's sizes are unknown: only what does not depend on them was checked", "the model")


def check_memory(run: Run, found: Found) -> None:
    gpu = run.settings.gpu
    if run.on_cpu:
        found.note("trainer.device=cpu: GPU memory was not estimated", "trainer.device")
        return
    if run.model is None or run.launch is None:
        return
    try:
        run.memory = estimate(run.model, run.launch, gpu or GPU_GIB)
    except ConfigError as error:
        found.warning(f"memory could not be estimated: {error}", "the layout", "check it by hand")
        return
    if gpu is None:
        found.note("memory was estimated for a GPU of 80 GB", "--gpu", "name yours: --gpu H200, or --gpu 40")
    for problem in run.memory.problems():
        if gpu is None:
            problem = Problem(problem, problem.where, problem.fix, fatal=False)
        _report(problem, run, found)
    config, judge = run.config, run.config.reward.reward_model
    extras = [name for name, there in (
        ("a critic", config.critic.enable or config.algorithm.adv_estimator == "gae"),
        ("LoRA", (OmegaConf.select(config, "actor_rollout_ref.model.lora_rank") or 0) > 0),
        ("a reward model on the same GPUs", judge.enable and not judge.enable_resource_pool),
    ) if there]  # fmt: skip
    if extras:
        found.note(f"the memory estimate leaves out {', '.join(extras)}", "--gpu", "allow for it")


def _report(problem: Problem, run: Run, found: Found) -> None:
    if problem.fatal:
        found.error(str(problem), problem.where, problem.fix)
    elif not (problem.of_gpus and run.on_cpu):
        found.warning(str(problem), problem.where, problem.fix)
