# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Which folder of weights a `--model` means, found out before anything is started."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from verl_pgrpo.data.errors import DataError

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class Model:
    """A model under the name that it has in tables and file names."""

    name: str
    path: Path


def models_of(arguments: list[str]) -> list[Model]:
    """`PATH` or `NAME=PATH`, each a Hugging Face folder or a verl checkpoint that has one.

    Raises:
        DataError: no such folder, no weights in it, or two models of one name.
    """
    return [Model(name, folder_of(path)) for name, path in named(arguments, "--model")]


def named(arguments: list[str], option: str) -> list[tuple[str, Path]]:
    """`PATH` or `NAME=PATH`; a name that is not given is the last part of the path that tells.

    Raises:
        DataError: a name that is no file name, or that two have.
    """
    found: list[tuple[str, Path]] = []
    for argument in arguments:
        before, equals, behind = argument.partition("=")
        name, path = (before, Path(behind)) if equals and "/" not in before else ("", Path(argument))
        name = name or _name(path)
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise DataError(f"{option} {argument}: {name!r} cannot be the name of a file; give NAME=PATH")
        if name in dict(found):
            raise DataError(f"{option} {argument}: a second one of the name {name!r}; give NAME=PATH")
        found.append((name, path))
    return found


def _name(path: Path) -> str:
    parts = [part for part in path.resolve().parts if part not in ("actor", "huggingface", "merged", "model")]
    return path.stem if path.suffix == ".jsonl" else parts[-1] if parts else ""


def folder_of(path: Path) -> Path:
    """The Hugging Face folder that is meant.

    Raises:
        DataError: there is none; of a verl checkpoint whose weights are in shards, with the command that merges them.
    """
    if not path.exists():
        raise DataError(
            f"--model {path}: no such folder; of a model on the Hub: hf download ORG/NAME --local-dir {path}"
        )
    if not path.is_dir():
        raise DataError(f"--model {path}: a file; name the folder that holds config.json and the weights")
    if (path / "config.json").is_file() and _has_weights(path):
        return path
    actor = path if path.name == "actor" else path / "actor"
    for place in (actor / "huggingface", actor / "model" / "huggingface", path / "huggingface"):
        if (place / "config.json").is_file() and _has_weights(place):
            return place
    if path.name == "huggingface" and path.parent.name in ("actor", "model"):
        actor = path.parent if path.parent.name == "actor" else path.parent.parent
    for backend, mark in (("fsdp", "fsdp_config.json"), ("megatron", "model/dist_ckpt"), ("megatron", "dist_ckpt")):
        if (actor / mark).exists():
            merged = actor.parent / "merged"
            command = ["python", "-m", "verl.model_merger", "merge", "--backend", backend]
            command += ["--local_dir", str(actor), "--target_dir", str(merged)]
            raise DataError(
                f"--model {path}: the shards of a verl checkpoint, which vLLM cannot load; merge them first: "
                f"{shlex.join(command)}, then name {merged}"
            )
    if steps := sorted(path.glob("global_step_*"), key=lambda step: (len(step.name), step.name)):
        raise DataError(f"--model {path}: holds {len(steps)} checkpoints; name one, such as {steps[-1]}")
    what = "weights (*.safetensors)" if (path / "config.json").is_file() else "config.json"
    raise DataError(f"--model {path}: no {what} in it; it must be a Hugging Face folder or a verl checkpoint")


def _has_weights(folder: Path) -> bool:
    return any(next(folder.glob(pattern), None) for pattern in WEIGHTS)
