# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo report`: runs to one page that says what each preference group got."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_pgrpo.commands.arguments import Result, add_command, add_json

if TYPE_CHECKING:
    from verl_pgrpo.report.comparison import Comparison

EXAMPLE = "verl-pgrpo report grpo=runs/grpo pgrpo=runs/pgrpo -o report.html"
NOTES = """
A RUN is a run's folder or the file of verl's `file` logger. NAME=RUN names its arm; runs of one name are seeds of one
arm (NAME=RUN1,RUN2 is the same). Without a name it is the estimator's, or the folder's where that is not known.
In the folder are looked for: <step>.jsonl of trainer.rollout_data_dir (in rollouts/), files of the `file` logger
(*.jsonl), checkpoints' pgrpo_history.parquet, hydra's .hydra/config.yaml, a console log (*.log).

--value: what is compared. auto takes utility where the rollouts tell it, else standardized (each group's reward in
units of its own at the start of the baseline); score is the reward as it is; or the name of a number in the rollouts.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    report = add_command(commands, "report", "one page: what each preference group got from each run", EXAMPLE)
    report.epilog = f"{NOTES}\n{report.epilog}"
    report.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder; NAME=RUN names its arm")
    report.add_argument("-o", "--out", type=Path, required=True, help="the page to write")
    report.add_argument("--data", type=Path, nargs="+", default=[], help="training parquet, where the groups stand")
    report.add_argument("--group-key", metavar="COLUMN", help="of the groups in it (default: preference_group)")
    report.add_argument("--group-field", metavar="FIELD", help="or where they stand in the dumps, such as gts.persona")
    report.add_argument(
        "--value", default="auto", help="auto, utility, score, standardized, or a field (default: %(default)s)"
    )
    report.add_argument("--baseline", metavar="NAME", help="the arm that others are compared with (default: grpo)")
    report.add_argument(
        "--metrics", action="append", default=[], metavar="NAME=FILE", help="an arm's metrics file that is elsewhere"
    )
    report.add_argument(
        "--samples-of", action="append", default=[], metavar="GROUP", help="show samples of this group as well"
    )
    add_json(report)
    report.set_defaults(run=report_command)


def report_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.data.errors import DataError
    from verl_pgrpo.report.arms import named_runs, read_arms

    if args.out.is_dir():
        raise DataError(f"{args.out}: is a folder; name the page to write, such as {args.out}/report.html")
    try:
        import tqdm  # noqa: F401  (progress)

        from verl_pgrpo.report.page import Page, facts, render, write
    except ModuleNotFoundError as error:
        raise DataError(f"the report needs {error.name}: pip install 'verl-pgrpo[report]'") from error
    from verl_pgrpo.report.past import last_history
    from verl_pgrpo.report.samples import chosen_groups, find_samples

    runs = named_runs(args.runs, args.metrics)
    compared, groups_of = read_arms(runs, args.data, args.group_field, args.group_key, args.value, args.baseline)
    wanted = _groups(compared, args.samples_of)
    problems = [problem for arm in compared.arms for run in arm.runs for problem in run.folder.problems]
    pasts = [last_history(arm.runs[0], compared.labels, problems) for arm in compared.arms]
    samples = find_samples(compared, groups_of, chosen_groups(compared, wanted))
    page = Page(compared, samples, pasts, _command(args), problems)
    write(render(page), args.out)
    found = {"page": str(args.out), **facts(page)}
    return Result(_text(args.out, compared, found), found)


def _groups(compared: Comparison, names: list[str]) -> list[int]:
    from verl_pgrpo.data.errors import DataError

    for name in names:
        if name not in compared.labels:
            raise DataError(f"--samples-of {name!r}: none of the {len(compared.labels):,} groups is called so")
    return [compared.labels.index(name) for name in names]


def _command(args: argparse.Namespace) -> str:
    """The command line that makes this page again."""
    words = ["verl-pgrpo", "report", *args.runs, "-o", str(args.out)]
    for flag in ("data", "group_key", "group_field", "value", "baseline", "metrics", "samples_of"):
        given: Any = getattr(args, flag)
        if not given or given == "auto":
            continue
        name = "--" + flag.replace("_", "-")
        if flag == "data":
            words += [name, *map(str, given)]
        else:
            words += [word for one in (given if isinstance(given, list) else [given]) for word in (name, one)]
    return shlex.join(words)


def _text(out: Path, compared: Comparison, found: dict[str, Any]) -> str:
    from verl_pgrpo.data.summary import aligned
    from verl_pgrpo.report.words import findings, value_name

    rows = [
        {"arm": arm.title, "runs": len(arm.runs), **{name: spread.mean for name, spread in compared.summary(i).items()}}
        for i, arm in enumerate(compared.arms)
    ]
    rows = [{key: None if value != value else value for key, value in row.items()} for row in rows]
    steps = found["last_fifth"]
    return "\n".join(
        [
            found["headline"],
            *findings(compared),
            "",
            f"{value_name(compared)}, steps {steps[0]:,} to {steps[1]:,}:",
            *aligned(rows),
            "",
            *(f"note: {line}" for line in found["cautions"]),
            f"page: {out}",
        ]
    )
