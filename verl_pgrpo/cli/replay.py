# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo replay`: the advantages that GRPO and P-GRPO would have given to the rollouts of a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer
from tqdm import tqdm

from verl_pgrpo.cli.output import JsonOption, emit, format_table, parse_assignments
from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.errors import DataError
from verl_pgrpo.evaluation.metrics_log import find_logs, read_log
from verl_pgrpo.evaluation.replay import Replay, replay
from verl_pgrpo.evaluation.rollouts import find_dumps, groups_from_data, groups_from_field, read_dump
from verl_pgrpo.evaluation.variance import recommended_options

DATA_HELP = "The run's training data (Parquet) with the groups. Repeat for more files."
FIELD_HELP = "Or a field of the dumps with the groups, such as gts.persona."
OPTION_HELP = "An option of algorithm.pgrpo, such as group_key=user."
TOO_FEW = "no group has two responses: too few for a recommendation"
NO_SPREAD = "all rewards of a group are equal, so no estimator can learn from them: check the reward function"
NO_SPREAD_WITHIN = (
    "all responses to a prompt have the same reward, so GRPO and shrinkage learn nothing: check the reward"
)
SAMPLING = "better than group_balance, if you can choose the prompts: sample the groups equally (docs/when.md)"
SHOWN = 40  # groups in the table
LEGEND = """
share                 of all responses; of GRPO's and of P-GRPO's signal (the sum of squared advantages)
no signal in grpo     responses whose GRPO advantage is zero because all responses to their prompt have the same reward
opposed               responses that one estimator reinforces and the other discourages
scale, shift          A_pgrpo = scale * A_grpo + shift, mean over responses
cold                  normalized by a short history
between_within        variance between the group's prompts, over that of responses to the same prompt. What the policy
                      learns during the run counts as a difference between prompts
weight                of the prompt's other responses with baseline=shrinkage; the history's mean has the rest"""

app = typer.Typer(add_completion=False)


@app.command("replay", epilog="Example: verl-pgrpo replay runs/grpo/rollouts --data data/train.parquet")
def replay_command(
    rollouts: Annotated[Path, typer.Argument(help="The run's trainer.rollout_data_dir.")],
    data: Annotated[list[Path] | None, typer.Option(help=DATA_HELP)] = None,
    group_field: Annotated[str | None, typer.Option(metavar="FIELD", help=FIELD_HELP)] = None,
    option: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help=OPTION_HELP)] = None,
    parts: Annotated[int, typer.Option(min=0, help="Rows of the table over time; 0 for every step.")] = 8,
    as_json: JsonOption = False,
) -> None:
    """Compare the advantages of GRPO and P-GRPO on the rollouts of a finished run, trained with any estimator."""
    if bool(data) == bool(group_field):
        raise DataError("give either --data (the training data) or --group-field (a field of the dumps)")
    options = parse_assignments(option, "--option")
    config = PGRPOConfig.from_mapping(options)
    if group_field:
        # The key of an initial history must equal group_key.
        unused = ["default_group", *([] if config.initial_history else ["group_key"])]
        for name in filter(options.__contains__, unused):
            raise DataError(f"--option {name} has no effect with --group-field")
    metrics = find_logs(rollouts.parent if rollouts.name == "rollouts" else rollouts)
    dumps = find_dumps(rollouts, read_log(metrics))
    if data:
        group_of = groups_from_data(data, config.group_key, config.default_group)
    else:
        group_of = groups_from_field(str(group_field))
    files = tqdm(dumps.files.values(), desc="steps", disable=None)
    result = replay((read_dump(path, group_of) for path in files), config)
    if result.responses.empty and not result.unknown and not result.nonfinite:
        raise DataError(f"{rollouts}: the dumps of {len(dumps.files):,} steps hold no responses")
    if result.responses.empty and result.nonfinite:
        of_group = " with a preference group" if result.unknown else ""
        raise DataError(f"{rollouts}: none of its {result.nonfinite:,} responses{of_group} has a finite reward")
    if result.responses.empty:
        where = ", ".join(map(str, data)) if data else f"the field {group_field}"
        raise DataError(f"{rollouts}: none of its {result.unknown:,} responses has a preference group in {where}")
    variance = result.variance
    facts = {
        "responses": len(result.responses),
        "prompts": result.prompts,
        "prompts_without_signal_in_grpo": result.silent_prompts,
        "responses_of_unknown_group": result.unknown,
        "responses_without_finite_reward": result.nonfinite,
        "abandoned_steps": list(dumps.abandoned),
        "agreement": result.agreement,
        "opposed": float(result.responses["opposed"].mean()),
        "groups": result.by_group().to_dict("records"),
        "steps": result.by_step().to_dict("records"),
        "variance": variance.to_dict("records"),
        "recommended_options": recommended_options(variance),
    }
    emit(_text(rollouts, result, facts, parts), facts, as_json)


def _advice(variance: pd.DataFrame, options: dict[str, Any]) -> str:
    if (variance["responses"] < 2).all():
        return TOO_FEW
    if not variance["std"].any():
        return NO_SPREAD
    if (variance["within"] == 0).all():
        return NO_SPREAD_WITHIN
    chosen = " ".join(f"+algorithm.pgrpo.{name}={value}" for name, value in options.items())
    return f"recommended options (docs/when.md): {chosen or 'the defaults'}"


def _text(folder: Path, result: Replay, facts: dict[str, Any], parts: int) -> str:
    groups, steps = result.by_group(), result.responses["step"].nunique()
    variance = pd.DataFrame(facts["variance"]).sort_values("responses", ascending=False)
    cosine = "" if result.agreement != result.agreement else f" (cosine of the advantages: {result.agreement:.2f})"
    left_out = {
        "responses have no known preference group": result.unknown,
        "responses have no finite reward": result.nonfinite,
        "steps belong to a branch that was abandoned when the run was resumed": len(facts["abandoned_steps"]),
    }
    lines = [
        f"{folder}: {steps:,} steps, {result.prompts:,} prompts, {facts['responses']:,} responses of {len(groups):,} "
        "preference groups",
        f"{result.silent_prompts / result.prompts:.0%} of the prompts have no signal under GRPO: all their responses "
        "have the same reward",
        f"{facts['opposed']:.0%} of the responses have advantages of opposite sign{cosine}",
        *(f"{count:,} {what} and were left out" for what, count in left_out.items() if count),
        "",
        format_table(groups, most=SHOWN),
        "",
        format_table(result.by_step(parts or None)),
        "",
        format_table(variance[["group", "prompts", "share", "std", "between_within", "weight"]], most=SHOWN),
        _advice(variance, facts["recommended_options"]),
        *([SAMPLING] if "group_balance" in facts["recommended_options"] else []),
        LEGEND,
    ]
    return "\n".join(lines)
