# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo eval`: score models per preference group, and compare them with the first."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from textwrap import indent
from typing import Annotated, Any

import typer

from verl_pgrpo.cli.output import JsonOption, SeedOption, check_unused, emit, format_table, parse_assignments
from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.comparison import RESAMPLES, Scores, compare, describe
from verl_pgrpo.evaluation.generate import GenerationError, Sampling, generate
from verl_pgrpo.evaluation.models import Model, find_model, parse_names
from verl_pgrpo.evaluation.prompts import GROUP_KEY, Prompt, read_prompts
from verl_pgrpo.evaluation.samples import Sample, read_samples, write_samples
from verl_pgrpo.evaluation.scoring import default_reward, load_reward, score
from verl_pgrpo.evaluation.statistics import correct

EXAMPLE = "verl-pgrpo eval --model grpo=runs/grpo/hf --model pgrpo=runs/pgrpo/hf --data val.parquet --out samples"
MAX_ROWS = 40  # preference groups in a table
SUMMARY_NAMES = {
    "mean_over_groups": "mean over groups",
    "worst_group": "worst group",
    "gap": "gap, best to worst",
    "gini": "Gini",
}
MODEL_HELP = "Hugging Face folder, PEFT folder or verl checkpoint; the first is the baseline."
REWARD_HELP = "pkg://package.module or a file, with :function if need be. Default: by data_source."
ENGINE_HELP = "Argument of vllm.LLM, such as tensor_parallel_size=4."
FOR_MODELS = ("data", "out", "reward", "reward_option", "group_key", "limit", "samples", "temperature", "top_p",
              "max_tokens", "no_thinking", "engine")  # fmt: skip

app = typer.Typer(add_completion=False)
Option = typer.Option
Texts = list[str] | None


@app.command(help="Score models per preference group, and compare them.", epilog=f"Example: {EXAMPLE}")
def evaluate(
    context: typer.Context,
    model: Annotated[Texts, Option(metavar="[NAME=]PATH", help=MODEL_HELP)] = None,
    scored: Annotated[Texts, Option(metavar="[NAME=]FILE", help="Instead of --model: a file that --out wrote.")] = None,
    data: Annotated[Path | None, Option(help="Validation Parquet file in verl's layout.")] = None,
    out: Annotated[Path | None, Option(help="Folder for NAME.jsonl, a line per response; `judge` reads them.")] = None,
    reward: Annotated[str | None, Option(help=REWARD_HELP)] = None,
    reward_option: Annotated[Texts, Option(metavar="NAME=VALUE", help="Argument of the reward function.")] = None,
    value: Annotated[str, Option(help="Which of the reward function's numbers to report.")] = "score",
    group_key: Annotated[str, Option(help="Column of the preference group, or a dotted path.")] = GROUP_KEY,
    limit: Annotated[int | None, Option(help="Number of prompts, spread evenly over the groups.")] = None,
    samples: Annotated[int, Option(help="Responses per prompt.")] = 1,
    temperature: Annotated[float, Option(help="1.0 is what verl trains with.")] = 1.0,
    top_p: Annotated[float, Option()] = 1.0,
    max_tokens: Annotated[int, Option(help="Limit of a response.")] = 512,
    no_thinking: Annotated[bool, Option("--no-thinking", help="enable_thinking=False for the chat template.")] = False,
    engine: Annotated[Texts, Option(metavar="NAME=VALUE", help=ENGINE_HELP)] = None,
    resamples: Annotated[int, Option(help="Resamples of the bootstrap and of the tests.")] = RESAMPLES,
    seed: SeedOption = 0,
    json_output: JsonOption = False,
) -> None:
    if bool(model) == bool(scored):
        raise DataError("give either --model (with --data) or --scored")
    if resamples < 999 or seed < 0:
        raise DataError("--resamples must be at least 999, and --seed at least 0")
    result: dict[str, Any] = {"value": value, "reward": None, "seed": seed, "resamples": resamples}
    adapters: dict[str, str] = {}
    files: dict[str, str] = {}
    if scored:
        check_unused(context, "with --scored", *FOR_MODELS)
        responses = {name: read_samples(path) for name, path in parse_names(scored, "--scored")}
    elif data is None:
        raise DataError("--model needs --data, a validation Parquet file")
    else:
        sampling = Sampling(
            samples=samples, temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed,
            template={"enable_thinking": False} if no_thinking else {}, engine=parse_assignments(engine, "--engine"),
        )  # fmt: skip
        arguments = parse_assignments(reward_option, "--reward-option")
        if missing := [name for name in ("vllm", "verl") if find_spec(name) is None]:
            raise GenerationError(f"{missing[0]} is not installed: eval generates with vLLM and scores with verl")
        models = [find_model(name, path) for name, path in parse_names(model or [], "--model")]
        prompts = read_prompts(data, group_key, limit)
        result["reward"] = reward or default_reward(prompts)
        responses, files = _generate(models, prompts, sampling, load_reward(result["reward"], arguments), out)
        adapters = {one.name: str(one.adapter) for one in models if one.adapter}
    scores = [Scores.from_samples(name, found, value) for name, found in responses.items()]
    result["models"] = [{**describe(one, seed, resamples), "adapter": adapters.get(one.name)} for one in scores]
    result["comparisons"] = [compare(scores[0], other, seed, resamples) for other in scores[1:]]
    correct([line for found in result["comparisons"] for line in found["groups"]])
    emit(_text(result, files), {**result, "files": files}, json_output)


def _generate(
    models: list[Model], prompts: list[Prompt], sampling: Sampling, reward: Callable[..., Any], out: Path | None
) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """Generate and score each model's responses; return them, and the files in `out`, by model."""
    if out is not None:
        if out.exists() and not out.is_dir():
            raise DataError(f"--out {out} is a file; name a folder")
        out.mkdir(parents=True, exist_ok=True)
    by_id = {prompt.id: prompt for prompt in prompts}
    responses, files = {}, {}
    for model in models:
        file = out / f"{model.name}.jsonl" if out is not None else None
        found = responses[model.name] = generate(model, prompts, sampling, file and file.with_suffix(".vllm.log"))
        if file is not None:  # before scoring, which may fail: generating is the expensive part
            write_samples(file, found)
        score(found, by_id, reward)
        if file is not None:
            write_samples(file, found)
            files[model.name] = str(file)
    return responses, files


def _text(result: dict[str, Any], files: dict[str, str]) -> str:
    reward = f" of {result['reward']}" if result["reward"] else ""
    blocks = []
    for model in result["models"]:
        head = (
            f"{model['name']}: {model['responses']:,} responses to {model['prompts']:,} prompts of "
            f"{len(model['groups']):,} preference groups; {result['value']}{reward}"
        )
        head += f"\n  with the LoRA adapter {model['adapter']}" if model["adapter"] else ""
        head += f"\n  left out: {model['unscored']:,} responses without a finite score" if model["unscored"] else ""
        rows = [{"over groups": text, "group": None, **model[name]} for name, text in SUMMARY_NAMES.items()]
        blocks.append(_block(head, model["groups"], "mean", rows))
    for comparison in result["comparisons"]:
        head = f"{comparison['model']} minus {comparison['baseline']}, paired by prompt"
        if comparison["unmatched"]:
            head += f"; {comparison['unmatched']:,} prompts are in one of them only"
        rows = [{"over groups": "all prompts", **comparison["overall"]}]
        rows += [{"over groups": text, **comparison[name], "p": None} for name, text in SUMMARY_NAMES.items()]
        rows = [{key: row[key] for key in ("over groups", "difference", "low", "high", "p")} for row in rows]
        blocks.append(_block(head, comparison["groups"], "difference", rows))
    notes = ["low, high: 95 % interval over prompts; -: fewer than 5 prompts, or all with one value"]
    if result["comparisons"]:
        notes.append("p: paired permutation test; p_holm: corrected for all groups above; significant: p_holm < 0.05")
    if any(line["mean"] < 0 for model in result["models"] for line in model["groups"]):
        notes.append("Gini: some means are negative, so its denominator has absolute values")
    notes += [f"wrote {path}" for path in files.values()]
    return "\n\n".join([*blocks, "\n".join(notes)])


def _block(head: str, groups: list[dict[str, Any]], key: str, summary: list[dict[str, Any]]) -> str:
    """Return a table of the groups (only the worst if there are many) and one of the summaries."""
    if len(groups) > MAX_ROWS:
        groups = sorted(groups, key=lambda line: line[key])
    tables = format_table(groups, most=MAX_ROWS, left="better groups; --json has all"), format_table(summary)
    return "\n".join([head, *(indent(table, "  ") for table in tables)])
