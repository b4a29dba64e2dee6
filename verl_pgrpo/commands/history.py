# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""`verl-pgrpo history`: what is in a history file, what changed between two, two as one, to and from plain tables."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from verl_pgrpo.commands.arguments import Result, add_command, add_json, whole

if TYPE_CHECKING:
    from verl_pgrpo.history import GroupHistoryManager

SHOW_EXAMPLE = "verl-pgrpo history show runs/a/checkpoints/global_step_100/pgrpo_history.parquet"
DIFF_EXAMPLE = "verl-pgrpo history diff global_step_50/pgrpo_history.parquet global_step_100/pgrpo_history.parquet"
MERGE_EXAMPLE = "verl-pgrpo history merge older.parquet newer.parquet --out merged.parquet --step 0"
CONVERT_EXAMPLE = "verl-pgrpo history convert pgrpo_history.parquet --out history.csv"

SORTS = ("count", "mean", "std", "group")


def add_parser(commands: argparse._SubParsersAction) -> None:
    history = commands.add_parser("history", help="look into history files, compare, merge and convert them")
    inner = history.add_subparsers(dest="command", required=True, metavar="show|diff|merge|convert")

    show = add_command(inner, "show", "what is in a history file", SHOW_EXAMPLE)
    show.add_argument("file", type=Path, help="a checkpoint's pgrpo_history.parquet")
    show.add_argument("--sort", choices=SORTS, default="count", help="of the groups shown (default: %(default)s)")
    show.set_defaults(run=show_command)

    diff = add_command(inner, "diff", "what changed from one history to another", DIFF_EXAMPLE)
    diff.add_argument("old", type=Path)
    diff.add_argument("new", type=Path)
    diff.set_defaults(run=diff_command)
    for listing in (show, diff):
        listing.add_argument("--top", type=whole, default=30, help="groups shown (default: %(default)s; 0: all)")

    merge = add_command(inner, "merge", "the histories of two runs as one", MERGE_EXAMPLE)
    merge.add_argument("older", type=Path, help="with exponential statistics the order counts")
    merge.add_argument("newer", type=Path)
    merge.add_argument("--out", type=Path, required=True, help="the history file to write")
    merge.add_argument("--step", type=whole, required=True, help="training step of the checkpoint that it is for")
    merge.set_defaults(run=merge_command)

    convert = add_command(
        inner, "convert", "a history as a plain table, or a plain table as a history", CONVERT_EXAMPLE
    )
    convert.add_argument(
        "file", type=Path, help="a history, or a .csv or .jsonl with group, count, mean and m2 (or std)"
    )
    convert.add_argument("--out", type=Path, required=True, help=".csv or .jsonl of a history; .parquet of a table")
    convert.add_argument("--step", type=whole, default=0, help="of the history that is made of a table (default: 0)")
    convert.set_defaults(run=convert_command)
    for command in (show, diff, merge, convert):
        add_json(command)


def show_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.history_file import read_header

    history = _read(args.file)
    header = read_header(args.file)
    rows = _rows(history, history.groups if args.sort != "count" else history.largest(args.top or history.num_groups))
    if args.sort != "count":
        rows.sort(key=lambda row: (row[args.sort] is None, row[args.sort]), reverse=args.sort == "std")
        rows = rows[: args.top or None]
    data = {
        "file": str(args.file),
        "step": header["step"],
        "schema_version": header["schema_version"],
        "groups": history.num_groups,
        "rewards": history.total_count,
        "options": header["options"],
        "fingerprint": header["fingerprint"],
        "rows": rows,
    }
    options = ", ".join(f"{key}={value}" for key, value in history.config.history_options().items())
    title = f"{args.file}: step {header['step']}, {history.num_groups:,} groups, {history.total_count:,} rewards"
    return Result("\n".join([title, f"kept under {options}", "", *_table(rows, history.num_groups)]), data)


def diff_command(args: argparse.Namespace) -> Result:
    old, new = _read(args.old), _read(args.new)
    before, after = ({row["group"]: row for row in _rows(history, history.groups)} for history in (old, new))
    appeared, vanished = [name for name in after if name not in before], [name for name in before if name not in after]
    rows = []
    for name in before.keys() & after.keys():
        one, two = before[name], after[name]
        if one == two:
            continue
        error = _standard_error(one, two)
        moved = two["mean"] - one["mean"]
        rows.append(
            {
                "group": name,
                "count": two["count"],
                "new rewards": two["count"] - one["count"],
                "mean": two["mean"],
                "mean moved": moved,
                "in standard errors": moved / error if error else None,
                "std": two["std"],
            }
        )
    rows.sort(key=lambda row: (-abs(row["in standard errors"] or 0.0), -row["new rewards"], row["group"]))
    shown = rows[: args.top or None]
    options = {
        key: [value, new.config.history_options()[key]]
        for key, value in old.config.history_options().items()
        if value != new.config.history_options()[key]
    }
    data: dict[str, Any] = {
        "rewards": [old.total_count, new.total_count],
        "groups": [old.num_groups, new.num_groups],
        "appeared": sorted(appeared),
        "vanished": sorted(vanished),
        "unchanged": len(before.keys() & after.keys()) - len(rows),
        "options_changed": options,
        "rows": shown,
    }
    lines = [
        f"{old.total_count:,} to {new.total_count:,} rewards, {old.num_groups:,} to {new.num_groups:,} groups",
        f"{len(rows):,} changed, {data['unchanged']:,} unchanged, {len(appeared):,} new, {len(vanished):,} gone",
        *(f"option {key}: {was} before, {now} now" for key, (was, now) in options.items()),
        *_named("new", data["appeared"]),
        *_named("gone", data["vanished"]),
        "",
        *_table(shown, len(rows)),
    ]
    return Result("\n".join(lines), data)


def merge_command(args: argparse.Namespace) -> Result:
    _refuse_to_replace(args.out, args.older, args.newer)
    older, newer = _read(args.older), _read(args.newer)
    shared = len(set(older.groups) & set(newer.groups))
    older.merge(newer)
    older.save(args.out, args.step)
    data = {"out": str(args.out), "step": args.step, "groups": older.num_groups, "rewards": older.total_count}
    text = (
        f"{args.out}: {older.num_groups:,} groups ({shared:,} in both), {older.total_count:,} rewards, step {args.step}"
    )
    return Result(text, {**data, "shared": shared})


def convert_command(args: argparse.Namespace) -> Result:
    from verl_pgrpo.data.history_table import history_of_table, write_history_table

    _refuse_to_replace(args.out, args.file)
    if args.out.suffix == ".parquet":
        history = history_of_table(args.file)
        history.save(args.out, args.step)
    else:
        history = _read(args.file)
        write_history_table(history, args.out)
    data = {"out": str(args.out), "groups": history.num_groups, "rewards": history.total_count}
    text = f"{args.out}: {history.num_groups:,} groups, {history.total_count:,} rewards"
    if history.config.statistics != "cumulative":
        text += "; a table does not say that they are exponential: converted back they would be cumulative"
    return Result(text, data)


def _read(path: Path) -> GroupHistoryManager:
    from verl_pgrpo.history import GroupHistoryManager

    return GroupHistoryManager.load(path)


def _refuse_to_replace(out: Path, *sources: Path) -> None:
    from verl_pgrpo.errors import ConfigError

    if any(out.exists() and out.samefile(source) for source in sources if source.exists()):
        raise ConfigError(f"--out {out} is also what is read; give another name")


def _rows(history: GroupHistoryManager, groups: list[str]) -> list[dict[str, Any]]:
    found = history.statistics(groups)
    return [
        {"group": name, "count": int(count), "mean": float(mean), "std": None if math.isnan(std) else float(std)}
        for name, count, mean, std in zip(groups, found.count, found.mean, found.std, strict=True)
    ]


def _standard_error(one: dict[str, Any], two: dict[str, Any]) -> float:
    """Of the difference of two means, as if the rewards of the two were not the same ones: a yardstick, not a test."""
    return math.sqrt(sum((row["std"] or 0.0) ** 2 / row["count"] for row in (one, two)))


def _named(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    return [f"{what}: {', '.join(names[:10])}{f' and {len(names) - 10:,} more' if len(names) > 10 else ''}"]


def _table(rows: list[dict[str, Any]], total: int) -> list[str]:
    from verl_pgrpo.data.summary import aligned

    more = [f"({total - len(rows):,} more; --top 0 shows all)"] if total > len(rows) else []
    return [*aligned(rows, digits=4), *more]
