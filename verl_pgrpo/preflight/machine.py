# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What this machine offers to a run: accelerators, shared memory, disks, open files."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

from .diagnostic import ERROR, NOTE, WARNING, Diagnostic

GIB = float(1 << 30)
SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED = 1.0  # GiB: with a container's 64 MiB, Ray, NCCL and verl's weight sync fail with unrelated messages
RAY_SHARE = 0.3  # of the memory: Ray's object store, which spills to disk if it does not fit
LEAST_FREE, ENOUGH_FREE = 1.0, 20.0  # GiB on a disk
FULL = 0.95  # Ray stops spilling here
OPEN_FILES = 8192


def check_machine() -> list[Diagnostic]:
    disks = [check_disk("disk, here", Path.cwd()), check_disk("disk, temporary", Path(tempfile.gettempdir()))]
    return [check_accelerators(), check_shared_memory(), *disks, check_open_files()]


def check_accelerators() -> Diagnostic:
    try:
        import torch
    except ImportError as error:
        return Diagnostic(ERROR, "accelerators", f"torch cannot be imported: {error}", "", "pip install torch")
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is not None and found.type == "cuda":
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        kinds = {f"{device.name}, {device.total_memory / GIB:.0f} GiB" for device in devices}
        return Diagnostic(NOTE, "accelerators", f"{len(devices)} x {' and '.join(sorted(kinds))}", "")
    if found is not None and found.type != "mps":  # which verl does not support
        return Diagnostic(NOTE, "accelerators", f"{torch.accelerator.device_count()} x {found.type}", "")
    if any(Path("/dev").glob("nvidia[0-9]*")):
        build = "a CPU build of torch" if torch.version.cuda is None else f"torch for CUDA {torch.version.cuda}"
        fix = "install a torch for the CUDA version of nvidia-smi; check CUDA_VISIBLE_DEVICES"
        return Diagnostic(ERROR, "accelerators", f"torch sees none, although /dev/nvidia* exist: {build}", "", fix)
    return Diagnostic(WARNING, "accelerators", "none", "", "only the CPU examples run here: make quickstart")


def check_shared_memory() -> Diagnostic:
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError as error:
        return Diagnostic(ERROR, "shared memory", f"{error.strerror}", str(SHARED_MEMORY), "mount a tmpfs there")
    return rate_shared_memory(usage.total / GIB, usage.free / GIB, memory_bytes() / GIB)


def rate_shared_memory(size: float, free: float, memory: float) -> Diagnostic:
    """All in GiB; `memory` is the machine's."""
    text, severity = f"{SHARED_MEMORY}: {free:.1f} of {size:.1f} GiB free", NOTE
    fix = "docker run --shm-size=32g (Kubernetes: an emptyDir with medium Memory at /dev/shm)"
    if size < LEAST_SHARED:
        severity = ERROR
    elif size < RAY_SHARE * memory:
        severity, text = WARNING, f"{text}; Ray wants {RAY_SHARE:.0%} of {memory:.0f} GiB of memory"
    elif free < LEAST_SHARED:
        severity, fix = WARNING, f"remove what killed runs left: ls {SHARED_MEMORY}"
    return Diagnostic(severity, "shared memory", text, str(SHARED_MEMORY), fix if severity != NOTE else "")


def check_disk(name: str, folder: Path) -> Diagnostic:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Diagnostic(ERROR, name, f"{folder}: {error.strerror}", str(folder), "create the folder, or name another")
    free = usage.free / GIB
    text = f"{folder}: {free:,.0f} of {usage.total / GIB:,.0f} GiB free"
    if not os.access(folder, os.W_OK):
        return Diagnostic(ERROR, name, f"{folder} cannot be written", str(folder), "use another folder")
    if free < LEAST_FREE:
        return Diagnostic(ERROR, name, text, str(folder), "free space, or use another disk (temporary files: TMPDIR)")
    if free < ENOUGH_FREE or usage.used / usage.total > FULL:
        full = f"; Ray stops writing to a disk that is {FULL:.0%} full" if usage.used / usage.total > FULL else ""
        fix = "free space: a checkpoint has 12 to 14 bytes per parameter"
        return Diagnostic(WARNING, name, f"{text}{full}", str(folder), fix)
    return Diagnostic(NOTE, name, text, str(folder))


def check_open_files() -> Diagnostic:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"{soft:,} now, at most {hard:,}"
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        return Diagnostic(WARNING, "open files", text, "", "ulimit -n 65536: Ray keeps many sockets open")
    return Diagnostic(NOTE, "open files", text, "")


def memory_bytes() -> int:
    """The machine's memory, or the container's limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(limit)
        text = path.read_text().strip() if path.exists() else ""
        if text.isdigit():
            total = min(total, int(text))
    return total
