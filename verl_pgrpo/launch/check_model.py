# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The model of a launch: its files are there, verl can read them, and its chat template takes the prompts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from verl_pgrpo.errors import ConfigError

from .finding import Found
from .model_files import cached_config, local_folder, means_folder, missing_weights, model_of_config
from .models import model_of
from .run import Run, Split

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
    folder = local_folder(named)
    if folder is None and means_folder(named):
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


def _look_up(run: Run, named: str, found: Found) -> None:
    if run.model is None:
        try:
            cached = cached_config(named)
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
    """The first prompts through the chat template."""
    for split in run.splits.values():
        if run.tokenizer is not None and split.prompts is not None:
            _check_first_prompts(run, split, split.prompts, found)
            _check_media(run, split, found)


def _check_media(run: Run, split: Split, found: Found) -> None:
    """Pictures and the like for a model of text: verl's dataset asserts that it has a processor for them."""
    for kind in ("image", "video", "audio"):
        column = str(run.config.data.get(f"{kind}_key", f"{kind}s"))
        if split.files.type_of(column) is None:
            continue
        rows = split.files.take(range(min(SAMPLE, split.files.rows)), [column])[column].to_pylist()
        if any(rows):
            said = f"the {split.name} data has {kind}s in column {column!r}, and the model takes text alone"
            found.error(said, split.where, "a model that takes them, or drop the column")


def _check_first_prompts(run: Run, split: Split, column: str, found: Found) -> None:
    """Their format and their length: verl cuts the beginning of what is too long, or drops it."""
    from verl.utils.tokenizer import normalize_token_ids

    table = split.files.take(range(min(SAMPLE, split.files.rows)), [column])
    data = run.config.data
    options: Any = OmegaConf.to_container(data.apply_chat_template_kwargs, resolve=True)
    lengths, refused, reason = [], [], None
    for row, messages in enumerate(table[column].to_pylist()):
        if not messages:
            continue  # said with the data
        try:
            ids = run.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, **options)
            lengths.append(len(normalize_token_ids(ids)))
        except Exception as error:
            refused.append(row)
            reason = reason or error
    where, first = f"{split.where}, column {column}", f"of the first {len(table)} {split.name} prompts"
    if refused:
        said = f"the model's chat template refuses {len(refused)} {first} (row {refused[0]}: "
        found.error(f"{said}{type(reason).__name__}: {reason})", where, "write the messages as this model wants them")
    long = [length for length in lengths if length > data.max_prompt_length]
    if long:
        consequence = "are dropped" if data.filter_overlong_prompts else "lose their beginning"
        said = f"{len(long)} {first} {consequence}: they have up to {max(long)} tokens"
        fix = f"data.max_prompt_length={max(long)} (now {data.max_prompt_length})"
        if data.filter_overlong_prompts and len(long) == len(lengths):
            found.error(said, where, fix)  # nothing would be left
        else:
            found.warning(said, where, fix)
