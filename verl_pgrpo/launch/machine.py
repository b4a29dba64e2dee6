# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""What this machine gives to a run: accelerators, shared memory, disks, open files."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

from .vital import BAD, OK, WARN, Vital

GIB = float(1 << 30)
SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED = 1.0  # GiB: with a container's 64 MiB, Ray, NCCL and verl's weight sync fail in ways that do not say so
RAY_SHARE = 0.3  # of the memory: Ray's object store, which goes to the disk where it does not fit
LEAST_FREE, ENOUGH_FREE = 1.0, 20.0  # GiB on a disk
FULL = 0.95  # Ray stops spilling there
OPEN_FILES = 8192


def accelerators() -> Vital:
    try:
        import torch
    except ImportError as error:
        return Vital("accelerators", BAD, f"torch cannot be imported: {error}", "pip install torch")
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is not None and found.type == "cuda":
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        kinds = {f"{device.name}, {device.total_memory / GIB:.0f} GiB" for device in devices}
        return Vital("accelerators", OK, f"{len(devices)} x {' and '.join(sorted(kinds))}")
    if found is not None and found.type != "mps":  # which verl does not know
        return Vital("accelerators", OK, f"{torch.accelerator.device_count()} x {found.type}")
    if any(Path("/dev").glob("nvidia[0-9]*")):
        why = "a CPU build of torch" if torch.version.cuda is None else f"torch for CUDA {torch.version.cuda}"
        fix = "install a torch for the CUDA that nvidia-smi shows; look at CUDA_VISIBLE_DEVICES"
        return Vital("accelerators", BAD, f"none that torch sees, though there are /dev/nvidia*: {why}", fix)
    return Vital("accelerators", WARN, "none", "only the CPU demos run here: make quickstart")


def shared_memory() -> Vital:
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError as error:
        return Vital("shared memory", BAD, f"{SHARED_MEMORY}: {error.strerror}", "mount a tmpfs there")
    return shared_memory_of(usage.total / GIB, usage.free / GIB, memory_bytes() / GIB)


def shared_memory_of(size: float, free: float, memory: float) -> Vital:
    """All in GiB; `memory` is the machine's."""
    said = f"{SHARED_MEMORY}: {free:.1f} of {size:.1f} GiB free"
    fix = "docker run --shm-size=32g (Kubernetes: an emptyDir of medium Memory at /dev/shm)"
    if size < LEAST_SHARED:
        return Vital("shared memory", BAD, said, fix)
    if size < RAY_SHARE * memory:
        return Vital("shared memory", WARN, f"{said}; Ray wants {RAY_SHARE:.0%} of {memory:.0f} GiB of memory", fix)
    if free < LEAST_SHARED:
        return Vital("shared memory", WARN, said, f"look for what killed runs left there: ls {SHARED_MEMORY}")
    return Vital("shared memory", OK, said)


def disk(name: str, folder: Path) -> Vital:
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Vital(name, BAD, f"{folder}: {error.strerror}", "make the folder, or name another")
    free = usage.free / GIB
    said = f"{folder}: {free:,.0f} of {usage.total / GIB:,.0f} GiB free"
    if free < LEAST_FREE or not os.access(folder, os.W_OK):
        fix = "free space, or work elsewhere (Ray's and other temporary files: TMPDIR)"
        return Vital(name, BAD, said if free < LEAST_FREE else f"{folder} cannot be written", fix)
    if free < ENOUGH_FREE or usage.used / usage.total > FULL:
        full = f"; Ray stops writing to a disk that is {FULL:.0%} full" if usage.used / usage.total > FULL else ""
        return Vital(name, WARN, f"{said}{full}", "a checkpoint has 12 to 14 bytes a parameter: free space for some")
    return Vital(name, OK, said)


def disks() -> list[Vital]:
    return [disk("disk, here", Path.cwd()), disk("disk, temporary", Path(tempfile.gettempdir()))]


def open_files() -> Vital:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    said = f"{soft:,} now, {hard:,} at most"
    if hard != resource.RLIM_INFINITY and hard < OPEN_FILES:
        return Vital("open files", WARN, said, "ulimit -n 65536: Ray keeps many sockets open")
    return Vital("open files", OK, said)


def memory_bytes() -> int:
    """The machine's memory, or the container's share of it."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(limit).read_text().strip()
        except OSError:
            continue
        if text.isdigit():
            total = min(total, int(text))
    return total
