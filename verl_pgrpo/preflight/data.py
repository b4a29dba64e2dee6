# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Build verl's datasets and dataloaders, and inspect them."""

from __future__ import annotations

import contextlib
import io
import math
import random
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from omegaconf import OmegaConf

from verl_pgrpo.integration.batch import arrow_batches
from verl_pgrpo.integration.columns import check_columns, dataset_columns

from .context import PreflightContext
from .diagnostic import ERROR, WARNING, Diagnostics

FILTER_LIMIT = 20_000  # rows; for larger datasets verl's filter runs on a sample
FILTER_SAMPLE = 2_000
LENGTH_SAMPLE = 256  # rows, if verl does not filter
SKIPPED = "Error processing one of the samples"  # what verl's filter prints for a row that it cannot tokenize


def check_data(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Build both datasets, as verl does, and read their first row."""
    if context.trainer.tokenizer is None:
        context.trainer.config.data.filter_overlong_prompts = False
    for name in ("train", "val"):
        context.emit({"progress": f"the {name} data"})
        setattr(context.trainer, f"{name}_dataset", _Split(name, context, diagnostics).checked())


def splits(context: PreflightContext) -> dict[str, Any]:
    """The datasets that could be built."""
    datasets = {"train": context.trainer.train_dataset, "val": context.trainer.val_dataset}
    return {split: dataset for split, dataset in datasets.items() if dataset is not None}


def where(context: PreflightContext, split: str) -> str:
    files = context.get(f"data.{split}_files")
    files = list(files) if OmegaConf.is_list(files) else [files]
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"data.{split}_files={files[0] if files else '[]'}{more}"


class _Split:
    """One of the datasets, and its diagnostics."""

    def __init__(self, name: str, context: PreflightContext, diagnostics: Diagnostics) -> None:
        self.name, self.context, self.found = name, context, diagnostics
        self.location = where(context, name)
        self.prompt_key = str(context.get("data.prompt_key", "prompt"))
        self.max_samples = context.config.data.get(f"{name}_max_samples", -1)
        self.rows: int | None = None  # before verl's filter; None if a class of the user has none

    def checked(self) -> Any:
        """Return verl's dataset; None if it cannot be built or has no rows, which is reported."""
        dataset = self.build()
        if dataset is None:
            return None
        self.check_subset()
        if len(dataset) == 0:
            if not any(one.severity == ERROR and one.location == self.location for one in self.found.found):
                self.found.error(f"the {self.name} data have no rows", self.location, "verl stops at an empty dataset")
            return None
        table = getattr(dataset, "dataframe", None)
        fix = f"{self.prompt_key}: a list of messages [{{'role': 'user', 'content': ...}}]"
        with self.found.reporting(f"{self.location}, row 0", fix, f"{self.name} row 0: "):
            self.check_columns(dataset_columns(dataset))
        if hasattr(table, "with_format"):
            self.check_missing(table)
        else:
            self.found.note(f"{type(dataset).__name__} has no dataframe: only some rows were read", self.location)
        return dataset

    def build(self) -> Any:
        from verl.trainer.ppo.utils import create_rl_dataset
        from verl.utils.dataset.rl_dataset import RLHFDataset, get_dataset_class

        trainer, data, dataset = self.context.trainer, self.context.trainer.config.data, None
        with self.found.reporting("data.custom_cls", "fix the path, the name or the class"):
            cls = get_dataset_class(data)
            custom = "" if cls.__module__.startswith("verl.") else "data.custom_cls, "
            failed = f"the {self.name} data cannot be loaded: "
            with self.found.reporting(custom + self.location, "fix the file, or the path", failed), self.watched(cls):
                options = {"is_train": self.name == "train", "max_samples": self.max_samples}
                files = data[f"{self.name}_files"]
                made = create_rl_dataset(files, data, trainer.tokenizer, trainer.processor, **options)
                filters = data.filter_overlong_prompts or trainer.tokenizer is None
                if cls is RLHFDataset and not filters and len(made):
                    # The run itself does not filter. Here verl's filter finds which of the first rows are too long.
                    first = made.dataframe.select(range(min(LENGTH_SAMPLE, len(made))))
                    with mock.patch.object(made, "filter_overlong_prompts", True):
                        made.maybe_filter_out_long_prompts(first)
                dataset = made
        return dataset

    @contextlib.contextmanager
    def watched(self, cls: Any) -> Iterator[None]:
        """Report what verl's filter of overlong prompts drops, and run it on a sample of a large dataset only."""
        stock: Any = getattr(cls, "maybe_filter_out_long_prompts", None)

        def filtered(dataset: Any, table: Any = None) -> Any:
            self.rows = self.rows or len(table)
            if not dataset.filter_overlong_prompts or not len(table):
                return stock(dataset, table)
            rows, sample = len(table), table
            if rows > FILTER_LIMIT:
                sample = table.select(sorted(random.Random(0).sample(range(rows), FILTER_SAMPLE)))
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                kept = stock(dataset, sample)
            self.report_filter(rows, len(sample), len(kept), printed.getvalue().splitlines())
            return kept if sample is table else table

        with contextlib.nullcontext() if stock is None else mock.patch.object(cls, stock.__name__, filtered):
            yield

    def report_filter(self, rows: int, tried: int, kept: int, printed: list[str]) -> None:
        data = self.context.config.data
        filters = data.get("filter_overlong_prompts", True)
        tried_rows = f"{tried:,} of {rows:,} {self.name} rows" if tried < rows else f"{rows:,} {self.name} rows"
        if filters and tried < rows:
            self.found.note(f"verl's filter of overlong prompts was run on a sample: {tried_rows}", self.location)
        if failed := sum(SKIPPED in line for line in printed):
            reasons = [line for line in printed if line[:1].strip() and "Error" in line.partition(":")[0]]
            message = f"{failed:,} of {tried_rows} cannot be tokenized: {reasons[-1] if reasons else ''}"
            severity = WARNING if filters and failed < tried else ERROR
            fix = "write the messages as the model's chat template expects them"
            self.found.add(severity, message, self.location, fix)
        if (long := tried - kept - failed) > 0:
            limit = f"data.max_prompt_length={data.max_prompt_length}"
            effect = "are dropped" if filters else "lose their beginning"
            message = f"{long:,} of {tried_rows} have more than {limit} tokens and {effect}"
            severity = ERROR if filters and not kept else WARNING
            self.found.add(severity, message, self.location, "raise data.max_prompt_length")

    def check_subset(self) -> None:
        """verl draws the subset anew at each start, so an unseeded one differs after a resume."""
        data, trainer = self.context.config.data, self.context.config.trainer
        if not isinstance(self.max_samples, int) or not 0 < self.max_samples <= (self.rows or self.max_samples):
            return
        resumes = trainer.save_freq > 0 or trainer.resume_mode == "resume_path"
        if resumes and data.get("shuffle") and data.get("seed") is None:
            key = f"data.{self.name}_max_samples"
            message = f"{key}={self.max_samples} with an unseeded shuffle: a resumed run would use other rows"
            self.found.warning(message, f"data.seed, {key}", "data.seed=1, for example")

    def check_columns(self, names: list[str]) -> None:
        for reserved in check_columns(names, bool(self.context.config.trainer.use_v1)):
            location = f"{self.location}, column {reserved.name}"
            self.found.add(reserved.severity, f"the {self.name} column {reserved}", location, "rename the column")
            self.context.columns_valid &= reserved.severity != ERROR

    def check_missing(self, table: Any) -> None:
        """Count missing values of the columns that every row needs."""
        needed = [self.prompt_key, "data_source", "reward_model"]
        for name in set(needed) - set(table.column_names):
            message = f"the {self.name} data have no column {name!r}; columns: {', '.join(table.column_names)}"
            if name == self.prompt_key:
                self.found.error(message, "data.prompt_key", "add it, or name yours with data.prompt_key")
            else:
                self.found.error(message, self.location, "add the column")
        present = [name for name in (*needed, "agent_name") if name in table.column_names]
        missing: dict[str, list[int]] = {}
        start = 0
        for batch in arrow_batches(table, present):
            empty = {name: _empty(batch.column(name)) for name in present}
            for name, field in (("reward_model", "ground_truth"), (self.prompt_key, "content")):
                if name in present and (without := _empty_field(batch.column(name), field)) is not None:
                    empty[f"{name}.{field}"] = pc.and_not(without, empty[name])
            for name, flags in empty.items():
                missing.setdefault(name, []).extend(start + row for row in pc.indices_nonzero(flags).to_pylist())
            start += batch.num_rows
        for name, rows in missing.items():
            if rows:
                message = f"{len(rows):,} of {len(table):,} {self.name} rows have no {name} (first rows: {rows[:5]})"
                severity = WARNING if name == "reward_model.ground_truth" else ERROR
                self.found.add(severity, message, f"{self.location}, column {name}", "fill them, or drop the rows")


def _empty(column: Any) -> Any:
    """Whether each value is null, NaN or an empty list."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        return pc.fill_null(pc.equal(pc.list_value_length(column), 0), True)
    return pc.is_null(column, nan_is_null=True)


def _empty_field(column: Any, name: str) -> Any:
    """Whether a field of each row's struct, or of its messages except the assistant's, is empty; None without one."""
    column = column.combine_chunks()
    messages = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    values = column.flatten() if messages else column
    if not pa.types.is_struct(values.type) or values.type.get_field_index(name) < 0:
        return None
    empty = _empty(pc.struct_field(values, name))
    if not messages:
        return empty
    if values.type.get_field_index("role") >= 0:  # a message that calls a tool has no content
        empty = pc.and_(empty, pc.fill_null(pc.not_equal(pc.struct_field(values, "role"), "assistant"), True))
    rows = np.zeros(len(column), bool)
    rows[pc.list_parent_indices(column).filter(empty).to_numpy()] = True
    return pa.array(rows)


def check_steps(context: PreflightContext, diagnostics: Diagnostics) -> None:
    """Build verl's dataloaders and fetch the first batch."""
    trainer, config = context.trainer, context.config
    if not context.sizes_valid or len(splits(context)) < 2:
        return
    rows, size, epochs = len(trainer.train_dataset), config.data.train_batch_size, config.trainer.total_epochs
    keys = "data.train_batch_size, data.gen_batch_size"
    others = "data.dataloader_num_workers, data.val_batch_size, data.seed"
    failed, built = "verl cannot build its dataloaders: ", False
    with diagnostics.reporting(f"{keys}, {others}", "set the key that the message is about", failed):
        datasets = [trainer.train_dataset, trainer.val_dataset]  # as already built
        if hasattr(trainer, "_init_dataloader"):
            with mock.patch("verl.trainer.ppo.v1.trainer_base.create_rl_dataset", side_effect=datasets):
                trainer._init_dataloader()
        elif rows >= size:
            trainer._create_dataloader(*datasets, None, None)
        built = True
    if not built:
        return
    with diagnostics.reporting(keys, "a multiple of the other", "verl cannot fetch the first batch: "):
        if rows < size or len(trainer.train_dataloader) < 1:
            batch = size if rows < size else trainer.train_dataloader.batch_size
            message = f"{rows:,} training rows do not fill one batch of {batch:,}"
            diagnostics.error(message, f"{keys}, {where(context, 'train')}", f"data.train_batch_size={rows} at most")
            return
        trainer.train_dataloader.num_workers = 0  # so that no process starts
        if hasattr(trainer, "_next_train_batch"):
            trainer._next_train_batch()
        else:
            next(iter(trainer.train_dataloader))
        per_epoch = rows // size
        in_epochs = per_epoch * epochs
        steps, asked = min(in_epochs, trainer.total_training_steps), config.trainer.total_training_steps
        n = config.actor_rollout_ref.rollout.n
        context.facts.append(f"{rows:,} training rows, {steps:,} steps of {size:,} prompts x {n} responses")
        if asked and asked > in_epochs:
            message = f"{epochs} epochs of {rows:,} rows are {in_epochs:,} steps: verl stops there, not at {asked:,}"
            fix = f"trainer.total_epochs={math.ceil(asked / per_epoch)}"
            diagnostics.warning(message, "trainer.total_epochs, trainer.total_training_steps", fix)
