# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Load the runs that a user names into arms of an experiment."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from verl_pgrpo.errors import DataError, HistoryFileError
from verl_pgrpo.evaluation.metrics_log import MetricsLog
from verl_pgrpo.evaluation.rollouts import GroupLookup, groups_from_data, groups_from_field, read_dump
from verl_pgrpo.history import GroupHistoryManager
from verl_pgrpo.monitoring import metric_label
from verl_pgrpo.report.comparison import CELLS, Arm, Comparison, Run
from verl_pgrpo.report.configuration import same_settings
from verl_pgrpo.report.run_folder import RunFolder, find_run
from verl_pgrpo.rewards import movielens_stars, personas

GROUP_FIELDS = ("preference_group", "gts.preference_group", "gts.persona", "gts.group")  # tried in this order


def load_runs(
    names: Sequence[str],
    data: Sequence[Path] = (),
    group_field: str | None = None,
    group_key: str | None = None,
    value: str = "auto",
    baseline: str | None = None,
    metrics: Sequence[str] = (),
) -> Comparison:
    """Read runs and compare them.

    Args:
        names: runs, each given as `RUN`, `NAME=RUN` or `NAME=RUN1,RUN2`.
        data: training data with the preference groups; found by itself if the configuration names it.
        group_field: alternatively, the field of the dumps with the preference groups.
        group_key: column of the preference group in `data`.
        value: what to compare: "utility", "score", "standardized", a field of the dumps, or "auto" (utility if all runs
            have it, else standardized).
        baseline: the arm that others are compared with.
        metrics: metrics files that are elsewhere, given as `NAME=FILE`.

    Raises:
        DataError: no such run, file, value or baseline; no preference groups; or a damaged file.
    """
    labels, folders = zip(*_find_runs(names, metrics), strict=True)
    key = group_key or _group_key(folders)
    default = next(filter(None, (folder.option("algorithm.pgrpo.default_group") for folder in folders)), None)
    groups = [_find_groups(folder, data, group_field, key, default) for folder in folders]
    if value == "auto":
        with_utility = [place is not None and _has_utility(run) for place, run in zip(groups, folders, strict=True)]
        value = "utility" if all(with_utility) else "standardized"
    if value not in ("score", "standardized") and None in groups:
        path = folders[groups.index(None)].path
        raise DataError(
            f"{path}: the groups of its responses are unknown, and its metrics have no {value!r}; give the training "
            "data (--data) or a field of the dumps (--group-field)"
        )
    runs: dict[int, Run] = {}
    # Metrics have shortened labels. The full ones are in histories, and in dumps, which are therefore read first.
    without_dumps = [folder for folder, place in zip(folders, groups, strict=True) if place is None]
    full = {metric_label(label): label for folder in without_dumps for label in _history_groups(folder)}
    for i in sorted(range(len(folders)), key=lambda i: groups[i] is None):
        place = groups[i]
        if place is not None:
            runs[i] = _without_other_groups(_read_dumps(folders[i], place, value), key)
            full |= {metric_label(label): label for label in runs[i].cells["group"].unique()}
        else:
            runs[i] = _read_metrics(folders[i], full)
        _check(runs[i], value)
    arms = _arms((label, runs[i]) for i, label in enumerate(labels))
    if baseline is not None and baseline not in [arm.label for arm in arms]:
        raise DataError(f"--baseline {baseline!r}: the arms are {', '.join(arm.label for arm in arms)}")
    return Comparison(arms, value, baseline)


def values_of(rows: pd.DataFrame, name: str) -> pd.Series:
    """A number of each dumped response, NaN where it has none.

    `name` is a field of the dump, "standardized" (the score), or "utility", which for personas and the task "stars" is
    computed from the text if the dump lacks it.
    """
    if name in ("score", "standardized"):
        return rows["score"]
    known = rows[name].map(_number) if name in rows else pd.Series(math.nan, index=rows.index)
    if name == "utility":
        computed = [_utility(text, truth) for text, truth in zip(rows["output"], rows["gts"], strict=True)]
        known = known.fillna(pd.Series(computed, index=rows.index, dtype="float64"))
    return known.astype("float64")


def group_metrics(log: MetricsLog, what: str) -> dict[str, pd.Series]:
    """The metrics `pgrpo/group/<name>/<what>`, by name."""
    prefix, suffix = "pgrpo/group/", f"/{what}"
    names = [name for name in map(str, log.frame) if name.startswith(prefix) and name.endswith(suffix)]
    return {name[len(prefix) : -len(suffix)]: log.series(name) for name in names}


def _find_runs(names: Sequence[str], metrics: Sequence[str]) -> list[tuple[str | None, RunFolder]]:
    """Each run with the name of its arm, None if not given."""
    logs: dict[str | None, list[Path]] = {}
    for text in metrics:
        name, equals, file = text.partition("=")
        if not equals:
            raise DataError(f"--metrics takes NAME=FILE, such as grpo=my_project/grpo.jsonl (got {text!r})")
        logs.setdefault(name, []).append(Path(file))
    found: list[tuple[str | None, RunFolder]] = []
    for text in names:
        name, _, rest = text.partition("=")
        label = name if name and rest and not Path(text).exists() else None
        paths = [text] if label is None else [rest] if Path(rest).exists() else rest.split(",")
        for path in paths:
            files = logs.get(label, [])
            found.append((label, find_run(Path(path), files.pop(0) if files else None)))
    for left in (label for label, files in logs.items() if files):
        raise DataError(f"--metrics {left}=...: no run with this name is left to use it")
    if len({(folder.rollouts or folder.path).resolve() for _, folder in found}) < len(found):
        raise DataError("a run is named twice; every run is one seed of one arm")
    return found


def _group_key(folders: Iterable[RunFolder]) -> str:
    """The column by which the runs normalized; if they differ, as with controls, the default one."""
    keys = {folder.group_key for folder in folders if folder.option("algorithm.adv_estimator", "pgrpo") == "pgrpo"}
    return keys.pop() if len(keys) == 1 else "preference_group"


def _find_groups(
    folder: RunFolder, data: Sequence[Path], field: str | None, key: str, default_group: str | None
) -> GroupLookup | None:
    """Find the preference groups of a run's responses: as the user specifies, in the dumps, or in the training data."""
    if folder.dumps is None:
        return None
    if data:
        return groups_from_data(data, key, default_group)
    if field:
        return groups_from_field(field)
    rows: list[Any] = _first_responses(folder).to_dict("records")
    for name in GROUP_FIELDS if key == "preference_group" else ():
        groups = groups_from_field(name)
        if rows and all(groups(row) is not None for row in rows):
            return groups
    named = folder.option("data.train_files", [])
    files = [Path(str(file)) for file in (named if isinstance(named, list) else [named])]
    nearby = ("train.parquet", "data/train.parquet", "../data/train.parquet")
    for choice in (files, *([folder.path / name] for name in nearby)):
        if choice and all(file.is_file() for file in choice):
            try:
                return groups_from_data(choice, key, default_group)
            except DataError:  # a run without P-GRPO may use data without groups
                continue
    if group_metrics(folder.log, "reward"):
        return None
    if not rows:
        raise DataError(f"{folder.path}: its rollouts are empty")
    raise DataError(
        f"{folder.path}: the preference groups of its responses are neither in the rollouts nor in training data "
        "nearby; give the training data (--data train.parquet) or a field of the dumps (--group-field gts.user)"
    )


def _has_utility(folder: RunFolder) -> bool:
    return bool(values_of(_first_responses(folder), "utility").notna().any())


def _first_responses(folder: RunFolder) -> pd.DataFrame:
    """The responses of the first dump that has any."""
    assert folder.dumps is not None
    frames = (read_dump(file, groups_from_field("preference_group")) for file in folder.dumps.files.values())
    return next((rows for rows in frames if len(rows)), pd.DataFrame(columns=["output", "gts"]))


def _read_dumps(folder: RunFolder, groups: GroupLookup, value: str) -> Run:
    assert folder.dumps is not None
    steps = []
    for file in tqdm(folder.dumps.files.values(), desc=folder.name, unit=" steps", disable=None):
        rows = read_dump(file, groups)
        steps.append(rows.assign(value=values_of(rows, value))[["step", "group", "value"]])
    rows = pd.concat(steps, ignore_index=True)
    known, finite = rows["group"].notna(), np.isfinite(rows["value"])
    values = rows[known & finite].groupby(["step", "group"], sort=False)["value"]
    cells = {"count": values.size(), "rows": values.size(), "value": values.mean()}
    cells["m2"] = values.var(ddof=0) * cells["count"]
    unknown, missing = int((~known).sum()), int((known & ~finite).sum())
    return Run(folder, pd.DataFrame(cells).reset_index(), groups, unknown, missing)


def _history_groups(folder: RunFolder) -> list[str]:
    """Return the groups in the newest checkpoint. Without one, or if it is damaged (reported later), there are none."""
    if folder.history is None:
        return []
    try:
        return GroupHistoryManager.load(folder.history[1]).groups
    except HistoryFileError:
        return []


def _read_metrics(folder: RunFolder, labels: Mapping[str, str]) -> Run:
    """Group means from P-GRPO's metrics (`labels`: name in metrics to label)."""
    counts = group_metrics(folder.log, "count")
    frames = []
    for name, rewards in group_metrics(folder.log, "reward").items():
        count = _new_responses(counts[name], rewards.index) if name in counts else 1.0
        own = {"step": rewards.index, "value": rewards.to_numpy(), "count": count, "rows": 1, "m2": 0.0}
        frames.append(pd.DataFrame({**own, "group": labels.get(name, name)}))
    cells = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=CELLS)
    finite = np.isfinite(cells["value"].astype("float64"))
    return Run(folder, cells[finite], missing=int((~finite).sum()))


def _new_responses(count: pd.Series, steps: pd.Index) -> Any:
    """Return how many rewards a group got in each step, from the size of its history; 1 where unknown.

    The first step counts like a typical one, because the history may be that of a resumed run.
    """
    new = count.diff()
    new.iloc[0] = min(count.iloc[0], new.median() if len(new) > 1 else 1.0) if count.index[0] > 1 else count.iloc[0]
    return new[new > 0].reindex(steps, fill_value=1.0).to_numpy()


def _without_other_groups(run: Run, key: str) -> Run:
    """Drop the history of a control that normalized by another column than that of the groups compared."""
    folder = run.folder
    if folder.estimator != "pgrpo" or not folder.config or folder.group_key == key:
        return run
    kept = [name for name in map(str, folder.log.frame) if not name.startswith("pgrpo/group/")]
    log = replace(folder.log, frame=folder.log.frame[kept])
    return replace(run, folder=replace(folder, histories={}, log=log), other_groups=True)


def _check(run: Run, value: str) -> None:
    if not run.cells.empty:
        return
    path = run.folder.path
    if run.missing:
        raise DataError(f"{path}: its rollouts have no number {value!r}; --value score always exists")
    reason = "neither rollouts nor metrics name preference groups"
    if run.unknown:
        reason = f"none of its {run.unknown:,} responses has a known preference group"
    raise DataError(f"{path}: {reason}; give the training data (--data) or a field of the dumps (--group-field)")


def _arms(runs: Iterable[tuple[str | None, Run]]) -> list[Arm]:
    """Runs with the same name are seeds; without names, those with the same estimator and otherwise equal settings."""
    arms: dict[str, Arm] = {}
    names: dict[str, str] = {}  # of each arm, without what makes it unique
    for label, run in runs:
        folder = run.folder
        random = folder.estimator == "pgrpo" and "random" in folder.group_key
        name = label or f"{folder.estimator or folder.name}{'_random_groups' if random else ''}"
        if label is None:
            alike = (own for own in arms if names[own] == name and same_settings(arms[own].runs[0].folder, folder))
            choices = (name, f"{name} ({folder.name})", f"{name} ({folder.path})")
            label = next(alike, None) or next(choice for choice in choices if choice not in arms)
        names.setdefault(label, name)
        arms.setdefault(label, Arm(label, folder.estimator)).runs.append(run)
    return list(arms.values())


def _number(value: Any) -> float:
    try:
        return float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an integer of hundreds of digits
        return math.nan


def _utility(text: Any, truth: Any) -> float:
    if not isinstance(truth, str):
        return math.nan
    try:
        if truth.startswith('{"stars"'):
            return movielens_stars.compute_score("movielens_stars", str(text), truth)["utility"]
        return personas.utility(str(text), truth) if '"persona"' in truth else math.nan
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):  # not the rewards' own ground truth
        return math.nan
