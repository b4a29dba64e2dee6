# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A grouping on disk: JSON with a checksum. Numbers and names only, so reading one runs nobody's code.

JSON keeps a float64 exactly (Python writes the shortest text that reads back as the same number).
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from verl_pgrpo.data.errors import DataError
from verl_pgrpo.data.grouping.model import PARAMETERS, GroupModel

FORMAT = "verl-pgrpo preference groups"
VERSION = 1
WHOLE_NUMBERS = ("example_cluster", "known", "known_cluster")


def save_groups(model: GroupModel, path: Path) -> None:
    """Write the artefact; under its name only when it is whole."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "algorithm": model.algorithm,
        "features": list(model.features),
        "columns": list(model.columns),
        "id_column": model.id_column,
        "groups": list(model.groups),
        "sizes": list(model.sizes),
        "seed": model.seed,
        "cluster_group": model.cluster_group.tolist(),
        "choice": model.choice,
        "mean": model.mean.tolist(),
        "scale": model.scale.tolist(),
        "parameters": {name: values.tolist() for name, values in model.parameters.items()},
    }
    content["sha256"] = _checksum(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, allow_nan=False, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def load_groups(path: Path) -> GroupModel:
    """Read an artefact back.

    Raises:
        DataError: no such file, no artefact, a later version, altered since it was written, or not consistent.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; `verl-pgrpo groups fit` makes one")
    try:
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a grouping ({str(error)[:120]}); was it cut off?") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: not a grouping of `verl-pgrpo groups fit`")
    if content.get("version") != VERSION:
        raise DataError(f"{path}: version {content.get('version')!r}; this program reads version {VERSION}")
    if content.pop("sha256", None) != _checksum(content):
        raise DataError(f"{path}: altered or damaged since it was written (the checksum does not fit); fit it again")
    try:
        return _model(content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: not consistent ({type(error).__name__}: {str(error)[:120]}); fit it again") from error


def _model(content: dict[str, Any]) -> GroupModel:
    algorithm = content["algorithm"]
    parameters = {
        name: np.array(content["parameters"][name], dtype=np.int64 if name in WHOLE_NUMBERS else np.float64)
        for name in PARAMETERS[algorithm]
    }
    model = GroupModel(
        algorithm=algorithm,
        features=tuple(map(str, content["features"])),
        mean=np.array(content["mean"], dtype=np.float64),
        scale=np.array(content["scale"], dtype=np.float64),
        parameters=parameters,
        cluster_group=np.array(content["cluster_group"], dtype=np.int64),
        groups=tuple(map(str, content["groups"])),
        sizes=tuple(map(int, content["sizes"])),
        seed=int(content["seed"]),
        id_column=content["id_column"],
        choice=list(content["choice"]),
        columns=tuple(map(str, content["columns"])),
    )
    width = (len(model.features),)
    if model.mean.shape != width or model.scale.shape != width or len(model.sizes) != len(model.groups):
        raise ValueError("shapes differ")
    if any(name in parameters and parameters[name].shape[1:] != width for name in ("centers", "examples", "variances")):
        raise ValueError("shapes differ")
    if not (model.cluster_group.min() >= 0 and model.cluster_group.max() < len(model.groups)):
        raise ValueError("a cluster without a group")
    clusters = next(parameters[name] for name in ("example_cluster", "shares", "centers") if name in parameters)
    needed = int(clusters.max()) + 1 if algorithm == "hdbscan" else len(clusters)
    if needed > len(model.cluster_group):
        raise ValueError("a cluster without a group")
    return model


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")
