# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The memory tables in recipes/large_models.md, from what each recipe's script launches. A planning aid.

python recipes/memory_table.py                       # print the tables
python recipes/memory_table.py --write               # update them in the page
python recipes/memory_table.py --gpu 40 -- ARGS      # a launch of your own: main_ppo's arguments, GiB of a GPU
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

from launch.recipe import record
from memory import GPU_GIB, Launch, estimate, model_of

from verl_pgrpo.preflight.command_line import compose, parse

HERE = Path(__file__).resolve().parent
PAGE = HERE / "large_models.md"
BEGIN, END = "<!-- memory_table.py writes from here -->\n", "<!-- to here -->\n"

MODES = ("sync", "separate_async")
RECIPES = tuple(
    f"personas/run_{name}"
    for name in (
        "qwen3_1_7b_fsdp",
        "gemma_2b_fsdp",
        "qwen3_8b_megatron",
        "qwen3_32b_megatron",
        "qwen3_30b_a3b_megatron",
        "qwen3_235b_a22b_megatron",
    )
)

TRAINING = (
    "| model | mode | GPUs | cut | copies | G parameters | weights | gradients | optimizer | activations | logits "
    "| update | reference | weight sync | generation |\n" + "|---" * 15 + "|\n"
)
ROLLOUT = (
    "| model | mode | GPUs | one vLLM | weights | KV cache | KiB a token | full sequences held | responses a step "
    "| checkpoint, TB |\n" + "|---" * 10 + "|\n"
)


def tables(launches: Iterable[Launch]) -> str:
    """Return both tables: GiB on the fullest GPU unless the column says otherwise."""
    training, rollout = TRAINING, ROLLOUT
    for launch in launches:
        model = model_of(launch.model_path)
        guess = estimate(model, launch)
        megatron = launch.strategy == "megatron"
        sizes = (("TP", launch.tp), ("PP", launch.pp), ("EP", launch.ep))
        cut = " ".join(f"{name}{size}" for name, size in sizes if size > 1) if megatron else "FSDP"
        copies = f"{launch.dp}" if megatron else "1"
        if launch.ep > 1:
            copies += f" (experts {launch.expert_dp})"
        name = model.path.rpartition("/")[2]
        update = guess.phases["update"].parts
        parts = " | ".join(f"{update[k]:.1f}" for k in ("weights", "gradients", "optimizer"))
        stage_parts = f"{update['activations']:.1f} | {update['logits']:.1f}"
        totals = [guess.phases[k].total for k in ("update", "reference", "weight sync")]
        generation = f"{guess.phases['rollout'].total:.0f}" if launch.hybrid else "-"
        training += (
            f"| {name} | {launch.mode} | {launch.train_gpus} | {cut} | {copies} | {guess.parameters / 1e9:.2f} "
            f"| {parts} | {stage_parts} | " + " | ".join(f"{gib:.0f}" for gib in totals) + f" | {generation} |\n"
        )
        one = f"TP{launch.rollout_tp}" + (f" DP{launch.rollout_dp}" if launch.rollout_dp > 1 else "")
        one += f" EP{launch.rollout_ep}" if launch.rollout_ep > 1 else ""
        # fp32 weights and two moments; Megatron also saves the bf16 weights.
        checkpoint = model.parameters * (14 if megatron else 12) / 1e12
        rollout += (
            f"| {name} | {launch.mode} | {launch.rollout_gpus} | {one} | {guess.rollout_weights:.1f} "
            f"| {guess.kv_cache:.1f} | {guess.kv_bytes_per_token / 1024:.0f} | {guess.full_sequences:.0f} "
            f"| {launch.train_batch * launch.n} | {checkpoint:.2f} |\n"
        )
    return f"Training GPUs:\n\n{training}\nGPUs that generate:\n\n{rollout}"


def with_tables(page: str, text: str) -> str:
    """The page with `text` between its two marks."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}{text}{END}{tail}"


def launch_of(name: str, mode: str) -> Launch:
    """Return the sizes of a recipe, as its script launches it."""
    path = os.environ.get("PATH", os.defpath)
    return Launch(compose(parse(record(name, [], {"PATH": path, "MODE": mode}))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} instead of printing")
    parser.add_argument("--gpu", type=float, default=GPU_GIB, metavar="GIB", help="of one GPU (default: %(default)g)")
    parser.add_argument("arguments", nargs="*", metavar="ARGS", help="those of verl.trainer.main_ppo")
    args = parser.parse_args()
    if args.arguments:
        launch = Launch(compose(parse(args.arguments)))
        print(estimate(model_of(launch.model_path), launch, args.gpu).describe())
        return
    text = tables(launch_of(name, mode) for name in RECIPES for mode in MODES)
    if args.write:
        PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
