# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Make vLLM's sixth load of weights fail in the middle, and create the file `FAILED_SYNC` first.

verl imports this in all of its processes if `VERL_USE_EXTERNAL_MODULES` names it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import wrapt

_syncs = 0


@wrapt.when_imported("verl.workers.rollout.vllm_rollout.utils")
def fail_in_sixth_sync(module: Any) -> None:
    @wrapt.patch_function_wrapper(module, "vLLMColocateWorkerExtension.update_weights_from_ipc")
    def count(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        global _syncs
        _syncs += 1
        return wrapped(*args, **kwargs)

    @wrapt.patch_function_wrapper(module, "vLLMColocateWorkerExtension._update_weights")
    def fail(wrapped: Any, instance: Any, args: tuple, kwargs: dict) -> Any:
        result = wrapped(*args, **kwargs)
        if _syncs == 6:
            Path(os.environ["FAILED_SYNC"]).touch()
            raise ValueError("these weights cannot be loaded")
        return result
