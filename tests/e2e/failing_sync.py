# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Make vLLM's third load of weights fail in the middle, in a process that imports this (VERL_USE_EXTERNAL_MODULES)."""

from __future__ import annotations

from typing import Any

import wrapt

_syncs = 0


@wrapt.when_imported("verl.workers.rollout.vllm_rollout.utils")
def fail_in_third_sync(module: Any) -> None:
    @wrapt.patch_function_wrapper(module, "vLLMColocateWorkerExtension.update_weights_from_ipc")
    def count(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        global _syncs
        _syncs += 1
        return wrapped(*args, **kwargs)

    @wrapt.patch_function_wrapper(module, "vLLMColocateWorkerExtension._update_weights")
    def fail(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        result = wrapped(*args, **kwargs)
        if _syncs == 3:
            raise ValueError("these weights cannot be loaded")
        return result
