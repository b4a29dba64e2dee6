# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo report`: one HTML page that shows what each preference group got from each run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from verl_pgrpo.cli.output import JsonOption, check_out, check_unused, emit, format_table
from verl_pgrpo.files import atomic_write
from verl_pgrpo.report.comparison import Comparison
from verl_pgrpo.report.loading import load_runs
from verl_pgrpo.report.narrative import findings, headline, value_name
from verl_pgrpo.report.page import as_dict, make_report, render
from verl_pgrpo.report.picture import draw_picture

app = typer.Typer(add_completion=False)
Option = typer.Option
Texts = list[str] | None
KEY = "preference_group"
VALUE_HELP = "What to compare: auto, utility, score, standardized, or a field of the dumps."


@app.command(epilog="Example: verl-pgrpo report grpo=runs/grpo pgrpo=runs/pgrpo -o report.html")
def report(
    context: typer.Context,
    runs: Annotated[list[str], typer.Argument(metavar="RUN", help="A run; NAME=RUN also names its arm.")],
    out: Annotated[Path, Option("--out", "-o", help="The page to write.")],
    data: Annotated[list[Path] | None, Option(help="Training data (Parquet) with the groups. Repeatable.")] = None,
    group_key: Annotated[
        str | None, Option(metavar="COLUMN", help=f"Column of the groups in it; default {KEY}.")
    ] = None,
    group_field: Annotated[str | None, Option(metavar="FIELD", help="Or a field of the dumps: gts.persona.")] = None,
    value: Annotated[str, Option(help=VALUE_HELP)] = "auto",
    baseline: Annotated[str | None, Option(metavar="NAME", help="Arm to compare with; default grpo.")] = None,
    metrics: Annotated[Texts, Option(metavar="NAME=FILE", help="Metrics of an arm, if elsewhere.")] = None,
    samples_of: Annotated[Texts, Option(metavar="GROUP", help="Also show responses to this group.")] = None,
    picture: Annotated[Path | None, Option(metavar="FILE", help="Also draw the curves of all groups (.png).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Render one HTML page that shows what each preference group got from each run.

    A RUN is a folder or a file of verl's `file` logger. Runs with the same name are seeds of one arm (NAME=RUN1,RUN2 is
    the same). Without a name, the arm has the name of the estimator, or of the folder if that is unknown.

    A folder may contain <step>.jsonl of trainer.rollout_data_dir (in rollouts/), files of the `file` logger (*.jsonl),
    checkpoints with pgrpo_history.parquet, hydra's .hydra/config.yaml, and a console log (*.log).

    --value auto compares utility if all rollouts have it, else standardized: each group's reward in units of its own
    reward at the start of the baseline. score is the reward as it is.
    """
    check_out("--out", out, *(data or ()))
    check_out("--picture", picture, out, suffixes=[".png"])
    if group_field:
        check_unused(context, "with --group-field", "data", "group_key")
    comparison = load_runs(runs, data or (), group_field, group_key, value, baseline, metrics or ())
    found = make_report(comparison, samples_of or ())
    page = render(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(out, errors="replace") as file:
        file.write(page)
    if picture:
        draw_picture(comparison, picture)
    first, last = comparison.last[0], comparison.last[-1]
    lines = [
        headline(comparison), *findings(comparison), "", f"{value_name(comparison)}, steps {first:,} to {last:,}:",
        summary_table(comparison), "", *(f"note: {line}" for line in found.cautions), f"page: {out}",
        *([f"picture: {picture}"] if picture else []),
    ]  # fmt: skip
    emit("\n".join(lines), {"page": str(out), **as_dict(found)}, as_json)


def summary_table(comparison: Comparison) -> str:
    """Return the summary over groups, one row per arm."""
    return format_table(
        [
            {
                "arm": arm.title,
                "runs": len(arm.runs),
                **{name: float(band.mean) for name, band in comparison.summary(i).items()},
            }
            for i, arm in enumerate(comparison.arms)
        ]
    )
