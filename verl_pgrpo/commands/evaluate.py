# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo eval`: what each preference group gets from a model, and from one model more than from another."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_pgrpo.commands.arguments import Result, add_command, add_json, add_seed

if TYPE_CHECKING:
    from verl_pgrpo.evaluation.samples import Sample

EXAMPLE = "verl-pgrpo eval --model grpo=runs/grpo/hf --model pgrpo=runs/pgrpo/hf --data val.parquet --out samples"
SHOWN = 40  # preference groups in a table
SUMMARY_NAMES = {
    "mean_over_groups": "mean over groups",
    "worst_group": "worst group",
    "gap": "gap, best to worst",
    "gini": "Gini",
}


def add_parser(commands: argparse._SubParsersAction) -> None:
    parser = add_command(commands, "eval", "score models per preference group, and compare them", EXAMPLE)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--model",
        action="append",
        metavar="[NAME=]PATH",
        help="Hugging Face folder; again for more: the first is the baseline",
    )
    source.add_argument(
        "--scored", action="append", metavar="[NAME=]FILE", help="or: what --out wrote, without generating again"
    )
    parser.add_argument("--data", type=Path, help="validation parquet in verl's layout")
    parser.add_argument("--out", type=Path, help="folder for NAME.jsonl, a line per response, which `judge` reads")
    parser.add_argument("--reward", help="pkg://package.module or file, :function behind it (default: the recipe's)")
    parser.add_argument(
        "--reward-option", action="append", default=[], metavar="NAME=VALUE", help="keyword argument of the reward"
    )
    parser.add_argument("--value", default="score", help="which of the reward's numbers (default: %(default)s)")
    parser.add_argument("--group-key", default="preference_group", help="column or path (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="prompts, as even over the groups as they allow")
    parser.add_argument("--samples", type=int, default=1, help="responses to each prompt (default: %(default)s)")
    parser.add_argument("--temperature", type=float, default=1.0, help="default: %(default)s, as verl trains")
    parser.add_argument("--top-p", type=float, default=1.0, help="default: %(default)s")
    parser.add_argument("--max-tokens", type=int, default=512, help="of a response (default: %(default)s)")
    parser.add_argument("--no-thinking", action="store_true", help="enable_thinking=False for the chat template")
    parser.add_argument(
        "--engine", action="append", default=[], metavar="NAME=VALUE", help="of vllm.LLM: tensor_parallel_size=4, ..."
    )
    parser.add_argument("--resamples", type=int, default=9999, help="of bootstrap and tests (default: %(default)s)")
    add_seed(parser)
    add_json(parser)
    parser.set_defaults(run=evaluate_command)


def evaluate_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.data.errors import DataError
    from verl_pgrpo.evaluation.errors import require

    require("scipy", "tqdm")
    from verl_pgrpo.evaluation.groups import Scores, compare, correct, describe
    from verl_pgrpo.evaluation.models import named
    from verl_pgrpo.evaluation.samples import read_samples

    if args.resamples < 999:
        raise DataError(f"--resamples must be at least 999, got {args.resamples}")
    if args.seed < 0:
        raise DataError(f"--seed must be at least 0, got {args.seed}")
    files: dict[str, str] = {}
    if args.scored:
        chosen = named(args.scored, "--scored")
        samples = {name: read_samples(path) for name, path in chosen}
        reward = None
    else:
        samples, reward = _generate(args, files)
    scores = [Scores.of(name, found, args.value) for name, found in samples.items()]
    options = {"seed": args.seed, "resamples": args.resamples}
    comparisons = [compare(scores[0], other, **options) for other in scores[1:]]
    correct(comparisons)
    data = {
        "value": args.value,
        "reward": reward,
        **options,
        "models": [describe(one, **options) for one in scores],
        "comparisons": comparisons,
        "files": files,
    }
    return Result(_text(data), data)


def _generate(args: argparse.Namespace, files: dict[str, str]) -> tuple[dict[str, list[Sample]], str]:
    from verl_pgrpo.data.errors import DataError
    from verl_pgrpo.data.rows import output_folder
    from verl_pgrpo.evaluation.errors import require
    from verl_pgrpo.evaluation.generate import Sampling, generate
    from verl_pgrpo.evaluation.models import models_of
    from verl_pgrpo.evaluation.prompts import read_prompts
    from verl_pgrpo.evaluation.rewards import load_reward, reward_of, score
    from verl_pgrpo.evaluation.samples import write_samples

    if args.data is None:
        raise DataError("--model needs --data, a validation parquet")
    require("vllm", remedy="to generate, install it beside this package; --scored needs none")
    models, prompts = models_of(args.model), read_prompts(args.data, args.group_key, args.limit)
    name = args.reward or reward_of(prompts)
    reward, arguments = load_reward(name), assignments(args.reward_option, "--reward-option")
    sampling = Sampling(
        samples=args.samples, temperature=args.temperature, top_p=args.top_p, max_tokens=args.max_tokens,
        seed=args.seed, template={"enable_thinking": False} if args.no_thinking else {},
        engine=assignments(args.engine, "--engine"),
    )  # fmt: skip
    sampling.check()
    out = output_folder(args.out) if args.out is not None else None
    by_id = {prompt.id: prompt for prompt in prompts}
    samples = {}
    for model in models:
        log = out / f"{model.name}.vllm.log" if out is not None else None
        samples[model.name] = generate(model, prompts, sampling, log)
        if out is not None:  # before they are scored: generating is what costs
            write_samples(out / f"{model.name}.jsonl", samples[model.name])
        score(samples[model.name], by_id, reward, arguments)
        if out is not None:
            write_samples(out / f"{model.name}.jsonl", samples[model.name])
            files[model.name] = str(out / f"{model.name}.jsonl")
    return samples, name


def assignments(assigned: list[str], option: str) -> dict[str, Any]:
    """`NAME=VALUE`s: numbers, true, false, null, lists and objects as JSON has them, anything else is text.

    Raises:
        DataError: one without an equals sign.
    """
    from verl_pgrpo.data.errors import DataError

    found = {}
    for one in assigned:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise DataError(f"{option} takes NAME=VALUE, not {one!r}")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


def _text(data: dict[str, Any]) -> str:
    from verl_pgrpo.data.summary import aligned

    of = f" of {data['reward']}" if data["reward"] else ""
    lines = []
    for model in data["models"]:
        lines.append(
            f"{model['name']}: {model['responses']:,} responses to {model['prompts']:,} prompts of "
            f"{len(model['groups']):,} preference groups; {data['value']}{of}"
        )
        lines += [f"  {line}" for line in _shown(model["groups"])]
        rows = [
            {"over groups": SUMMARY_NAMES[name], **model[name], "which": model[name].get("group") or ""}
            for name in SUMMARY_NAMES
        ]
        lines += [f"  {line}" for line in aligned([_row(row, "over groups", "value", "which") for row in rows])]
        lines.append("")
    for found in data["comparisons"]:
        more = f"; {found['unmatched']:,} prompts only one of them has" if found["unmatched"] else ""
        lines.append(f"{found['model']} minus {found['baseline']}, paired by prompt{more}")
        lines += [f"  {line}" for line in _shown(found["groups"], digits=4)]  # of p, fewer would be 0
        rows = [{"over groups": "all prompts", **found["overall"]}]
        rows += [{"over groups": SUMMARY_NAMES[name], **found[name], "p": None} for name in SUMMARY_NAMES]
        lines += [f"  {line}" for line in aligned([_row(row, "over groups", "difference", "p") for row in rows], 4)]
        lines.append("")
    lines.append("low, high: 95 % interval over prompts; -: fewer than 5 prompts, or all of one value")
    if data["comparisons"]:
        lines.append("p: paired permutation test; p_holm: corrected for all groups above, below 0.05 is a difference")
    if any(line["mean"] < 0 for model in data["models"] for line in model["groups"]):
        lines.append("Gini: some groups' means are negative, so it is of absolute values in the denominator")
    return "\n".join([*lines, *(f"wrote {path}" for path in data["files"].values())])


def _row(row: dict[str, Any], name: str, value: str, last: str) -> dict[str, Any]:
    return {key: row[key] for key in (name, value, "low", "high", last)}


def _shown(groups: list[dict[str, Any]], digits: int = 3) -> list[str]:
    """The groups as a table, the worst first where there are too many."""
    from verl_pgrpo.data.summary import aligned

    rows = groups
    if len(groups) > SHOWN:
        key = "mean" if "mean" in groups[0] else "difference"
        rows = sorted(groups, key=lambda line: line[key])[:SHOWN]
    rows = [{key: _yes(value) if key == "significant" else value for key, value in row.items()} for row in rows]
    left = len(groups) - len(rows)
    return [*aligned(rows, digits), *([f"({left:,} better ones; --json has all)"] if left else [])]


def _yes(value: bool | None) -> str:
    return "" if value is None else "yes" if value else "no"
