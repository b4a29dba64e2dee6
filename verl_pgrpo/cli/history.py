# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo history`: show, compare, merge and convert history files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import typer

from verl_pgrpo.checkpoint import read_header
from verl_pgrpo.cli.output import JsonOption, check_out, check_unused, emit, format_table
from verl_pgrpo.config import PGRPOConfig
from verl_pgrpo.data.history_table import read_history_table, write_history_table
from verl_pgrpo.errors import ConfigError
from verl_pgrpo.groups import shortened
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.moments import FIELDS

app = typer.Typer(help="Show, compare, merge and convert history files.", no_args_is_help=True, add_completion=False)

Top = Annotated[int, typer.Option(min=0, help="Number of groups shown; 0: all.")]
Step = Annotated[int | None, typer.Option(min=0, help="Training step of the checkpoint that the file is for.")]


@app.command(epilog="Example: verl-pgrpo history show runs/a/checkpoints/global_step_100/pgrpo_history.parquet")
def show(
    file: Annotated[Path, typer.Argument(help="A checkpoint's pgrpo_history.parquet.")],
    sort: Annotated[Literal["count", "mean", "std", "group"], typer.Option(help="Column to sort by.")] = "count",
    top: Top = 30,
    as_json: JsonOption = False,
) -> None:
    """Show the contents of a history file."""
    history, header = GroupHistoryManager.load(file), read_header(file)
    table = _table(history).drop(columns=["m2", "within", "within_dof"])
    if table["within_std"].isna().all():
        table = table.drop(columns="within_std")
    table = table.sort_values(sort, ascending=sort in ("group", "mean"), kind="stable")
    rewards, options = history.total_count, history.config.history_options()
    lines = [
        f"{file}: step {header['step']}, {len(table):,} groups, {rewards:,} rewards",
        f"recorded with {', '.join(f'{key}={value}' for key, value in options.items())}",
        "",
        _listing(table, top),
    ]
    data = {name: header[name] for name in ("step", "schema_version", "options", "fingerprint")}
    data |= {"file": str(file), "groups": len(table), "rewards": rewards, "rows": _rows(table, top)}
    emit("\n".join(lines), data, as_json)


@app.command(epilog="Example: verl-pgrpo history diff global_step_50/pgrpo_history.parquet other.parquet")
def diff(old: Path, new: Path, top: Top = 30, as_json: JsonOption = False) -> None:
    """Show what changed from one history to another."""
    before, after = GroupHistoryManager.load(old), GroupHistoryManager.load(new)
    table = _table(before).merge(_table(after), how="outer", on="group", suffixes=(" old", ""), indicator=True)
    appeared, vanished = (sorted(table["group"][table["_merge"] == side]) for side in ("right_only", "left_only"))
    both = table[table["_merge"] == "both"]
    table = both[(both[[*FIELDS]].to_numpy() != both[[f"{name} old" for name in FIELDS]].to_numpy()).any(axis=1)]
    # Standard error of the difference of two independent means. Two histories share rewards, so this is no exact test.
    error = np.sqrt(table["std old"] ** 2 / table["count old"] + table["std"] ** 2 / table["count"])
    moved = table["mean"] - table["mean old"]
    columns = {"mean moved": moved, "in standard errors": (moved / error).where(error > 0)}
    table = table.assign(**{"new rewards": table["count"] - table["count old"]}, **columns)
    table = table.astype({"count": int, "new rewards": int})
    order = table["in standard errors"].abs().fillna(0.0)
    table = table.assign(order=order).sort_values(["order", "new rewards"], ascending=False, kind="stable")
    within = [] if table[["within_std", "within_std old"]].isna().all(axis=None) else ["within_std", "within_std old"]
    table = table[["group", "count", "new rewards", "mean", *columns, "std", *within]]
    was, now = before.config.history_options(), after.config.history_options()
    data: dict[str, Any] = {
        "rewards": [before.total_count, after.total_count],
        "groups": [before.num_groups, after.num_groups],
        "appeared": appeared,
        "vanished": vanished,
        "unchanged": len(both) - len(table),
        "options_changed": {key: [was[key], now[key]] for key in was if was[key] != now[key]},
        "rows": _rows(table, top),
    }
    lines = [
        f"rewards: {before.total_count:,} before, {after.total_count:,} now",
        f"groups: {before.num_groups:,} before, {after.num_groups:,} now",
        f"{len(table):,} changed, {data['unchanged']:,} unchanged, {len(appeared):,} new, {len(vanished):,} gone",
        *(f"option {key}: {a} before, {b} now" for key, (a, b) in data["options_changed"].items()),
        *(f"{what}: {shortened(names, 10)}" for what, names in (("new", appeared), ("gone", vanished)) if names),
        "",
        _listing(table, top),
    ]
    emit("\n".join(lines), data, as_json)


@app.command(epilog="Example: verl-pgrpo history merge older.parquet newer.parquet --out merged.parquet")
def merge(
    older: Annotated[Path, typer.Argument(help="With half_life the order matters.")],
    newer: Path,
    out: Annotated[Path, typer.Option(help="The history file to write.")],
    step: Step = None,
    as_json: JsonOption = False,
) -> None:
    """Merge the histories of two runs into one."""
    check_out("--out", out, older, newer, suffixes=[".parquet"])
    _check_folder(out)
    merged, other = GroupHistoryManager.load(older), GroupHistoryManager.load(newer)
    shared = len(set(merged.groups) & set(other.groups))
    merged.merge(other)
    merged.save(out, step)
    text = f"{out}: {merged.num_groups:,} groups ({shared:,} in both), {merged.total_count:,} rewards, step {step}"
    data = {"out": str(out), "step": step, "groups": merged.num_groups, "rewards": merged.total_count, "shared": shared}
    emit(text, data, as_json)


@app.command(epilog="Example: verl-pgrpo history convert ratings.csv --out start.parquet --half-life 512")
def convert(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(
            help="A history (.parquet), or a table (.csv, .jsonl): group, count, mean, m2 or std; within, within_dof."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A .csv or .jsonl for a history; a .parquet for a table.")],
    step: Step = None,
    half_life: Annotated[float | None, typer.Option(help="half_life of the run that starts from the table.")] = None,
    group_key: Annotated[str, typer.Option(help="group_key of that run.")] = PGRPOConfig().group_key,
    use_kl_in_reward: Annotated[
        bool, typer.Option("--use-kl-in-reward", help="algorithm.use_kl_in_reward of that run.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Convert a history to a plain table, or a plain table to a history.

    A run starts from such a history with +algorithm.pgrpo.initial_history=<file>.
    """
    tables = (".csv", ".jsonl")
    check_out("--out", out, file, suffixes=[".parquet"] if file.suffix in tables else tables)
    _check_folder(out)
    if out.suffix == ".parquet":
        options = PGRPOConfig(half_life=half_life, group_key=group_key, use_kl_in_reward=use_kl_in_reward)
        history = read_history_table(file, options)
        history.save(out, step)
    else:
        check_unused(context, "for a table", "step", "half_life", "group_key", "use_kl_in_reward")
        history = GroupHistoryManager.load(file)
        write_history_table(history, out)
    text = f"{out}: {history.num_groups:,} groups, {history.total_count:,} rewards"
    if out.suffix != ".parquet" and history.config.half_life is not None:
        text += f"; to convert the table back, pass --half-life {history.config.half_life:g}"
    emit(text, {"out": str(out), "groups": history.num_groups, "rewards": history.total_count}, as_json)


def _check_folder(out: Path) -> None:
    if not out.parent.is_dir():
        raise ConfigError(f"--out {out}: no folder {out.parent}")


def _table(history: GroupHistoryManager) -> pd.DataFrame:
    return history.to_frame().assign(within_std=history.statistics(history.groups).within_std)


def _rows(table: pd.DataFrame, top: int) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.head(top or len(table)).to_dict("records")]


def _listing(table: pd.DataFrame, top: int) -> str:
    return format_table(table, digits=4, most=top or None, left="more; --top 0 shows all")
