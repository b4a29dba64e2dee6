# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""Resources of this machine: accelerators, shared memory, disks, open files."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

from .diagnostic import ERROR, NOTE, WARNING, Diagnostic

GIB = float(1 << 30)
SHARED_MEMORY = Path("/dev/shm")
LEAST_FREE = 1.0  # GiB: with a container's 64 MiB of /dev/shm, Ray, NCCL and verl's weight sync fail
ENOUGH_FREE = 20.0  # GiB on a disk
RAY_SHARE = 0.3  # of the memory: Ray's object store, which spills to disk if it does not fit
FULL = 0.95  # Ray stops spilling here
OPEN_FILES = 8192


def check_machine() -> list[Diagnostic]:
    shared = "docker run --shm-size=32g (Kubernetes: an emptyDir with medium Memory at /dev/shm)"
    disk = "free space, or use another disk (temporary files: TMPDIR); a checkpoint has 12 to 14 bytes per parameter"
    return [
        check_accelerators(),
        check_space("shared memory", SHARED_MEMORY, LEAST_FREE, RAY_SHARE * memory_bytes() / GIB, shared),
        check_space("disk, here", Path.cwd(), LEAST_FREE, ENOUGH_FREE, disk),
        check_space("disk, temporary", Path(tempfile.gettempdir()), LEAST_FREE, ENOUGH_FREE, disk),
        check_open_files(),
    ]


def check_accelerators() -> Diagnostic:
    name = "accelerators"
    try:
        import torch
    except ImportError as error:
        return Diagnostic(ERROR, name, f"torch cannot be imported: {error}", "", "pip install torch")
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is not None and found.type == "cuda":
        devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        kinds = {f"{device.name}, {device.total_memory / GIB:.0f} GiB" for device in devices}
        return Diagnostic(NOTE, name, f"{len(devices)} x {' and '.join(sorted(kinds))}")
    if found is not None and found.type != "mps":  # which verl does not support
        return Diagnostic(NOTE, name, f"{torch.accelerator.device_count()} x {found.type}")
    if any(Path("/dev").glob("nvidia[0-9]*")):
        build = "a CPU build of torch" if torch.version.cuda is None else f"torch for CUDA {torch.version.cuda}"
        fix = "install a torch for the CUDA version of nvidia-smi; check CUDA_VISIBLE_DEVICES"
        return Diagnostic(ERROR, name, f"torch finds none, although /dev/nvidia* exist: {build}", "", fix)
    return Diagnostic(WARNING, name, "none", "", "only the CPU examples run here: make quickstart")


def check_space(name: str, folder: Path, least: float, enough: float, more: str) -> Diagnostic:
    """Check the size of `/dev/shm`, or the free space on a disk.

    Below `least` (GiB) it is an error, below `enough` (GiB) a warning; `more` is the fix.
    """
    location = str(folder)
    try:
        usage = shutil.disk_usage(folder)
    except OSError as error:
        return Diagnostic(ERROR, name, f"{folder}: {error.strerror}", location, "create the folder, or name another")
    if not os.access(folder, os.W_OK):
        return Diagnostic(ERROR, name, f"{folder} cannot be written", location, "use another folder")
    text = f"{folder}: {usage.free / GIB:,.1f} of {usage.total / GIB:,.1f} GiB free"
    space = usage.total if folder == SHARED_MEMORY else usage.free
    if space < least * GIB:
        return Diagnostic(ERROR, name, text, location, more)
    if space < enough * GIB:
        return Diagnostic(WARNING, name, f"{text}; {enough:,.0f} GiB are recommended", location, more)
    if usage.free < LEAST_FREE * GIB or usage.used > FULL * usage.total:
        full = f"{text}; Ray stops writing where {FULL:.0%} are used"
        leftovers = f"; killed runs leave files in {SHARED_MEMORY}" if folder == SHARED_MEMORY else ""
        return Diagnostic(WARNING, name, full, location, f"free space{leftovers}")
    return Diagnostic(NOTE, name, text, location)


def check_open_files() -> Diagnostic:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = f"{soft:,} now, at most {hard:,}"
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES:
        return Diagnostic(NOTE, "open files", limits)
    fix = "raise the hard limit (limits.conf, or docker run --ulimit nofile=65536): Ray keeps many sockets open"
    return Diagnostic(WARNING, "open files", limits, "", fix)


def memory_bytes() -> int:
    """The machine's memory, or the container's limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        path = Path(limit)
        text = path.read_text().strip() if path.exists() else ""
        if text.isdigit():
            total = min(total, int(text))
    return total
