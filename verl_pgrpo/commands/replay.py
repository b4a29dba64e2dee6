# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo replay`: of a run that has been, with any estimator, what GRPO and P-GRPO give as advantages."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_pgrpo.commands.arguments import Result, add_command, add_json, whole

if TYPE_CHECKING:
    from verl_pgrpo.config import PGRPOConfig
    from verl_pgrpo.report.replay import Replay

EXAMPLE = "verl-pgrpo replay runs/grpo/rollouts --data data/train.parquet"
SHOWN = 40  # groups in the table
LEGEND = """
share                 of all responses; of GRPO's and of P-GRPO's signal (the sum of squared advantages)
no signal in grpo     responses whose GRPO advantage is zero: all responses to their prompt earned the same
opposed               responses that one estimator encourages and the other discourages
scale, shift          A_pgrpo = scale * A_grpo + shift, mean over responses
cold                  normalised with too little history"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    replay = add_command(commands, "replay", "what P-GRPO would have changed in a run that has been", EXAMPLE)
    replay.add_argument("rollouts", type=Path, help="the run's trainer.rollout_data_dir")
    known = replay.add_mutually_exclusive_group(required=True)
    known.add_argument("--data", type=Path, nargs="+", help="the run's training parquet, where the groups stand")
    known.add_argument("--group-field", metavar="FIELD", help="or where they stand in the dumps, such as gts.persona")
    replay.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of algorithm.pgrpo, such as group_key=user"
    )
    replay.add_argument("--parts", type=whole, default=8, help="lines over time (default: %(default)s; 0: every step)")
    add_json(replay)
    replay.set_defaults(run=replay_command)


def replay_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.data.errors import DataError
    from verl_pgrpo.data.progress import progress
    from verl_pgrpo.report.dumps import GroupsOfData, GroupsOfField, dump_files, read_step
    from verl_pgrpo.report.replay import replay

    config, files = _options(args.option), dump_files(args.rollouts)
    if args.data:
        groups: GroupsOfData | GroupsOfField = GroupsOfData.of(args.data, config.group_key, config.missing_group)
    else:
        groups = GroupsOfField(args.group_field)
    with progress("steps", len(files), unit="") as bar:
        found = replay((bar.update() or read_step(path, groups) for path in files), config)
    if not found.steps:
        where = ", ".join(map(str, args.data)) if args.data else f"the field {args.group_field}"
        raise DataError(f"{args.rollouts}: none of its {found.unknown:,} responses has a preference group in {where}")
    return Result(_text(args.rollouts, found, args.parts), {**_facts(found), "steps": found.by_step()})


def _options(assigned: list[str]) -> PGRPOConfig:
    from omegaconf import OmegaConf
    from yaml import YAMLError  # type: ignore[import-untyped]

    from verl_pgrpo.config import PGRPOConfig
    from verl_pgrpo.errors import ConfigError

    for option in assigned:
        if "=" not in option:
            raise ConfigError(f"--option takes NAME=VALUE, such as half_life=512, not {option!r}")
    try:
        options = OmegaConf.from_dotlist(assigned)
    except YAMLError as error:
        raise ConfigError(f"--option {' '.join(assigned)}: not a value ({error})") from error
    return PGRPOConfig.from_mapping(options)


def _facts(found: Replay) -> dict[str, Any]:
    groups, total = found.by_group(), found.total
    return {
        "responses": int(total[0]),
        "prompts": found.prompts,
        "prompts_without_signal_in_grpo": found.silent_prompts,
        "responses_of_unknown_group": found.unknown,
        "responses_without_finite_reward": found.nonfinite,
        "agreement": found.agreement if found.agreement == found.agreement else None,
        "opposed": float(total[5] / total[0]),
        "groups": groups,
    }


def _text(folder: Path, found: Replay, parts: int) -> str:
    from verl_pgrpo.data.summary import aligned

    facts = _facts(found)
    agreement = "" if facts["agreement"] is None else f" (cosine of the advantages: {facts['agreement']:.2f})"
    unknown = facts["responses_of_unknown_group"]
    lines = [
        f"{folder}: {len(found.steps):,} steps, {facts['prompts']:,} prompts, {facts['responses']:,} responses of "
        f"{len(facts['groups']):,} preference groups",
        f"{found.silent_prompts / found.prompts:.0%} of the prompts teach nothing under GRPO: "
        "all their responses earned the same",
        f"{facts['opposed']:.0%} of the responses are pushed the other way under P-GRPO{agreement}",
        *([f"{unknown:,} responses are of no known preference group and were left out"] if unknown else []),
        *([f"{found.nonfinite:,} responses have no finite reward and were left out"] if found.nonfinite else []),
        "",
        *aligned(facts["groups"][:SHOWN]),
        *([f"({len(facts['groups']) - SHOWN:,} more groups; --json has all)"] if len(facts["groups"]) > SHOWN else []),
        "",
        *aligned(found.by_step(parts or None)),
        LEGEND,
    ]
    return "\n".join(lines)
