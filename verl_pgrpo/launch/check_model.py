# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The model of a launch: its files are there, verl can read them, and its chat template takes the prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from verl_pgrpo.errors import ConfigError

from .finding import Found
from .model_files import missing_weights, model_of_config
from .models import model_of
from .run import Run

KEY = "actor_rollout_ref.model.path"
SAMPLE = 256  # prompts that go through the chat template


def check_model(run: Run, found: Found) -> None:
    named = run.config.actor_rollout_ref.model.path or ""
    if run.settings.model_config is not None:
        run.model = model_of_config(run.settings.model_config)
    if not named:
        return  # said with the configuration
    if named.startswith("hdfs://"):
        found.warning(f"not looked into: {named} is not on this machine", KEY, "check a local copy")
        return
    folder = _folder(named)
    if folder is None and _is_path(named):
        hint = "verl does not expand ~: write $HOME" if named.startswith("~") else "mend the path"
        found.error(f"there is no folder {named}, seen from {Path.cwd()}", KEY, hint)
    elif folder is None:
        _look_up(run, named, found)
    elif not (folder / "config.json").exists():
        found.error(f"{folder} has no config.json: it is no model's folder", KEY, "mend the path")
    else:
        if missing := missing_weights(folder):
            found.error(f"weights of the model are missing: {missing}", f"{KEY}={folder}", "download the model again")
        _read(run, folder, found)
        _check_prompts(run, found)


def _folder(named: str) -> Path | None:
    """The model on this machine: a folder, or what the Hugging Face hub's cache has, if that is the whole model."""
    if Path(named).is_dir():
        return Path(named)
    cached = _cached_config(named)
    return cached.parent if cached is not None and missing_weights(cached.parent) is None else None


def _cached_config(named: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(named, "config.json")
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def _is_path(named: str) -> bool:
    """Whether this means a folder: a name on the hub has one slash at most, and is not below a folder here."""
    return named[:1] in "/.~" or named.count("/") > 1 or (named.count("/") == 1 and Path(named).parent.is_dir())


def _look_up(run: Run, named: str, found: Found) -> None:
    if run.model is None:
        try:
            cached = _cached_config(named)
            run.model = model_of_config(cached) if cached is not None else model_of(named)
        except ConfigError:
            found.warning(
                f"the model {named} is not on this machine, so that its sizes are unknown",
                KEY,
                "give its configuration: --model-config config.json",
            )
            return
    said = f"the model {named} is not on this machine: its weights, tokenizer and chat template were not looked at"
    found.note(said, KEY)


def _read(run: Run, folder: Path, found: Found) -> None:
    """As verl's workers read it, weights apart."""
    from verl.utils.config import omega_conf_to_dataclass

    try:
        if run.model is None:
            run.model = model_of_config(folder)
    except ConfigError as error:
        found.warning(f"{error}: what depends on its sizes was not checked", KEY, "check it by hand")
    model = OmegaConf.create(OmegaConf.to_container(run.config.actor_rollout_ref.model, resolve=True))
    model.path, model.use_shm = str(folder), False
    try:
        read = omega_conf_to_dataclass(model)
    except Exception as error:
        found.raised(error, f"{KEY}={folder}", "verl's workers would fail on this: mend the model's files or settings")
        return
    if read.processor is None:
        run.tokenizer = read.tokenizer
    longest = getattr(read.hf_config.get_text_config(), "max_position_embeddings", None)
    rollout, data = run.config.actor_rollout_ref.rollout, run.config.data
    wanted = rollout.max_model_len or data.max_prompt_length + data.max_response_length
    if longest and wanted > longest and _plain_positions(read.hf_config.get_text_config()):
        said = f"prompt and response may have {wanted} tokens, the model knows {longest} positions: vLLM refuses that"
        where = "data.max_prompt_length, data.max_response_length, actor_rollout_ref.rollout.max_model_len"
        found.error(said, where, f"at most {longest} together")


def _plain_positions(config: Any) -> bool:
    """Whether positions are not stretched (YaRN and others), which moves vLLM's limit."""
    scaling = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return (scaling.get("rope_type") or scaling.get("type") or "default") == "default"


def _check_prompts(run: Run, found: Found) -> None:
    """The first prompts through the chat template. verl cuts the beginning of what is too long."""
    split = run.splits.get("training")
    if run.tokenizer is None or split is None or split.prompts is None:
        return
    from verl.utils.tokenizer import normalize_token_ids

    table = split.files.take(range(min(SAMPLE, split.files.rows)), [split.prompts])
    data = run.config.data
    options: Any = OmegaConf.to_container(data.apply_chat_template_kwargs, resolve=True)
    lengths, refused, reason = [], [], None
    for row, messages in enumerate(table[split.prompts].to_pylist()):
        if not messages:
            continue  # said with the data
        try:
            ids = run.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, **options)
            lengths.append(len(normalize_token_ids(ids)))
        except Exception as error:
            refused.append(row)
            reason = reason or error
    where = f"{split.where}, column {split.prompts}"
    if refused:
        said = f"the model's chat template refuses {len(refused)} of the first {len(table)} prompts (row {refused[0]}: "
        found.error(f"{said}{type(reason).__name__}: {reason})", where, "write the messages as this model wants them")
    long = [length for length in lengths if length > data.max_prompt_length]
    if long:
        consequence = "are dropped" if data.filter_overlong_prompts else "lose their beginning"
        said = f"{len(long)} of the first {len(lengths)} prompts {consequence}: they have up to {max(long)} tokens"
        fix = f"data.max_prompt_length={max(long)} (now {data.max_prompt_length})"
        if data.filter_overlong_prompts and len(long) == len(lengths):
            found.error(said, where, fix)  # nothing would be left to train on
        else:
            found.warning(said, where, fix)
