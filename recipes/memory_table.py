# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The memory tables in recipes/large_models.md, from what each recipe's script launches. A planning aid.

python recipes/memory_table.py                       # print the tables (--gpu 40: for GPUs with 40 GiB)
python recipes/memory_table.py --write               # update them in the page
python recipes/memory_table.py --gpu 40 -- ARGS      # a launch of your own: main_ppo's arguments, GiB of a GPU
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hydra.errors import HydraException
from launch.recipe import record
from memory import GPU_GIB, Launch, estimate
from model_sizes import model_of
from omegaconf.errors import OmegaConfBaseException

from verl_pgrpo.errors import PGRPOError
from verl_pgrpo.preflight.command_line import compose, parse

HERE = Path(__file__).resolve().parent
PAGE = HERE / "large_models.md"
BEGIN, END = "<!-- memory_table.py writes from here -->\n", "<!-- to here -->\n"

MODES = ("sync", "separate_async")
STATE = ("weights", "gradients", "optimizer")
RECIPES = (
    "qwen3_1_7b_fsdp", "gemma_2b_fsdp", "qwen3_8b_megatron", "qwen3_32b_megatron", "qwen3_30b_a3b_megatron",
    "qwen3_235b_a22b_megatron",
)  # fmt: skip


def tables(launches: Iterable[Launch], gpu: float = GPU_GIB) -> str:
    """Return both tables: GiB on the fullest GPU unless the column says otherwise. `gpu`: GiB of one GPU."""
    training, rollout = [], []
    for launch in launches:
        model = model_of(launch.model_path)
        guess = estimate(model, launch, gpu)
        megatron = launch.strategy == "megatron"
        name = {"model": model.path.rpartition("/")[2], "mode": launch.mode}
        update = guess.phases["update"].parts
        experts = f" (experts {launch.expert_dp})" if launch.ep > 1 else ""
        training.append(
            {
                **name,
                "GPUs": launch.train_gpus,
                "cut": _sizes(TP=launch.tp, PP=launch.pp, EP=launch.ep) if megatron else "FSDP",
                "copies": f"{launch.dp if megatron else 1}{experts}",
                "G parameters": f"{guess.parameters / 1e9:.2f}",
                **{part: f"{update[part]:.1f}" for part in (*STATE, "activations", "logits")},
                **{phase: f"{guess.phases[phase].total:.0f}" for phase in ("update", "reference", "weight sync")},
                "generation": f"{guess.phases['rollout'].total:.0f}" if launch.hybrid else "-",
            }
        )
        # fp32 weights and two moments; Megatron also saves the bf16 weights.
        checkpoint = model.parameters * (14 if megatron else 12) / 1e12
        one = {"DP": launch.rollout_dp, "EP": launch.rollout_ep}
        rollout.append(
            {
                **name,
                "GPUs": launch.rollout_gpus,
                "one vLLM": f"TP{launch.rollout_tp} {_sizes(**one)}".strip(),
                "weights": f"{guess.rollout_weights:.1f}",
                "KV cache": f"{guess.kv_cache:.1f}",
                "KiB a token": f"{guess.kv_bytes_per_token / 1024:.0f}",
                "full sequences held": f"{guess.full_sequences:.0f}",
                "responses a step": launch.train_batch * launch.n,
                "checkpoint, TB": f"{checkpoint:.2f}",
            }
        )
    return f"Training GPUs:\n\n{_markdown(training)}\nGPUs that generate:\n\n{_markdown(rollout)}"


def _sizes(**sizes: int) -> str:
    return " ".join(f"{name}{size}" for name, size in sizes.items() if size > 1)


def _markdown(rows: list[dict[str, Any]]) -> str:
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    head, *body = (f"| {' | '.join(map(str, line))} |\n" for line in lines)
    return "".join([head, "|---" * len(rows[0]) + "|\n", *body])


def launch_of(name: str, mode: str) -> Launch:
    """Return the sizes of a recipe, as its script launches it."""
    path = os.environ.get("PATH", os.defpath)
    return Launch(compose(parse(record(f"personas/run_{name}", [], {"PATH": path, "MODE": mode}))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help=f"update {PAGE.name} instead of printing")
    parser.add_argument("--gpu", type=float, default=GPU_GIB, metavar="GIB", help="of one GPU (default: %(default)g)")
    parser.add_argument("arguments", nargs="*", metavar="ARGS", help="those of verl.trainer.main_ppo")
    args = parser.parse_args()
    if args.write and (args.arguments or args.gpu != GPU_GIB):
        parser.error("--write updates the page's tables, and takes neither --gpu nor ARGS")
    if args.arguments:
        try:
            launch = Launch(compose(parse(args.arguments)))
            print(estimate(model_of(launch.model_path), launch, args.gpu))
        except (ValueError, HydraException, OmegaConfBaseException, PGRPOError) as error:
            parser.error(str(error))
        return
    text = tables((launch_of(name, mode) for name in RECIPES for mode in MODES), args.gpu)
    if args.write:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}{text}{END}{rest.partition(END)[2]}", encoding="utf-8")
    else:
        print(text, end="")


if __name__ == "__main__":
    main()
