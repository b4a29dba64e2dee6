# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""From what a user names on the command line to arms that have been read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.progress import progress
from verl_pgrpo.metrics import metric_label
from verl_pgrpo.report.comparison import Arm, Comparison, Run
from verl_pgrpo.report.dumps import dump_files, read_step
from verl_pgrpo.report.responses import Collector, Groups, Responses, find_groups, has_utility
from verl_pgrpo.report.run_folder import RunFolder, Series, find_run, read_metrics
from verl_pgrpo.report.settings import same_setting

PREFIXES = ("pgrpo/", "val-core/")  # of the metrics that the page is made of
Found = tuple[str | None, RunFolder]  # the name that the user gave, and the run


def named_runs(words: Sequence[str], metrics: Sequence[str] = ()) -> list[Found]:
    """`NAME=RUN`, `NAME=RUN1,RUN2` or `RUN`, and `NAME=FILE` for metrics that lie elsewhere.

    Raises:
        DataError: a run or a file is not there, or no run has that name.
    """
    logs: dict[str, list[Path]] = {}
    for word in metrics:
        name, equals, file = word.partition("=")
        if not equals:
            raise DataError(f"--metrics takes NAME=FILE, such as grpo=my_project/grpo.jsonl, not {word!r}")
        logs.setdefault(name, []).append(Path(file))
    found: list[Found] = []
    for word in words:
        label, paths = _named(word)
        for path in paths:
            log = logs[label].pop(0) if label is not None and logs.get(label) else None
            found.append((label, find_run(path, log)))
    left = [name for name, files in logs.items() if files]
    if left:
        raise DataError(f"--metrics {left[0]}=...: no run of that name is left to have it")
    if len({folder.path.resolve() for _, folder in found}) < len(found):
        raise DataError("a run is named twice; each is one seed of one arm")
    return found


def _named(word: str) -> tuple[str | None, list[Path]]:
    if Path(word).exists():
        return None, [Path(word)]
    name, equals, rest = word.partition("=")
    if not equals or not name or not rest:
        return None, [Path(word)]
    return name, [Path(rest)] if Path(rest).exists() else [Path(part) for part in rest.split(",")]


def read_arms(
    found: Sequence[Found],
    data: Sequence[Path] = (),
    field: str | None = None,
    key: str | None = None,
    value: str = "auto",
    baseline: str | None = None,
) -> tuple[Comparison, list[Groups | None]]:
    """Read every run, and compare.

    Returns: the comparison; and of each arm's first run where its responses' preference groups stand.

    Raises:
        DataError: no preference groups, no such value, no such baseline, or a damaged file.
    """
    logged = [_read_log(folder) for _, folder in found]
    key = key or _group_key([folder for _, folder in found])
    places = [_groups_of(folder, log, data, field, key) for (_, folder), log in zip(found, logged, strict=True)]
    if value == "auto":
        all_known = all(
            place is not None and has_utility(folder) for (_, folder), place in zip(found, places, strict=True)
        )
        value = "utility" if all_known else "standardized"
    collector = Collector("score" if value == "standardized" else value)
    read: list[Run | None] = [None] * len(found)
    # Runs with dumps first: they know the groups' real labels, of which metrics have a shortened form.
    for i in sorted(range(len(found)), key=lambda i: places[i] is None):
        folder, place = found[i][1], places[i]
        if place is not None:
            responses = _read_dumps(collector, folder, place)
        else:
            responses = collector.metrics(logged[i], {metric_label(label): label for label in collector.labels})
        _check(folder, responses, value)
        read[i] = _run(folder, logged[i], responses, collector.labels)
    arms = _arms([(name, run) for (name, _), run in zip(found, read, strict=True) if run is not None])
    if baseline is not None and baseline not in [arm.label for arm in arms]:
        names = ", ".join(arm.label for arm in arms)
        raise DataError(f"--baseline {baseline!r}: the arms are {names}")
    compared = Comparison(arms, collector.labels, value, baseline)
    of_path = {folder.path: place for (_, folder), place in zip(found, places, strict=True)}
    return compared, [of_path[arm.runs[0].folder.path] for arm in arms]


def _read_log(folder: RunFolder) -> dict[str, Series]:
    found: dict[str, Series] = {}
    for prefix in PREFIXES:
        found.update(read_metrics(folder.metrics, prefix))
    return found


def _group_key(folders: list[RunFolder]) -> str:
    """The column that the runs normalised by; of runs that differ, as controls do, the usual one."""
    keys = dict.fromkeys(
        folder.group_key for folder in folders if folder.option("algorithm.adv_estimator", "pgrpo") == "pgrpo"
    )
    return next(iter(keys), "preference_group") if len(keys) < 2 else "preference_group"


def _groups_of(
    folder: RunFolder, log: dict[str, Series], data: Sequence[Path], field: str | None, key: str
) -> Groups | None:
    if folder.rollouts is None:
        return None
    place = find_groups(folder, data, field, key)
    if place is None and not any(name.endswith("/reward") or name.startswith("val-core/") for name in log):
        raise DataError(
            f"{folder.path}: which preference group its responses are of stands neither in the rollouts nor beside "
            "them; name the training data with --data train.parquet, or the place in the dumps: --group-field gts.user"
        )
    return place


def _read_dumps(collector: Collector, folder: RunFolder, place: Groups) -> Responses:
    assert folder.rollouts is not None
    files = dump_files(folder.rollouts)
    with progress(folder.path.name, len(files), unit=" steps") as bar:
        return collector.dumps(bar.update() or read_step(path, place) for path in files)


def _run(folder: RunFolder, log: dict[str, Series], responses: Responses, labels: list[str]) -> Run:
    """A control may have normalised by groups that only share their names with those compared: then the rewards that
    its log has of a group are not those of the group's responses. Of such a run no history is shown.
    """
    same, other = 0, 0
    for code, label in enumerate(labels[:20] if responses.source == "rollouts" else []):
        steps, means = log.get(f"pgrpo/{metric_label(label)}/reward", (np.zeros(0), np.zeros(0)))
        own = responses.groups == code
        at, place = np.unique(responses.steps[own], return_inverse=True)
        found = np.bincount(place, responses.reward[own]) / np.bincount(place)
        _, i, j = np.intersect1d(at, steps, return_indices=True)
        near = np.abs(found[i] - means[j]) <= 1e-3 * (np.abs(found[i]) + 1e-3)
        same, other = same + int(near.sum()), other + int((~near).sum())
    if other <= same:
        return Run(folder, log, responses)
    kept = {name: series for name, series in log.items() if name.count("/") == 1 or not name.startswith("pgrpo/")}
    return Run(replace(folder, history=None), kept, responses, other_groups=True)


def _check(folder: RunFolder, responses: Responses, value: str) -> None:
    if not len(responses.steps):
        known = "neither rollouts nor metrics tell of preference groups"
        if responses.unknown:
            known = f"none of its {responses.unknown:,} responses is of a known preference group"
        raise DataError(f"{folder.path}: {known}; name the training data with --data, or --group-field")
    if not (responses.value == responses.value).any():
        raise DataError(f"{folder.path}: its rollouts have no number {value!r}; --value score is in all of them")


def _arms(runs: list[tuple[str | None, Run]]) -> list[Arm]:
    """Runs of one name are seeds; without a name, those of one estimator and otherwise equal configuration."""
    arms: dict[str, Arm] = {}
    for name, run in runs:
        estimator, folder = run.folder.estimator(run.series), run.folder
        if name is None:
            place = folder.path.parent if folder.path.name == "rollouts" else folder.path
            name = estimator or place.resolve().name.removesuffix(".jsonl")
            if estimator == "pgrpo" and "random" in folder.group_key:
                name += "_random_groups"
            if name in arms and not same_setting(arms[name].runs[0].folder, folder):
                name = f"{name} ({place.resolve().name})"
        arms.setdefault(name, Arm(name, estimator)).runs.append(run)
    return list(arms.values())
