# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`make megatron-demo`: P-GRPO through verl's Megatron engine, tensor-parallel over two processes, on a CPU.

    python recipes/personas/megatron_demo.py

Stock `verl.trainer.main_ppo model_engine=megatron algorithm.adv_estimator=pgrpo` with TP=2, sequence parallelism, the
distributed optimizer and Megatron-Bridge; rollouts by real vLLM, which gets the new weights after each step. A tiny
Qwen3 learns to please seven personas, is saved, and a second run goes on from there. Prints the reward of each step.

Megatron's own code runs, over gloo; transformer-engine's kernels are replaced by plain torch. It shows that the
parallel logic works, but not how it runs on GPUs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

from quickstart import exit_on_signals, run_and_watch
from tqdm import tqdm

from verl_cpu.tiny_model import make_tiny_qwen3
from verl_pgrpo.data import personas

ROOT = Path(__file__).resolve().parents[2]
OUT = Path(os.environ.get("RUNS") or ROOT / "runs").resolve() / "megatron_demo"
SAVED, STEPS = 12, 16
"""The first run saves and ends after `SAVED` steps, the second goes on to `STEPS`."""
PROMPTS, RESPONSES = 32, 2


def prepare(folder: Path) -> None:
    """Data and model, from scratch."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for split, rows in (("train", STEPS * PROMPTS), ("val", 70)):
        personas.make_split(split, rows, seed=0).to_parquet(folder / f"{split}.parquet")
    make_tiny_qwen3(folder / "model", personas.toy_vocabulary(), seed=0)


def arguments(folder: Path, steps: int) -> list[str]:
    """What follows `verl.trainer.main_ppo`. All that a CPU needs is in the preset."""
    values = {
        "algorithm.adv_estimator": "pgrpo",
        "data.train_files": folder / "train.parquet",
        "data.val_files": folder / "val.parquet",
        "data.train_batch_size": PROMPTS,
        "data.max_response_length": 12,
        "actor_rollout_ref.model.path": folder / "model",
        "actor_rollout_ref.actor.megatron.tensor_model_parallel_size": 2,
        "actor_rollout_ref.actor.optim.lr": 2e-3,
        "actor_rollout_ref.rollout.n": RESPONSES,
        "reward.custom_reward_function.path": "pkg://verl_pgrpo.rewards.personas",
        "trainer.logger": "[console,file]",
        "trainer.total_training_steps": steps,
        "trainer.save_freq": SAVED,
        "trainer.default_local_dir": folder / "checkpoints",
        "trainer.rollout_data_dir": folder / "rollouts",
        "hydra.run.dir": folder / "hydra",
    }
    # Hydra's grammar allows some characters of paths only in quotes.
    texts = {key: f"'{value}'" if isinstance(value, Path) else value for key, value in values.items()}
    return ["model_engine=megatron", *(f"{key}={text}" for key, text in texts.items())]


def train(folder: Path, name: str, first: int, last: int) -> list[float]:
    """Run steps `first` to `last`; print the mean reward of each as verl logs it, and return them."""
    metrics, starting = folder / f"{name}.jsonl", "Ray, Megatron and vLLM are starting, 1 to 2 minutes"
    launcher = [sys.executable, "-m", "verl_cpu.run", "--preset", "cpu_megatron", "--timeout", "600", "--"]
    command, variables = [*launcher, *arguments(folder, last)], {"VERL_FILE_LOGGER_PATH": str(metrics)}
    if not sys.stderr.isatty():
        print(starting, flush=True)
    rewards: list[float] = []
    with tqdm(total=last, initial=first - 1, unit="step", dynamic_ncols=True, disable=None) as bar:

        def show() -> None:
            # The last line may be half written.
            lines = metrics.read_text().rpartition("\n")[0].splitlines() if metrics.exists() else []
            for line in lines[len(rewards) :]:
                rewards.append(json.loads(line)["data"]["critic/rewards/mean"])
                bar.write(f"step {first - 1 + len(rewards):2d}   reward {rewards[-1]:6.3f}", file=sys.stdout)
                sys.stdout.flush()
            bar.n = first - 1 + len(rewards)
            bar.set_postfix_str("" if rewards else starting)

        run_and_watch(command, variables, folder / f"{name}.log", show)
    if len(rewards) != last - first + 1:
        sys.exit(f"megatron-demo: {len(rewards)} of {last - first + 1} steps were logged; see {folder / f'{name}.log'}")
    return rewards


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    exit_on_signals()
    started = time.monotonic()
    print(
        f"Stock verl, model_engine=megatron, TP=2 on this CPU: {STEPS} steps of {PROMPTS} prompts x {RESPONSES} "
        f"responses, saved and resumed after {SAVED}. Logs: {OUT}",
        flush=True,
    )
    try:
        prepare(OUT)
        rewards = train(OUT, "first", 1, SAVED)
        print(f"saved; resuming from {OUT / 'checkpoints' / f'global_step_{SAVED}'}", flush=True)
        rewards += train(OUT, "resumed", SAVED + 1, STEPS)
    except KeyboardInterrupt:
        sys.exit("\nmegatron-demo: interrupted; nothing is left running.")
    early, late = sum(rewards[:3]) / 3, sum(rewards[-3:]) / 3
    minutes = (time.monotonic() - started) / 60
    print(f"\nMean reward: {early:.3f} in the first three steps, {late:.3f} in the last three ({minutes:.1f} minutes)")
    if late <= early:
        sys.exit("megatron-demo: the reward did not rise")


if __name__ == "__main__":
    main()
