# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A network namespace with loopback addresses only: services in it cannot be reached from outside."""

from __future__ import annotations

import subprocess
import sys

# `ip link set lo up` (SIOCSIFFLAGS, IFF_UP | IFF_RUNNING) and `ip address add 127.0.0.2/8 dev lo` (SIOCSIFADDR) without
# the program `ip`. The second address is needed because getaddrinfo reports no IPv4 with 127.0.0.1 alone. Exits when
# its standard input closes.
_HOLD = """
import fcntl, socket, struct, sys
network = socket.socket()
fcntl.ioctl(network, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
fcntl.ioctl(network, 0x8916, struct.pack("16sHH4s8x", b"lo:2", socket.AF_INET, 0, socket.inet_aton("127.0.0.2")))
print("up", flush=True)
sys.stdin.read()
"""


class Loopback:
    """The namespace, for the duration of `with`. Needs Linux and root."""

    def __enter__(self) -> Loopback:
        hold = ["unshare", "--net", sys.executable, "-c", _HOLD]
        self._holder = subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"up\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()

    def inside(self, *command: str) -> list[str]:
        """Return the command that runs `command` in it, with the same process id."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--", *command]


def why_not() -> str | None:
    """Return why the namespace cannot be created here; None if it can."""
    try:
        subprocess.run(["unshare", "--net", "nsenter", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network of loopback addresses here (it takes Linux and root): {error}"
    return None
