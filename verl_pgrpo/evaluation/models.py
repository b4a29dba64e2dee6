# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Find the weights, and the LoRA adapter if there is one, that a `--model` argument names.

Layouts, `STEP` being a `global_step_N` folder of verl:

    config.json, *.safetensors               a Hugging Face folder
    the same with lora_adapter/ in it        verl's merger on a LoRA checkpoint: base weights and adapter
    adapter_config.json, adapter_model.*     a PEFT folder; the base is the folder around it, or the one that it names
    STEP/actor/huggingface                   weights saved with `checkpoint.save_contents=[hf_model]` (FSDP)
    STEP/actor/model/huggingface             the same by Megatron; with LoRA only an adapter/ in it
    STEP/actor/lora_adapter                  the adapter, as verl before 0.9 saved it next to the shards
    STEP/actor with shards only              an error with the command that merges them

A folder with an adapter is never evaluated without it.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from verl_pgrpo.errors import DataError

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
ADAPTERS = ("lora_adapter", "adapter")


@dataclass(frozen=True)
class Model:
    """A model to evaluate. `path` has the weights; `adapter`, if any, is a PEFT folder to apply to them."""

    name: str
    path: Path
    adapter: Path | None = None
    lora_rank: int = 0


def parse_names(arguments: list[str], option: str) -> list[tuple[str, Path]]:
    """Split `PATH` or `NAME=PATH` arguments; the default name is the last distinctive part of the path.

    Raises:
        DataError: A name that cannot be a file name, or a repeated one.
    """
    found: dict[str, Path] = {}
    for argument in arguments:
        before, equals, behind = argument.partition("=")
        name, path = (before, Path(behind)) if equals and "/" not in before else ("", Path(argument))
        name = name or _default_name(path)
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise DataError(f"{option} {argument}: {name!r} cannot be a file name; give NAME=PATH")
        if name in found:
            raise DataError(f"{option} {argument}: the name {name!r} is used twice; give NAME=PATH")
        found[name] = path
    return list(found.items())


def _default_name(path: Path) -> str:
    if path.suffix == ".jsonl":
        return path.stem
    generic = ("actor", "huggingface", "merged", "model", *ADAPTERS)
    return next((part for part in reversed(path.resolve().parts) if part not in generic), "")


def find_model(name: str, path: Path) -> Model:
    """Find the weights and the adapter in a folder.

    Raises:
        DataError: There are none, or they are not usable; the message explains how to make them usable.
    """
    where = f"--model {path}"
    if not path.exists():
        raise DataError(f"{where}: no such folder; for a model on the Hub: hf download ORG/NAME --local-dir {path}")
    if not path.is_dir():
        raise DataError(f"{where}: a file; name the folder with config.json and the weights")
    if _is_adapter(path):
        return _with_adapter(name, path, where)
    actor = next((one for one in (path, *path.parents[:2]) if one.name == "actor"), path / "actor")
    for folder in (path, actor / "huggingface", actor / "model" / "huggingface", path / "huggingface"):
        adapter = next(filter(_is_adapter, (folder / ADAPTERS[0], folder / ADAPTERS[1], actor / "lora_adapter")), None)
        if adapter is not None:
            return _with_adapter(name, adapter, where, folder)
        if _has_weights(folder):
            _check_merged(folder, where)
            return Model(name, folder)
    raise DataError(_explain_missing(path, actor, where))


def _with_adapter(name: str, adapter: Path, where: str, folder: Path | None = None) -> Model:
    """The adapter on the weights of `folder` or of the folder around it, else on the base that its config names."""
    try:
        config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
        rank, alpha, named = int(config["r"]), config["lora_alpha"], config.get("base_model_name_or_path")
        patterns = [name for name in ("rank_pattern", "alpha_pattern") if config.get(name)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where}: {adapter}/adapter_config.json does not describe a LoRA adapter ({error!r})"
        ) from error
    if not alpha:
        raise DataError(
            f"{where}: lora_alpha is 0 in {adapter}/adapter_config.json, so the adapter has no effect; set it to the "
            "alpha of the training (verl's merger writes 0 if lora_train_meta.json is missing)"
        )
    if patterns:
        raise DataError(
            f"{where}: vLLM ignores {patterns[0]} in {adapter}/adapter_config.json and would scale the adapter wrong; "
            "merge it into the weights with PEFT's merge_and_unload"
        )
    candidates = [folder, adapter.parent, Path(named) if named else None]
    base = next((one for one in candidates if one is not None and _has_weights(one)), None)
    if base is None:
        raise DataError(
            f"{where}: no base weights for the adapter {adapter} (base_model_name_or_path is {named!r}); set it in "
            "adapter_config.json to the folder of the base model"
        )
    _check_merged(base, where)
    return Model(name, base, adapter, rank)


def _is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def _has_weights(folder: Path) -> bool:
    return (folder / "config.json").is_file() and any(
        not file.name.startswith("adapter_model") for pattern in WEIGHTS for file in folder.glob(pattern)
    )


def _check_merged(folder: Path, where: str) -> None:
    """Raise DataError for weights under PEFT's names: verl saves a LoRA model as hf_model without merging it."""
    from safetensors import SafetensorError, safe_open

    names: list[str] = []
    for file in folder.glob("*.safetensors"):
        with contextlib.suppress(SafetensorError), safe_open(file, framework="np") as weights:  # vLLM reports damage
            names += weights.keys()
    if any("lora_" in name or ".base_layer." in name for name in names):
        raise DataError(
            f"{where}: the weights in {folder} are those of an unmerged LoRA model, which vLLM cannot load; merge the "
            f"shards instead: {_merge_command('fsdp', folder.parent)}"
        )


def _merge_command(backend: str, actor: Path) -> str:
    paths = {"--backend": backend, "--local_dir": actor, "--target_dir": actor.parent / "merged"}
    options = " ".join(f"{name} {shlex.quote(str(value))}" for name, value in paths.items())
    return f"python -m verl.model_merger merge {options}, then name {actor.parent / 'merged'}"


def _explain_missing(path: Path, actor: Path, where: str) -> str:
    for backend, mark in (("fsdp", "fsdp_config.json"), ("megatron", "model/dist_ckpt"), ("megatron", "dist_ckpt")):
        for folder in (actor, path):
            if (folder / mark).exists():
                command = _merge_command(backend, folder)
                return f"{where}: sharded weights, which vLLM cannot load; merge them: {command}"
    if steps := sorted(path.glob("global_step_*"), key=lambda step: (len(step.name), step.name)):
        return f"{where}: holds {len(steps)} checkpoints; name one, such as {steps[-1]}"
    what = "weights (*.safetensors)" if (path / "config.json").is_file() else "config.json"
    return f"{where}: no {what} in it; it must be a Hugging Face folder, a PEFT folder or a verl checkpoint"
