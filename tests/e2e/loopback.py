# Copyright 2026 The verl-pgrpo authors
# SPDX-License-Identifier: Apache-2.0
"""A network that has loopback addresses and nothing else: what a cluster in it listens on, nobody outside can reach."""

from __future__ import annotations

import subprocess
import sys

# `ip link set lo up` (SIOCSIFFLAGS, IFF_UP | IFF_RUNNING) and `ip address add 127.0.0.2/8 dev lo` (SIOCSIFADDR) where
# there need not be an `ip`; the latter as getaddrinfo takes a machine with 127.0.0.1 alone for one without IPv4. It
# then stays until its standard input ends, as that does with whoever started it.
_HOLD = """
import fcntl, socket, struct, sys
network = socket.socket()
fcntl.ioctl(network, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
fcntl.ioctl(network, 0x8916, struct.pack("16sHH4s8x", b"lo:2", socket.AF_INET, 0, socket.inet_aton("127.0.0.2")))
print("up", flush=True)
sys.stdin.read()
"""


class Loopback:
    """The network, from `with` to its end. Linux, and root's to make."""

    def __enter__(self) -> Loopback:
        hold = ["unshare", "--net", sys.executable, "-c", _HOLD]
        self._holder = subprocess.Popen(hold, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"up\n"
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.communicate()

    def inside(self, *command: str) -> list[str]:
        """The command that runs `command` in it, under the same process id."""
        return ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "--", *command]


def why_not() -> str | None:
    """Why there can be no such network here; None if there can."""
    try:
        subprocess.run(["unshare", "--net", "nsenter", "--version"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network of loopback addresses here (it takes Linux and root): {error}"
    return None
