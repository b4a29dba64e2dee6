# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Build verl's datasets and dataloaders, and look at them."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

from omegaconf import OmegaConf

from verl_pgrpo.integration.columns import check_columns

from .context import PreflightContext
from .diagnostic import Diagnostics

FILTER_LIMIT = 20_000  # rows; of a larger dataset verl's filter is run on a sample
FILTER_SAMPLE = 2_000
LENGTH_SAMPLE = 256  # rows, where verl does not filter
SKIPPED = "Error processing one of the samples"  # what verl's filter prints for a row that it cannot tokenize


@dataclass(slots=True)
class FilterResult:
    """What verl's filter of overlong prompts did: on how many of how many rows, and how many it dropped and why."""

    rows: int
    tried: int
    dropped: int
    failed: int  # of these, rows whose prompt could not be tokenized
    reason: str  # the last exception of these


def check_data(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Build both datasets, as verl does, and read their first row."""
    trainer = context.trainer
    data = trainer.config.data
    if trainer.tokenizer is None:
        data.filter_overlong_prompts = False
    trainer.train_dataset = _build(context, "train", True, diagnostics)
    trainer.val_dataset = _build(context, "val", False, diagnostics)
    for split, dataset in splits(context):
        location = where(context, split)
        if len(dataset) == 0:
            if not any(d.severity == "error" and d.location == location for d in diagnostics.found):
                diagnostics.error(f"the {split} data have no rows", location, "verl stops at an empty dataset")
            setattr(trainer, f"{split}_dataset", None)
            continue
        _check_columns(context, split, dataset, diagnostics)
        try:
            dataset[0]
        except Exception as error:
            diagnostics.raised(error, f"{location}, row 0", _row_fix(context), prefix=f"{split} row 0: ")
        _check_missing(context, split, dataset, diagnostics)


def splits(context: PreflightContext) -> Iterator[tuple[str, Any]]:
    """The datasets that could be built."""
    for split in ("train", "val"):
        dataset = getattr(context.trainer, f"{split}_dataset", None)
        if dataset is not None:
            yield split, dataset


def where(context: PreflightContext, split: str) -> str:
    files = context.get(f"data.{split}_files")
    files = list(files) if OmegaConf.is_list(files) else [files]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"data.{split}_files={files[0] if files else '[]'}{more}"


def _row_fix(context: PreflightContext) -> str:
    return f"{context.get('data.prompt_key', 'prompt')}: a list of messages [{{'role': 'user', 'content': ...}}]"


def _build(context: PreflightContext, split: str, is_train: bool, diagnostics: Diagnostics) -> Any:
    from verl.trainer.ppo.utils import create_rl_dataset
    from verl.utils.dataset.rl_dataset import get_dataset_class

    trainer, data = context.trainer, context.trainer.config.data
    context.progress(f"the {split} data")
    results: list[FilterResult] = []
    try:
        cls = get_dataset_class(data)
    except Exception as error:
        diagnostics.raised(error, "data.custom_cls", "fix the path, the name or the class")
        return None
    samples = data.get(f"{split}_max_samples", -1)
    if split == "train" or samples > 0:
        _check_subset(context, split, samples, diagnostics)
    try:
        with watched_filter(cls, results):
            files = data[f"{split}_files"]
            dataset = create_rl_dataset(
                files, data, trainer.tokenizer, trainer.processor, is_train=is_train, max_samples=samples
            )
            if cls.__module__ == "verl.utils.dataset.rl_dataset" and not data.filter_overlong_prompts:
                _try_filter(dataset, trainer.tokenizer)
    except Exception as error:
        location = (
            where(context, split) if cls.__module__.startswith("verl.") else f"data.custom_cls, {where(context, split)}"
        )
        diagnostics.raised(error, location, "fix the file, or the path", prefix=f"the {split} data cannot be loaded: ")
        return None
    for result in results:
        _report_filter(context, split, result, diagnostics)
    return dataset


def _try_filter(dataset: Any, tokenizer: Any) -> None:
    """Run verl's filter on the first rows, where the run itself does not filter."""
    if tokenizer is not None and len(dataset):
        dataset.filter_overlong_prompts = True
        dataset.maybe_filter_out_long_prompts(dataset.dataframe.select(range(min(LENGTH_SAMPLE, len(dataset)))))
        dataset.filter_overlong_prompts = False


@contextlib.contextmanager
def watched_filter(cls: Any, results: list[FilterResult]) -> Iterator[None]:
    """Record what verl's filter of overlong prompts drops, and run it on a sample of a large dataset only."""
    stock = getattr(cls, "maybe_filter_out_long_prompts", None)
    if stock is None:
        yield
        return

    def filtered(self: Any, dataframe: Any = None) -> Any:
        if not self.filter_overlong_prompts or not len(dataframe):
            return stock(self, dataframe)
        rows = len(dataframe)
        sample = dataframe
        if rows > FILTER_LIMIT:
            sample = dataframe.select(sorted(random.Random(0).sample(range(rows), FILTER_SAMPLE)))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            kept = stock(self, sample)
        lines = printed.getvalue().splitlines()
        reasons = [line for line in lines if line and not line[0].isspace() and "Error" in line.partition(":")[0]]
        failed = sum(SKIPPED in line for line in lines)
        reason = reasons[-1] if failed and reasons else ""
        results.append(FilterResult(rows, len(sample), len(sample) - len(kept), failed, reason))
        return kept if sample is dataframe else dataframe

    with mock.patch.object(cls, "maybe_filter_out_long_prompts", filtered):
        yield


def _report_filter(context: PreflightContext, split: str, result: FilterResult, diagnostics: Diagnostics) -> None:
    data, location = context.config.data, where(context, split)
    filters = data.get("filter_overlong_prompts", True)
    tried = f"{result.tried:,} of {result.rows:,} {split} rows"
    if filters and result.tried < result.rows:
        diagnostics.note(f"verl's filter of overlong prompts was run on a sample: {tried}", location)
    if result.failed:
        message = f"{result.failed:,} of {tried} cannot be tokenized: {result.reason}"
        fix = "write the messages as the model's chat template expects them"
        (diagnostics.warning if filters and result.failed < result.tried else diagnostics.error)(message, location, fix)
    long = result.dropped - result.failed
    if long > 0:
        effect = "are dropped" if filters else "lose their beginning"
        message = (
            f"{long:,} of {tried} have more than data.max_prompt_length={data.max_prompt_length} tokens and {effect}"
        )
        everything = filters and result.dropped == result.tried
        (diagnostics.error if everything else diagnostics.warning)(message, location, "raise data.max_prompt_length")


def _check_subset(context: PreflightContext, split: str, samples: int, diagnostics: Diagnostics) -> None:
    """verl draws the subset anew at each start, so an unseeded one differs after a resume."""
    data = context.config.data
    if not samples or samples < 0 or not data.get("shuffle") or data.get("seed") is not None:
        return
    if context.config.trainer.save_freq > 0 or context.config.trainer.resume_mode == "resume_path":
        message = f"data.{split}_max_samples={samples} with an unseeded shuffle: a resumed run would use other rows"
        diagnostics.warning(message, f"data.seed, data.{split}_max_samples", "data.seed=1, for example")


def _check_columns(context: PreflightContext, split: str, dataset: Any, diagnostics: Diagnostics) -> None:
    names = getattr(getattr(dataset, "dataframe", None), "column_names", None)
    if names is None:
        return
    for reserved in check_columns(names, bool(context.config.trainer.use_v1)):
        location = f"{where(context, split)}, column {reserved.name}"
        diagnostics.add(reserved.severity, f"the {split} column {reserved}", location, "rename the column")
        context.columns_valid &= reserved.severity != "error"


def _check_missing(context: PreflightContext, split: str, dataset: Any, diagnostics: Diagnostics) -> None:
    """Count missing values of the columns that every row needs."""
    table: Any = getattr(dataset, "dataframe", None)
    if not hasattr(table, "with_format"):
        diagnostics.note(f"{type(dataset).__name__} has no dataframe: only some rows were read", where(context, split))
        return
    prompt = str(context.config.data.prompt_key)
    columns = [name for name in (prompt, "data_source", "reward_model") if name in table.column_names]
    for name in {prompt, "data_source", "reward_model"} - set(columns):
        message = f"the {split} data have no column {name!r}; columns: {', '.join(table.column_names)}"
        key = "data.prompt_key" if name == prompt else where(context, split)
        diagnostics.error(
            message, key, "add the column" if name != prompt else "add it, or name yours with data.prompt_key"
        )
    missing: dict[str, list[int]] = {name: [] for name in (*columns, "reward_model.ground_truth")}
    start = 0
    for batch in table.select_columns(columns).with_format("arrow").iter(batch_size=1 << 14):
        for name in columns:
            column = batch.column(name)
            missing[name] += [start + row for row in _rows_without(column, name == prompt)]
            if name == "reward_model":
                truths = _field(column, "ground_truth")
                if truths is not None:
                    without = set(_rows_without(truths, False)) - set(_rows_without(column, False))
                    missing["reward_model.ground_truth"] += [start + row for row in sorted(without)]
        start += batch.num_rows
    for name, rows in missing.items():
        if rows:
            message = f"{len(rows):,} of {len(table):,} {split} rows have no {name} (first rows: {rows[:5]})"
            add = diagnostics.warning if name == "reward_model.ground_truth" else diagnostics.error
            add(message, f"{where(context, split)}, column {name}", "fill them, or drop the rows")


def _rows_without(column: Any, is_list: bool) -> list[int]:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if is_list and (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        empty = pc.equal(pc.fill_null(pc.list_value_length(column), 0), 0)
    elif column.null_count == 0:
        return []
    else:
        empty = pc.is_null(column)
    return list(pc.indices_nonzero(empty).to_pylist())


def _field(column: Any, name: str) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_struct(column.type) and column.type.get_field_index(name) >= 0:
        return pc.struct_field(column, name)
    return None


def check_steps(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Build verl's dataloaders and fetch the first batch."""
    trainer, config = context.trainer, context.config
    if trainer.train_dataset is None or trainer.val_dataset is None:
        return
    rows, size = len(trainer.train_dataset), config.data.train_batch_size
    keys = "data.train_batch_size, data.gen_batch_size"
    try:
        _build_dataloaders(trainer)
        steps = trainer.total_training_steps
        if rows < size or len(trainer.train_dataloader) < 1:
            message = f"{rows:,} training rows do not fill one batch of {size:,}"
            diagnostics.error(message, f"{keys}, {where(context, 'train')}", f"data.train_batch_size={rows} at most")
            return
        if hasattr(trainer, "_next_train_batch"):
            trainer._next_train_batch()
        else:
            next(iter(trainer.train_dataloader))
    except Exception as error:
        diagnostics.raised(error, keys, "a multiple of the other", prefix="verl cannot fetch the first batch: ")
        return
    in_epochs = rows // size * config.trainer.total_epochs
    n = config.actor_rollout_ref.rollout.n
    steps = min(in_epochs, steps)
    context.facts.append(f"{rows:,} training rows, {steps:,} steps of {size:,} prompts x {n} responses")
    asked = config.trainer.total_training_steps
    if asked and asked > in_epochs:
        epochs = f"{config.trainer.total_epochs} epochs of {rows:,} rows"
        message = f"{epochs} are {in_epochs:,} steps: verl stops there, not at {asked:,}"
        fix = f"trainer.total_epochs={-(-asked * size // rows)}"
        diagnostics.warning(message, "trainer.total_epochs, trainer.total_training_steps", fix)


def _build_dataloaders(trainer: Any) -> None:
    """Call the trainer's own method with the datasets that were built already."""
    datasets = [trainer.train_dataset, trainer.val_dataset]
    if hasattr(trainer, "_init_dataloader"):
        with mock.patch("verl.trainer.ppo.v1.trainer_base.create_rl_dataset", side_effect=datasets):
            trainer._init_dataloader()
    else:
        trainer._create_dataloader(*datasets, None, None)
