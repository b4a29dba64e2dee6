# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""The process in which vLLM generates: reads a job of `generate` and appends a line of responses per prompt.

python -m verl_pgrpo.evaluation.generate_worker job.json
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, get_args

PR_SET_PDEATHSIG = 1
BATCH = 512  # prompts per call; vLLM batches within them, and progress shows between them
CPU_ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",  # compiling takes longer than running a model that fits a CPU
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process less; vLLM's CPU build starts a worker process otherwise
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; the default is a large part of the machine
}


def main(path: Path) -> None:
    """Run the job in the file."""
    if sys.platform == "linux":  # end with the command, even if it is killed
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    import torch

    job = json.loads(path.read_text(encoding="utf-8"))
    engine: dict[str, Any] = job["engine"]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or accelerator.type == "mps":
        for name, value in CPU_ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        engine = {"enforce_eager": True, **engine}
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    from vllm import LLM, SamplingParams
    from vllm.config.lora import MaxLoRARanks
    from vllm.lora.request import LoRARequest

    adapter = None
    if job["adapter"]:
        rank = min((rank for rank in get_args(MaxLoRARanks) if rank >= job["lora_rank"]), default=job["lora_rank"])
        engine = {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank, **engine}
        adapter = LoRARequest("adapter", 1, job["adapter"])
    llm = LLM(**engine)
    with open(job["out"], "a", encoding="utf-8") as out:
        for start in range(0, len(job["messages"]), BATCH):
            part = slice(start, start + BATCH)
            sampling = [SamplingParams(seed=seed, **job["sampling"]) for seed in job["seeds"][part]]
            answers = llm.chat(
                job["messages"][part], sampling, use_tqdm=False, lora_request=adapter,
                chat_template_kwargs=job["template"] or None,
            )  # fmt: skip
            out.writelines(json.dumps([one.text for one in answer.outputs]) + "\n" for answer in answers)
            out.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
