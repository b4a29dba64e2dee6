# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The process in which vLLM generates: reads a job of `generate`, appends a line of responses for each prompt.

python -m verl_pgrpo.evaluation.vllm_worker job.json
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
AT_A_TIME = 512  # prompts; vLLM batches within them, and progress is seen between them
ON_A_CPU = {
    "TORCHDYNAMO_DISABLE": "1",  # compiling takes longer than a model that one runs on a CPU
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # else its CPU build insists on a worker process beside its engine process
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default is a good part of the machine
}


def main(path: Path) -> None:
    """Do the job that the file describes."""
    if sys.platform == "linux":  # should the command be killed, this process shall not stay behind
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    import torch

    job = json.loads(path.read_text(encoding="utf-8"))
    engine: dict[str, Any] = job["engine"]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or accelerator.type == "mps":
        for name, value in ON_A_CPU.items():
            os.environ.setdefault(name, value)
        engine = {"enforce_eager": True, **engine}
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import LLM, SamplingParams

    llm = LLM(**engine)
    with open(job["out"], "a", encoding="utf-8") as out:
        for start in range(0, len(job["messages"]), AT_A_TIME):
            part = slice(start, start + AT_A_TIME)
            sampling = [SamplingParams(seed=seed, **job["sampling"]) for seed in job["seeds"][part]]
            answers = llm.chat(
                job["messages"][part], sampling, use_tqdm=False, chat_template_kwargs=job["template"] or None
            )
            out.writelines(json.dumps([one.text for one in answer.outputs]) + "\n" for answer in answers)
            out.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
